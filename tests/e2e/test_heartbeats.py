"""What a node told of its progress outlives its process; a silent one is found and replaced."""

from __future__ import annotations

import asyncio

from resolute import Client
from tests.e2e import beating
from tests.support.system import System, until


async def progress_of(client: Client, run_id: str) -> bytes | None:
    return await client.store.execute("HGET", client.store.keys.of(run_id).flow(run_id), "p:1.0")


def test_the_next_process_goes_on_from_what_a_killed_one_had_told(system: System) -> None:
    system.worker("--processes", "1", app="tests.e2e.beating")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, beating.copying.name)
            one = await client.start(beating.copying, None)

            async def is_kept() -> bool:
                told = await progress_of(client, one.id)
                return told is not None and told[-1] == beating.ROWS // 2 + 1

            await until(is_kept, "its progress is written")
            system.release("kept")
            assert await one.result() == beating.ROWS // 2 + 1
            (copied,) = await one.history()
            assert (copied.attempts, copied.crashes) == (1, 1)
            assert await progress_of(client, one.id) is None

    asyncio.run(run())
    assert [int(line[1]) for line in system.lines("row")] == list(range(beating.ROWS))


def test_a_silent_thread_is_replaced_with_its_process_and_costs_its_neighbours_nothing(
    system: System,
) -> None:
    system.worker("--processes", "1", "--kill-grace", "0.3", app="tests.e2e.beating")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, beating.silent.name)
            one = await client.start(beating.silent, None)
            await until(lambda: len(system.lines("beside")) == 2, "it was handed back")
            system.release("free")
            assert await one.result() == {"stuck": "went on", "beside": 1}
            stuck, beside = await one.history()
            assert stuck.attempts == 2 and stuck.crashes == 0
            assert stuck.error is not None and stuck.error.type == "HeartbeatTimeout"
            assert (beside.attempts, beside.crashes) == (1, 0)

    asyncio.run(run())
