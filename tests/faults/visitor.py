"""A client in a process of its own, to be killed: starts runs, stops, retries, lists, waits.

What was acknowledged it writes to the oracle; who watches that file follows the runs. It ends when
its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from random import Random

from resolute import Client, FlowFailed, ResoluteError, UnknownFlow, UnknownRun
from resolute.store.connection import ServerReply
from tests.faults import app
from tests.faults.cases import CASES, USUAL
from tests.faults.oracle import FOLDER, Line, write

PATIENCE = 20.0  # s


async def visit(client: Client, random: Random, name: str) -> None:
    """One visit: a run, and all that can be done with one."""
    case = random.choice([case for case in USUAL if case.flow is not app.wide])
    run = await client.start(case.flow, case.work(random), id=name)
    write(Line("started", name, case.flow.name))
    if random.random() < 0.3:
        done = await (run.cancel() if random.random() < 0.5 else run.terminate())
        write(Line("stopped", name, note=str(done)))
    try:
        await run.result(timeout=60)
    except FlowFailed:
        again = await client.retry(name, number=1)
        write(Line("started", again.id, case.flow.name))
    await client.list(limit=5)
    await run.history()
    try:
        await client.start("no-such-flow")
    except UnknownFlow:
        pass


async def main(url: str, prefix: str) -> None:
    random, count = Random(prefix), 0
    while True:
        try:
            async with Client.connect(url, patience=PATIENCE) as client:
                while True:
                    count += 1
                    await visit(client, random, f"{prefix}-{count}")
        except (ResoluteError, UnknownRun, ServerReply, TimeoutError) as error:
            print(f"visitor: {error!r}", file=sys.stderr)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    assert Path(os.environ[FOLDER]).is_dir() and CASES
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(main(sys.argv[1], sys.argv[2]))
