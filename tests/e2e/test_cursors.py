"""Cursors, with real processes: what one run saved the next one reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from resolute.testing.server import ServerBinary
from tests.e2e import cursors
from tests.support.system import System, until


def test_each_run_goes_on_where_the_one_before_came_to(
    make_system: Callable[..., System], binary: ServerBinary
) -> None:
    system = make_system(binary, partitions=3)
    system.coordinator()
    system.worker("--processes", "2", app="tests.e2e.cursors")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, cursors.flow.name)
            for expected in ([1, 2, 3], [4, 5, 6], [7, 8, 9]):
                assert await (await client.start(cursors.flow)).result() == expected
            assert (await client.cursor("counted", "number")).value == 9
            await client.set_cursor("counted", "number", 100)
            assert await (await client.start(cursors.flow)).result() == [101, 102, 103]
            await client.set_cursor("counted", "number", None)
            assert await (await client.start(cursors.flow)).result() == [1, 2, 3]

    asyncio.run(run())


def test_cursors_of_a_database_are_waited_for_while_that_is_away(
    make_system: Callable[..., System], binary: ServerBinary
) -> None:
    system = make_system(binary, partitions=3)
    system.coordinator()
    system.worker("--processes", "2", app="tests.e2e.cursors")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, cursors.elsewhere.name)
            assert await (await client.start(cursors.elsewhere)).result() == [1, 2, 3]
            away = system.folder / cursors.AWAY
            away.touch()
            one = await client.start(cursors.elsewhere)
            await until(lambda: len(system.lines("away")) >= 2, "it was read twice")
            away.unlink()
            assert await one.result() == [4, 5, 6]
            assert {record.attempts for record in await one.history()} == {1}
            assert not (await client.cursor(cursors.elsewhere.name, "number")).is_set

    asyncio.run(run())
