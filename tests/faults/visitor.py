"""A client in a process of its own, to be killed: starts runs, stops, retries, lists, waits.

What was acknowledged it writes to the oracle; who watches that file follows the runs. It ends when
its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
from pathlib import Path
from random import Random
from typing import Any

from resolute import (
    Client,
    DurabilityNotConfirmed,
    FlowFailed,
    FlowRun,
    QueryTimeout,
    ResoluteError,
    RunEnded,
    UnknownFlow,
    UnknownLetter,
    UnknownQuery,
)
from resolute.durability import Level
from resolute.store.connection import ServerReply
from tests.faults import app
from tests.faults.app import Work
from tests.faults.cases import CASES, USUAL, Case, Sharing
from tests.faults.oracle import FOLDER, Line, write
from tests.faults.starting import begin

PATIENCE = 20.0  # s
LANES = 5  # visits at a time
LATER = 4.0  # s until some runs begin: longer than a lease, so that they are looked at meanwhile


async def visit(client: Client, random: Random, name: str) -> None:
    """One visit: a run, and all that can be done with one."""
    case = random.choice([case for case in USUAL if case.flow is not app.wide])
    level: Level = random.choice(("fast", "fsync"))
    delay = LATER if random.random() < 0.1 else None
    work = case.work(random)
    if delay and case.sharing is Sharing.NONE:
        run = await client.start(case.flow, work, id=name, delay=delay, durability=level)
        write(Line("started", name, case.flow.name, visited=True))
    else:
        run = await started(client, case, work, name, random, level)
    name = run.id
    if case.signal:
        with contextlib.suppress(RunEnded):
            await run.signal(case.signal, case.payload, sender=name, durability=level)
    if random.random() < 0.3:
        # A node of a run that is terminated runs on for a moment, and its key is free at once.
        is_shared = case.sharing is Sharing.UNIQUE
        how = "cancel" if is_shared else random.choice(("cancel", "terminate"))
        write(Line("stopping", name, note=how))
        done = await (run.cancel() if how == "cancel" else run.terminate())
        write(Line("stopped", name, note=f"{how} {done}"))
    for query in case.flow.plan.queries:
        with contextlib.suppress(QueryTimeout, UnknownQuery):  # no worker, no plan yet
            await run.query(query, timeout=2.0)
    try:
        await run.result(timeout=60, durability=level)
    except FlowFailed:
        with contextlib.suppress(ResoluteError):  # it was stopped before it began
            again = await client.retry(name, number=1)
            write(Line("started", again.id, case.flow.name, visited=True))
    if not case.signal and case.sharing is Sharing.NONE and random.random() < 0.3:
        anew = await run.rerun(durability=level)
        write(Line("started", anew.id, case.flow.name, visited=True))
    await client.list(limit=5)
    await run.history()
    await run.costs()


async def started(
    client: Client, case: Case, work: Work, name: str, random: Random, level: Level
) -> FlowRun[Any]:
    """Start a run twice: it is the same again, or one more with its key."""
    serial = itertools.count(1)

    async def once() -> FlowRun[Any]:
        run, line = await begin(
            client, case, work, name=name, key=name, random=random, serial=serial,
            durability=level,
        )  # fmt: skip
        line.visited = True
        write(line)
        return run

    await once()
    return await once()


async def look_around(client: Client, random: Random) -> None:
    """What a client does beside starting runs."""
    for letter in await client.dead_letters(limit=2):
        with contextlib.suppress(UnknownLetter):  # another visit was faster
            await client.dead_letter(letter.id)
        # One that is put back dies again; one that is dropped was garbage.
        await random.choice((client.retry_dead_letters, client.drop_dead_letters))(letter.id)
    with contextlib.suppress(UnknownFlow):
        await client.start("no-such-flow")
    await client.set_cursor("visited", "last", random.randrange(100))
    await client.cursor("visited", "last")


async def visits(client: Client, random: Random, prefix: str) -> None:
    """One visit after the other, until one fails."""
    count = 0
    while True:
        count += 1
        await look_around(client, random)
        await visit(client, random, f"{prefix}-{count}")


async def ask_for_replicas(client: Client) -> None:
    """There are none, so that it is not confirmed, which takes its time."""
    with contextlib.suppress(DurabilityNotConfirmed):
        await client.start(app.sequence, durability="replicated")


async def main(url: str, prefix: str) -> None:
    round_ = 0
    while True:
        round_ += 1
        try:
            async with (
                Client.connect(url, patience=PATIENCE) as client,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(ask_for_replicas(client))
                for lane in range(LANES):
                    name = f"{prefix}-{round_}-{lane}"
                    group.create_task(visits(client, Random(name), name))
        except* (ResoluteError, ServerReply, TimeoutError) as errors:
            print(f"visitor: {errors.exceptions!r}", file=sys.stderr)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    assert Path(os.environ[FOLDER]).is_dir() and CASES
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(main(sys.argv[1], sys.argv[2]))
