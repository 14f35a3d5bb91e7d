"""A reply can be lost after the script ran: the same call is sent again, and nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from resolute.store.store import Store
from tests.support.flows import chain
from tests.support.keyspace import snapshot
from tests.support.stage import Stage
from tests.support.tour import tour

# What the second call answers where that is not what the first did, and why that is right.
OTHERWISE = {
    ("start_flow", "OK"): "EXISTS",  # the caller takes it for a success
    ("ensure_group", "OK"): "EXISTS",
    ("reclaim_nodes", "OK"): "STALE",  # no holder's call: whoever comes second finds it done
    ("release_due", "OK"): "STALE",
    ("fire_timers", "OK"): "STALE",
    ("wake_nodes", "OK"): "EXISTS",
    ("unlist_flows", "OK"): "SKIP",  # says whether it was there
}
# These count, give out something new each time, or only read.
NOT_REPEATABLE = {
    "take_tokens",
    "push_back",
    "beat",
    "apply_writes",
    "due_timers",
    "read_letters",
    "list_ended",
    "due_folders",
}


class Resending(Store):
    """Sends every script twice and holds that the second time changes nothing."""

    seen: set[str]

    async def call(
        self, name: str, keys: Sequence[str], common: bytes, arguments: Sequence[Any] = ()
    ) -> Any:
        first = await super().call(name, keys, common, arguments)
        if name in NOT_REPEATABLE:
            return first
        before = await snapshot(self)
        second = await super().call(name, keys, common, arguments)
        assert await snapshot(self) == before, f"{name} changed something the second time"
        assert codes(second) == [OTHERWISE.get((name, code), code) for code in codes(first)], name
        if name == "begin_nodes":
            assert second[1:] == first[1:]
        self.seen.add(name)
        return first


def codes(reply: Any) -> list[str]:
    """The result codes in a reply of any script."""
    if reply and isinstance(reply[0], bytes):
        if reply[0].isdigit():  # begin_nodes says the time first
            return codes(reply[1:])
        return [str(reply[0], "ascii")]
    return [str(answer[0], "ascii") for answer in reply]


@pytest.fixture
def resending(store: Store) -> Resending:
    made = Resending(store.link, store.keys, store.patience)
    made.seen = set()
    return made


async def test_every_script_sent_twice_does_what_it_does_once(resending: Resending):
    await tour(resending)
    assert resending.seen >= {
        "start_flow", "begin_nodes", "complete_nodes", "fail_nodes", "return_nodes",
        "reclaim_nodes", "commit_transition", "release_due", "cancel_flow", "retry_flow",
        "drop_flows", "drop_consumer", "ensure_group", "unlist_flows", "end_leases",
        "fire_timers", "signal_flow", "store_items", "keep_progress", "bury_entries",
        "remove_letters", "move_cursor", "note_health", "debounce_flow", "take_places",
        "leave_places", "sync_places", "wake_nodes", "forget_process",
    }  # fmt: skip


@pytest.mark.parametrize("late", ["complete", "fail", "return"])
async def test_a_resend_that_comes_after_the_node_went_on_changes_nothing(stage: Stage, late: str):
    """Between the call and its resend the run was coordinated, and the node begun elsewhere."""
    await stage.begin_run(chain("a", "b"))
    held = await stage.claim_one("worker")

    async def send() -> str:
        match late:
            case "complete":
                return await stage.complete("worker", held)
            case "fail":
                return await stage.fail("worker", held, 60_000)
            case _:
                return await stage.give_back("worker", held)

    assert await send() == "OK"
    await stage.coordinate()
    await stage.make_due(held.partition)
    await stage.release(held.partition)
    await stage.claim("another")
    before = await stage.hash()
    assert await send() in ("OK", "STALE")
    assert await stage.hash() == before
