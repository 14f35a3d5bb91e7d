"""Only who holds a node can end it: whoever else comes is refused, and nothing is written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from resolute.coordinator.retention import Retention
from resolute.store.nodes import Held
from tests.support.flows import fan
from tests.support.keyspace import snapshot
from tests.support.stage import Stage

VERBS = ["begin", "complete", "retry", "fail", "return", "defer"]
COUNTED = {"complete", "retry", "fail", "return", "defer"}


async def act(stage: Stage, verb: str, process: str, held: Held) -> str:
    match verb:
        case "begin":
            return (await stage.begin(process, held)).code
        case "complete":
            return await stage.complete(process, held, undo=b"\x92\x00\xc0")
        case "retry":
            return await stage.fail(process, held, 60_000)
        case "fail":
            return await stage.fail(process, held)
        case "return":
            return await stage.give_back(process, held)
        case _:
            return await stage.give_back(process, held, 60_000)


def changed(held: Held, **fields: Any) -> Held:
    """The same entry, saying something else."""
    return msgspec.structs.replace(held, entry=msgspec.structs.replace(held.entry, **fields))


async def claimed(stage: Stage) -> Held:
    """The first of three nodes of a running step, claimed by `worker`; its siblings are not."""
    await stage.begin_run(fan(3))
    held = (await stage.take("worker"))[0]
    assert (await stage.begin("worker", held)).code == "OK"
    return held


async def is_refused(stage: Stage, verb: str, process: str, held: Held, code: str) -> None:
    """The call answers `code`; but for its entry, which goes, and the count nothing changes."""
    before = await without_entry(stage, held)
    refused = (await stage.stats(held.entry.flow)).get("stale_attempts", 0)
    assert await act(stage, verb, process, held) == code
    assert await without_entry(stage, held) == before
    ids = [entry_id for entry_id, _ in await stage.entries(held.entry.flow)]
    assert held.id not in ids
    if verb in COUNTED and code != "GONE":
        assert (await stage.stats(held.entry.flow))["stale_attempts"] == refused + 1


async def without_entry(stage: Stage, held: Held) -> dict[str, Any]:
    """All keys, but without this entry and the counts."""
    found = await snapshot(stage.store)
    found.pop(held.partition.stats, None)
    entries, ttl = found[held.stream]
    found[held.stream] = ([e for e in entries if e[0] != held.id.encode()], ttl)
    groups = found[f"{held.stream} groups"]
    found[f"{held.stream} groups"] = [
        (name, [p for p in pending if p[0] != held.id.encode()]) for name, pending in groups
    ]
    return found


@pytest.mark.parametrize("verb", VERBS)
async def test_another_process_is_refused(stage: Stage, verb: str):
    held = await claimed(stage)
    await is_refused(stage, verb, "other", held, "STALE")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("token", ["9-stranger.0", "{base}.7"])
async def test_a_wrong_token_is_refused(stage: Stage, verb: str, token: str):
    held = await claimed(stage)
    base = held.entry.token.rpartition(".")[0]
    payload = msgspec.msgpack.encode(held.entry)
    second = await stage.store.execute("XADD", held.stream, "*", "e", payload)
    held = msgspec.structs.replace(held, id=str(second, "ascii"))
    held = changed(held, token=token.format(base=base))
    await is_refused(stage, verb, "worker", held, "STALE")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_claim_under_another_token_than_its_entry_has_is_damaged_and_nothing_is_done(
    stage: Stage, verb: str
):
    """A bit of the token was turned in the hash: the entry stays, for a dead letter."""
    held = await claimed(stage)
    token = held.entry.token
    turned = token[:-1] + chr(ord(token[-1]) ^ 1)  # as the next hand-out would be
    field = f"n:{held.entry.seq}.{held.entry.index}"
    record = (await stage.hash())[field]
    wrong = record.replace(token.encode(), turned.encode())
    assert wrong != record
    await stage.store.execute("HSET", held.partition.flow("run"), field, wrong)
    before = await snapshot(stage.store)
    assert await act(stage, verb, "worker", held) == "ERROR"
    assert await snapshot(stage.store) == before


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("step", [-1, 1])
async def test_another_step_s_node_is_refused(stage: Stage, verb: str, step: int):
    held = await claimed(stage)
    await is_refused(stage, verb, "worker", changed(held, seq=held.entry.seq + step), "STALE")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_node_that_was_handed_out_anew_is_refused_to_its_former_holder(
    stage: Stage, verb: str
):
    """A zombie: its lease was over, its work was taken back, and it knows nothing of that."""
    held = await claimed(stage)
    assert await stage.reclaim(held, "worker") == "OK"
    before = await stage.hash()
    # A hand-back finds done what it asks for: the node is no longer the process's.
    expected = "OK" if verb in ("return", "defer") else "STALE"
    assert await act(stage, verb, "worker", held) == expected
    assert await stage.hash() == before


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("terminate", [True, False])
async def test_an_ended_run_is_never_touched_again(stage: Stage, verb: str, terminate: bool):
    held = await claimed(stage)
    if terminate:
        await stage.stop("run", terminate=True)
        await stage.coordinate()
    else:
        other = (await stage.take("worker")) + [held]
        await stage.fail("worker", held)
        assert other
        await stage.coordinate()
    assert (await stage.status()).is_terminal
    before = await stage.hash()
    # Who ended it is told so again; whoever did not is refused.
    expected = "OK" if verb in ("retry", "fail") and not terminate else "STALE"
    assert await act(stage, verb, "worker", held) == expected
    assert await act(stage, verb, "other", held) == "STALE"
    assert await stage.hash() == before


@pytest.mark.parametrize("verb", VERBS)
async def test_a_run_that_is_no_longer_there_does_not_come_back_to_life(stage: Stage, verb: str):
    held = await claimed(stage)
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    assert await Retention(stage.store, stage.catalog, -60_000).run_once() == 1
    await is_refused(stage, verb, "worker", held, "GONE")
    assert await stage.hash() == {}


@pytest.mark.parametrize("verb", ["complete", "retry", "fail", "return", "defer"])
async def test_the_holder_is_not_harmed_by_who_was_refused(stage: Stage, verb: str):
    """XACK asks for no ownership, so that the entry is gone; the claim in the hash still holds."""
    held = await claimed(stage)
    assert await act(stage, verb, "other", held) == "STALE"
    assert await stage.complete("worker", held) == "OK"


async def test_of_two_processes_that_were_given_the_same_entry_one_begins_it(stage: Stage):
    await stage.begin_run(fan(1))
    held = await stage.take_one("worker")
    codes = [(await stage.begin(process, held)).code for process in ("one", "two", "one")]
    assert codes == ["OK", "STALE", "OK"]


async def test_of_many_completions_of_a_node_one_counts(stage: Stage):
    held = await claimed(stage)
    for process in ("other", "worker", "other", "worker"):
        await stage.complete(process, held, process.encode())
    assert (await stage.hash())["o:n0"] == b"worker"
    assert (await stage.header()).pending == 2


async def test_what_nobody_had_claimed_of_an_ended_run_is_never_handed_out_again(stage: Stage):
    await stage.begin_run(fan(3))
    for held in await stage.claim("worker"):
        await stage.give_back("worker", held)
    one, two, three = await stage.take("worker")
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    before = await stage.hash()
    assert await stage.give_back("worker", one) == "STALE"
    assert await stage.give_back("worker", two, 60_000) == "STALE"
    assert await stage.reclaim(three, "worker") == "STALE"
    assert await stage.hash() == before
    assert await stage.entries() == []
