from __future__ import annotations

from resolute.store.nodes import code_of
from resolute.store.script import GROUP_WORKERS, pack
from tests.support.flows import chain
from tests.support.stage import QUEUE, Stage


async def drop(stage: Stage, consumer: str) -> str:
    stream = stage.of("run").queue(QUEUE)
    common = pack(GROUP_WORKERS, consumer)
    return code_of(await stage.store.call("drop_consumer", [stream], common))


async def consumers(stage: Stage) -> set[str]:
    stream = stage.of("run").queue(QUEUE)
    rows = await stage.store.execute("XINFO", "CONSUMERS", stream, GROUP_WORKERS)
    return {str(row[1], "utf-8") for row in rows}


async def test_a_consumer_that_has_nothing_pending_is_removed(stage: Stage):
    await stage.begin_run(chain("a"))
    await stage.complete("worker", await stage.claim_one("worker"))
    assert await consumers(stage) == {"worker"}
    assert await drop(stage, "worker") == "OK"
    assert await consumers(stage) == set()


async def test_a_consumer_that_has_an_entry_pending_stays_with_it(stage: Stage):
    """Deleting a consumer destroys what it has pending."""
    await stage.begin_run(chain("a"))
    held = await stage.take_one("worker")
    assert await drop(stage, "worker") == "CONFLICT"
    assert await consumers(stage) == {"worker"}
    pending = await stage.store.execute("XPENDING", held.stream, GROUP_WORKERS, "-", "+", 10)
    assert len(pending) == 1


async def test_of_a_stream_group_or_consumer_that_is_not_there_nothing_is_left(stage: Stage):
    assert await drop(stage, "nobody") == "OK"
    assert await stage.store.execute("EXISTS", stage.of("run").queue(QUEUE)) == 0
    await stage.store.execute("XADD", stage.of("run").queue(QUEUE), "1-1", "e", "x")
    assert await drop(stage, "nobody") == "OK"
    await stage.store.execute("DEL", stage.of("run").queue(QUEUE))
    await stage.begin_run(chain("a"))
    await stage.take("worker")
    assert await drop(stage, "nobody") == "OK"
    assert await consumers(stage) == {"worker"}
