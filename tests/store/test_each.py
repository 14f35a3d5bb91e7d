"""A node for each item of a list: its width is the run's, and a window is kept full."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from resolute.coordinator.reconciler import Reconciler
from resolute.engine.run import PAGE
from resolute.model.flow import Flow
from resolute.status import NodeStatus, RunStatus
from resolute.store import transitions
from resolute.store.nodes import Held
from tests.support.flows import builder, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import Stage


def each(window: int | None = None, on_item_error: Any = "fail_fast") -> Flow[Any, Any]:
    made = builder("each").then_each(
        "all",
        undoable("one"),
        items=lambda _: [],
        max_concurrency=window,
        on_item_error=on_item_error,
    )
    return made.then(step("last")).build()


async def listed(stage: Stage, flow: Flow[Any, Any], count: int) -> None:
    """A run whose items are listed, so that its `each` is dispatched."""
    await stage.begin_run(flow)
    held = await stage.claim_one("lister")
    items = [msgspec.msgpack.encode(number) for number in range(count)]
    for start in range(0, count, 400):
        assert await stage.store_items("lister", held, items[start : start + 400], start) == "OK"
    packed = msgspec.msgpack.encode(count)
    assert await stage.complete("lister", held, packed, arg=str(count)) == "OK"
    await stage.coordinate()


async def complete(stage: Stage, held: Held) -> None:
    output = msgspec.msgpack.encode(10 * held.entry.index)
    assert await stage.complete("worker", held, output, undo=b"\x92\x00\xc0") == "OK"


@pytest.mark.parametrize("count", [1, 7, PAGE + 3])
async def test_each_item_has_a_node_and_an_output_of_its_own(stage: Stage, count: int):
    await listed(stage, each(), count)
    taken = await stage.claim("worker")
    assert [held.entry.index for held in taken] == list(range(count))
    fields = await stage.hash()
    assert [fields[f"i:2.{i}"] for i in range(count)] == [
        msgspec.msgpack.encode(i) for i in range(count)
    ]
    for held in reversed(taken):
        await complete(stage, held)
    await stage.coordinate()
    fields = await stage.hash()
    assert [fields[f"o:all[{i}]"] for i in range(count)] == [
        msgspec.msgpack.encode(10 * i) for i in range(count)
    ]
    assert fields["o:all"] == str(count).encode()
    assert [entry.pc for _, entry in await stage.entries()] == [2]
    assert (await stage.header()).previous == 1


async def test_no_items_are_an_empty_list_and_the_run_goes_on(stage: Stage):
    await listed(stage, each(), 0)
    assert (await stage.hash())["o:all"] == b"0"
    assert [entry.pc for _, entry in await stage.entries()] == [2]
    assert (await stage.header()).previous == 1


@pytest.mark.parametrize(("window", "count"), [(1, 5), (3, 10), (20, 5), (PAGE + 10, PAGE + 50)])
async def test_no_more_than_the_window_are_out_and_it_is_kept_full(
    stage: Stage, window: int, count: int
):
    await listed(stage, each(window), count)
    out = await stage.claim("worker")
    seen: list[int] = [held.entry.index for held in out]
    assert len(out) == min(window, count)
    while out:
        await complete(stage, out.pop(0))
        fresh = await stage.claim("worker")
        assert len(fresh) == min(1, count - len(seen))
        out += fresh
        seen += [held.entry.index for held in fresh]
    assert seen == list(range(count))
    await stage.coordinate()
    assert [entry.pc for _, entry in await stage.entries()] == [2]
    assert (await stage.hash())["window"] == b""  # none of what comes next is let out by it


async def test_a_completion_sent_twice_lets_one_follow(stage: Stage):
    await listed(stage, each(1), 3)
    held = await stage.claim_one("worker")
    await complete(stage, held)
    before = await snapshot(stage.store)
    await complete(stage, held)
    assert await snapshot(stage.store) == before


async def test_what_was_lost_of_a_window_is_made_up_for_and_no_more(stage: Stage):
    await listed(stage, each(3), 9)
    await stage.store.execute("DEL", stage.of("run").queue("q"))
    reconciler = Reconciler(stage.store, stage.catalog, 0.0, lambda _: False)
    assert await reconciler.run_once() == 3
    assert await reconciler.run_once() == 0
    assert sorted(entry.index for _, entry in await stage.entries()) == [0, 1, 2]
    # A settled node let another follow, whose entry was lost with its count of the window.
    held = (await stage.claim("worker"))[0]
    await complete(stage, held)
    await stage.store.execute("HSET", stage.of("run").flow("run"), "page", 3)
    await stage.store.execute("HDEL", stage.of("run").flow("run"), "n:2.3")
    await reconciler.run_once()
    await stage.coordinate()
    assert (await stage.header()).page == 4


async def test_an_item_that_fails_for_good_skips_those_that_have_not_begun(stage: Stage):
    await listed(stage, each(2), 5)
    one, two = await stage.claim("worker")
    await complete(stage, one)
    assert await stage.fail("worker", two) == "OK"
    await stage.coordinate()
    statuses = [await stage.record_of("run", 2, index) for index in range(5)]
    assert [record.status if record else None for record in statuses] == [
        NodeStatus.COMPLETED, NodeStatus.FAILED, *[NodeStatus.SKIPPED] * 3,
    ]  # fmt: skip
    taken = [held for held in await stage.take("worker") if held.entry.undo]
    assert [(held.entry.index, held.entry.undo) for held in taken] == [(0, 1)]
    assert (await stage.begin("worker", taken[0])).code == "OK"
    await stage.complete("worker", taken[0])
    await stage.coordinate()
    assert await stage.status() is RunStatus.FAILED


async def test_an_item_that_may_fail_leaves_a_hole_and_lets_the_next_follow(stage: Stage):
    await listed(stage, each(1, "continue"), 3)
    for index in range(3):
        held = await stage.claim_one("worker")
        assert held.entry.index == index
        if index == 1:
            await stage.fail("worker", held, best_effort=True)
        else:
            await complete(stage, held)
    await stage.coordinate()
    fields = await stage.hash()
    assert {name for name in fields if name.startswith("o:all[")} == {"o:all[0]", "o:all[2]"}
    assert "x:all[1]" in fields
    assert await stage.status() is RunStatus.RUNNING


async def test_items_are_kept_for_who_holds_the_node_and_for_nobody_else(stage: Stage):
    await stage.begin_run(each())
    held = await stage.claim_one("lister")
    before = await snapshot(stage.store)
    assert await stage.store_items("other", held, [b"\x01"]) == "STALE"
    stranger = msgspec.structs.replace(
        held, entry=msgspec.structs.replace(held.entry, flow="nobody")
    )
    assert await stage.store_items("lister", stranger, [b"\x01"]) == "GONE"
    assert await snapshot(stage.store) == before


TURNING = (
    builder("turning")
    .then_loop(
        "turns",
        body=lambda turn: turn.then_each("all", step("one"), items=lambda _: []),
        state=int,
        initial=0,
        while_=lambda _: True,
        after=lambda _, state: state,
    )
    .build()
)


async def turn(stage: Stage, width: int) -> None:
    """A turn with so many items, and the beginning of another."""
    (asked,) = await stage.claim("lister")
    assert stage.node(asked).name == "turns.while"
    assert await stage.complete("lister", asked, b"\xc3", arg="1") == "OK"
    await stage.coordinate()
    (held,) = await stage.claim("lister")
    items = [b"\x01"] * width
    for start in range(0, width, 400):
        assert await stage.store_items("lister", held, items[start : start + 400], start) == "OK"
    count = msgspec.msgpack.encode(width)
    assert await stage.complete("lister", held, count, arg=str(width)) == "OK"
    await stage.coordinate()
    while taken := await stage.claim("worker"):
        for one in taken:
            assert await stage.complete("worker", one, b"\x02") == "OK"
    await stage.coordinate()
    assert await stage.complete("lister", await stage.claim_one("lister"), b"\x00") == "OK"
    await stage.coordinate()


@pytest.mark.parametrize("width", [3, 40, 2 * PAGE + 7])
async def test_of_former_turns_no_list_is_left_however_wide(stage: Stage, width: int):
    await stage.begin_run(TURNING)
    assert await stage.complete("lister", await stage.claim_one("lister"), b"\x00") == "OK"
    await stage.coordinate()
    sizes: list[int] = []
    for _ in range(4):
        await turn(stage, width)
        sizes.append(len(await stage.hash()))
    assert sizes[1:] == [sizes[1]] * 3
    fields = await stage.hash()
    numbered = {name for name in fields if name.startswith(("n:", "i:", "s:", "w:"))}
    seq = int(fields["seq"])
    assert numbered == {"s:1", "n:1.0", f"s:{seq}"}


async def test_what_is_too_much_for_a_transition_goes_after_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transitions, "FORGOTTEN_AT_ONCE", 2)
    await test_of_former_turns_no_list_is_left_however_wide(stage, 6)


async def test_what_a_coordinator_left_of_former_turns_goes_with_the_next(stage: Stage):
    await stage.begin_run(TURNING)
    assert await stage.complete("lister", await stage.claim_one("lister"), b"\x00") == "OK"
    await stage.coordinate()
    await turn(stage, 20)
    await turn(stage, 3)
    left = "\n".join(["4 20", "900 1200", ""])  # it died before it trimmed
    await stage.store.execute("HSET", stage.of("run").flow("run"), "trim", left, "i:900.1100", "x")
    await turn(stage, 3)
    fields = await stage.hash()
    assert not {"trim", "i:900.1100"} & fields.keys()
