"""A walk through every script there is, on one namespace."""

from __future__ import annotations

import msgspec

from resolute.client.retrying import TOLD, plan_retry
from resolute.engine.admission import hold_in_line
from resolute.model.claims import IfRunning
from resolute.model.cursors import SavedBy
from resolute.model.plan import LimitPlan, PlacesPlan
from resolute.status import RunStatus
from resolute.store import claims, cursors, dead, folders, limits, places, registry, runs
from resolute.store.ended import drop_ended
from resolute.store.keys import Partition
from resolute.store.limits import Ask
from resolute.store.nodes import Held
from resolute.store.places import Ask as Asked
from resolute.store.places import Spot, Terms, node_name
from resolute.store.script import GROUP_WORKERS, pack
from resolute.store.store import Store
from resolute.store.transitions import trim, unlist
from tests.support.flows import builder, step, undoable
from tests.support.letters import bury
from tests.support.stage import NIL, NO_UNDO_INPUT, QUEUE, Stage

FLOW = (
    builder("tour")
    .then(undoable("book"))
    .then_parallel("both", step("left"), step("right", queue="other"))
    .then(step("last"))
    .build()
)
EACH = builder("each").then_each("each", step("one"), items=lambda _: [1, 2]).build()
KID = builder("kid").then(step("one")).build()
PARENT = builder("parent").then_children("kids", flow=KID, inputs=lambda _: [1, 2, 3]).build()
PAGED = builder("paged").then(step("one")).build()
GATED = builder("gated").then_gate("early").then_gate("late", timeout="1h").build()
SINGLE = builder("single").then(step("one")).build()
LIMIT = LimitPlan("tour", 1_000_000, 2)
WORKER = "stage:1:worker"
PAST_MS = -60_000


async def tour(store: Store) -> None:
    """Start, run, fail, undo, cancel, retry and drop runs; limits, beats and consumers beside."""
    stage = Stage(store)
    await stage.offer(FLOW)
    one, two, three = stage.ids(3)
    for run_id in (one, two, three):
        await stage.start(FLOW, run_id)
    await stage.coordinate()
    held = await _claim(stage)
    assert await stage.complete(WORKER, held[one], undo=NO_UNDO_INPUT, costs="usd|5") == "OK"
    assert await stage.fail(WORKER, held[two], 60_000, costs="usd|7|eur|1") == "OK"
    assert await stage.give_back(WORKER, held[three], costs="usd|1") == "OK"
    await stage.make_due(stage.of(two))
    assert await stage.release(stage.of(two)) == ["OK"]
    await stage.coordinate()
    held = await _claim(stage)
    assert await stage.reclaim(held[two], WORKER) == "OK"
    assert await stage.fail(WORKER, held[one]) == "OK"
    await _stop(stage, two, three)
    await _undo_and_retry(stage, one)
    await _beside(stage, one)
    await _gates(stage)
    await _items(stage)
    await _pages(stage)
    await _turns(stage)
    for run, started in (("newer", 2000), ("older", 1000)):
        await cursors.save(store, "tour", "cursor", SavedBy(started, run, 1), b"\x01")
    await _folders(stage)
    await _shared(stage)
    await _family(stage)
    await _places(stage)


async def _places(stage: Stage) -> None:
    """A node that waits for the place of another one, and is woken when that gives it back."""
    store = stage.store
    await stage.offer(SINGLE, process="stage:1:single", queue="places")
    await stage.start(SINGLE, "single", queue="places")
    await stage.coordinate()
    held = await stage.claim_one(WORKER, "places")
    name, spot, terms = node_name(held, "places"), Spot(PlacesPlan("tour", 1)), Terms(5000, 60_000)
    first, mine = Asked("other|1|0|q", "t.0"), Asked(name, held.entry.token)
    seats, told = await places.take(store, WORKER, 1, spot, terms, [first, mine])
    assert [seat.granted for seat in seats] == [True, False] and not told
    back = hold_in_line("", seats[1:])
    assert await stage.give_back(WORKER, held, 60_000, hold=back) == "OK"
    synced, _ = await places.sync(store, WORKER, 2, spot, terms, ["other|1|0|q|t.0"])
    assert (synced.processes, synced.waiting) == ([WORKER], 1)
    assert await places.leave(store, spot, terms, [("other|1|0|q", "t.0")]) == [name]
    assert await places.wake(store, [name]) == []
    assert len(await stage.claim(WORKER, "places")) == 1
    assert await places.leave(store, spot, terms, [(name, "")]) == []


async def _shared(stage: Stage) -> None:
    """Runs with a unique key, the last one retried, and starts that become one run."""
    store, partition, queue = stage.store, stage.of("shared"), "shared"
    one, two, three = (
        claims.placed_id(store.keys, partition, name) for name in ("one", "two", "three")
    )
    await stage.offer(SINGLE, process="stage:1:shared", queue=queue)

    async def start(run_id: str, if_running: IfRunning, period_ms: int = 0) -> claims.Verdict:
        wanted = runs.Start(run_id, SINGLE.name, queue, NIL)
        claim = runs.Claim("u|single|key", if_running, period_ms)
        return await claims.start(store, partition, wanted, claim, 60_000)

    assert (await start(one, "fail", 60_000)).code == "OK"
    assert await start(two, "existing") == ("TAKEN", one)
    assert (await start(two, "replace")).code == "OK"
    assert (await start(three, "replace")).code == "OK"
    await stage.coordinate()
    assert await stage.status(two) == "cancelled"
    held = (await _claim(stage, queue))[three]
    assert await stage.fail(WORKER, held) == "OK"
    await stage.coordinate()
    assert await stage.status(three) == "failed"
    header = await stage.header(three)
    fields = {name: v for name, v in (await stage.hash(three)).items() if name.startswith(TOLD)}
    found = plan_retry(header, SINGLE.plan, fields)
    assert (await claims.retry(store, header, f"{three}/~1", found.drop, found.fields)).code == "OK"
    for number, (name, call) in enumerate([("four", ""), ("five", "call"), ("six", "call")]):
        run_id = claims.placed_id(store.keys, partition, name)
        wanted = runs.Start(run_id, SINGLE.name, queue, NIL)
        debounced = claims.Debounced(wanted, "d|single|key", 5000, 9000, "tour", number, call)
        pending = claims.placed_id(store.keys, partition, "four")
        assert await claims.debounce(store, partition, debounced) == pending
    await stage.make_due(partition)
    assert "OK" in await stage.release(partition)
    await stage.coordinate()


async def _folders(stage: Stage) -> None:
    """A folder in the storage that a run had, and one that no run was started with."""
    store, partition = stage.store, stage.of("stored")
    await stage.offer(EACH, process="stage:1:stored")
    await stage.start(EACH, "stored")
    assert await folders.open_folder(store, "stored", "ns/one") == ("OK", "ns/one")
    assert await folders.open_folder(store, "never", "ns/two", starting=True) == ("OK", "ns/two")
    await stage.stop("stored", terminate=True)
    await stage.coordinate()
    assert await folders.judge(store, partition, ["ns/one"]) == [("ns/one", "EXISTS")]
    assert await drop_ended(store, partition, RunStatus.TERMINATED, PAST_MS)
    assert await folders.due(store, partition) == ["ns/one"]
    assert await folders.judge(store, partition, ["ns/one"]) == [("ns/one", "OK")]
    await folders.forget(store, partition, "ns/one")
    elsewhere = stage.of("never")
    assert await folders.judge(store, elsewhere, ["ns/two"]) == [("ns/two", "OK")]
    await folders.forget(store, elsewhere, "ns/two")


async def _family(stage: Stage) -> None:
    """Runs that a run starts: one completes, one fails, one is cancelled; others are terminated."""
    queue = "family"  # in the other one is what runs left that were terminated
    await stage.offer(PARENT, KID, process="stage:1:family", queue=queue)
    cancelled: Held | None = None
    for parent in ("family", "other"):
        await stage.start(PARENT, parent, queue=queue)
        await stage.coordinate()
        held = (await _claim(stage, queue))[parent]
        assert await stage.store_items(WORKER, held, [b"\x01", b"\x02", b"\x03"]) == "OK"
        assert await stage.complete(WORKER, held, b"\x03", arg="3") == "OK"
        await stage.coordinate()
        kids = await _claim(stage, queue)
        assert await stage.complete(WORKER, kids[f"{parent}/kids.0"], b"\x01") == "OK"
        await stage.coordinate()
        if parent == "other":
            await stage.stop(parent, terminate=True)
        else:
            cancelled = kids["family/kids.2"]
            assert await stage.fail(WORKER, kids["family/kids.1"]) == "OK"
        await stage.coordinate()
    assert cancelled is not None
    assert await stage.complete(WORKER, cancelled, b"\x01") == "OK"
    await stage.coordinate()
    assert await stage.status("family") == "failed"
    assert await stage.status("other/kids.2") == "terminated"


async def _pages(stage: Stage) -> None:
    """A node that has two pages when it completes, and one of a run that fails meanwhile."""
    queue = "pages"
    await stage.offer(PAGED, process="stage:1:pages", queue=queue)
    await stage.start(PAGED, "paged", queue=queue)
    await stage.coordinate()
    for number in range(2):
        held = (await _claim(stage, queue))["paged"]
        assert await stage.turn_page(WORKER, held, number, b"\x90", b"\xc0", "usd|1") == "OK"
    held = (await _claim(stage, queue))["paged"]
    assert await stage.keep_progress(WORKER, held, b"\x92\x02\xc0") == "OK"
    assert await stage.complete(WORKER, held, b"\x90", pages=2) == "OK"
    await stage.coordinate()
    assert await stage.status("paged") == "completed"
    await stage.start(PAGED, "stopped", queue=queue)
    await stage.coordinate()
    held = (await _claim(stage, queue))["stopped"]
    await stage.stop("stopped")
    assert await stage.turn_page(WORKER, held, 0, b"\x90", b"\xc0") == "OK"
    await stage.coordinate()
    assert await stage.status("stopped") == "cancelled"


async def _turns(stage: Stage) -> None:
    """What former turns left of lists, bit by bit."""
    partition = stage.of("turning")
    await stage.store.execute("HSET", partition.flow("turning"), "trim", "1 700\n9 1\n")
    left, found = {"turning": "1 700"}, list[str]()
    while left := await trim(stage.store, partition, left):
        found += left.values()
    assert found == ["1 200"]
    await stage.store.execute("DEL", partition.flow("turning"))


async def _items(stage: Stage) -> None:
    """A node that lists the items of the next step."""
    await stage.offer(EACH, process="stage:1:items")
    await stage.start(EACH, "each")
    await stage.coordinate()
    held = (await _claim(stage))["each"]
    assert await stage.store_items(WORKER, held, [b"\x01", b"\x02"]) == "OK"
    assert await stage.complete(WORKER, held, b"\x02", arg="2") == "OK"
    await stage.coordinate()
    await stage.stop("each", terminate=True)
    await stage.coordinate()


async def _gates(stage: Stage) -> None:
    """A run that begins later, passes one gate and is too late for the next."""
    await stage.offer(GATED, process="stage:1:gates")
    await stage.start(GATED, "gated", delay=60_000)
    partition = stage.of("gated")
    await stage.make_due(partition)
    assert await stage.release(partition) == ["OK"]
    await stage.coordinate()
    assert await stage.signal("early", run_id="gated") == "OK"
    await stage.coordinate()
    await stage.make_due(partition)
    assert await stage.release(partition) == ["OK"]
    await stage.coordinate()
    assert await stage.status("gated") == "failed"


async def _claim(stage: Stage, queue: str = QUEUE) -> dict[str, Held]:
    return {held.entry.flow: held for held in await stage.claim(WORKER, queue)}


async def _stop(stage: Stage, cancelled: str, terminated: str) -> None:
    assert await stage.stop(cancelled) == "OK"
    assert await stage.stop(terminated, terminate=True) == "OK"
    await stage.coordinate()
    assert await stage.status(cancelled) == "cancelled"
    assert await stage.status(terminated) == "terminated"


async def _undo_and_retry(stage: Stage, run_id: str) -> None:
    await stage.coordinate()
    for held in await stage.take(WORKER):
        begun = await stage.begin(WORKER, held)
        assert (begun.code == "OK") == (held.entry.undo > 0)
        if held.entry.undo:
            assert await stage.complete(WORKER, held) == "OK"
    await stage.coordinate()
    header = await stage.header(run_id)
    assert header.status is RunStatus.FAILED
    found = (await stage.hash(run_id)).items()
    fields = {name: v for name, v in found if ":" in name and "cost" not in name}
    resumption = plan_retry(header, FLOW.plan, fields)
    target = f"{run_id}/~1"
    code = await runs.retry(stage.store, header, target, resumption.drop, resumption.fields)
    assert code == "OK"


async def _beside(stage: Stage, run_id: str) -> None:
    store, partition = stage.store, stage.of(run_id)
    await limits.take(store, LIMIT, "", [(Ask.NEW, 0, 0)])
    await limits.push_back(store, LIMIT, "", 1.0)
    await registry.beat(store, ["stage:0:offers"])
    assert await registry.end_silent_lease(store, "stage:9:nobody", None)
    assert await registry.unregister(store, "stage:9:nobody")
    (offers,) = (await registry.processes(store)).values()
    ill = msgspec.structs.replace(offers, ill={"cards": "away"})
    assert await registry.note_health(store, ill)
    stranger = msgspec.structs.replace(ill, name="stage:9:nobody")
    assert not await registry.note_health(store, stranger)
    assert (await registry.processes(store)) == {ill.name: ill}
    await registry.move_tick_cursor(store, "field", 1_700_000_000_000)
    common = pack(GROUP_WORKERS, "stage:9:nobody")
    await store.call("drop_consumer", [partition.queue(QUEUE)], common)
    assert await drop_ended(store, partition, RunStatus.FAILED, PAST_MS) == 1
    await _letters(store, partition)
    await store.execute("ZADD", partition.open, 1, run_id)
    assert await unlist(store, partition, run_id, [FLOW.name])


async def _letters(store: Store, partition: Partition) -> None:
    """A letter that is retried, dies again, and is dropped."""
    await bury(store, partition, "letters", b"nonsense")
    (letter,) = await dead.read_letters(store, partition, count=1, cut=100)
    stream = partition.queue("letters")
    assert dead.stream_of(partition, letter.origin) == stream
    assert await dead.retry_letters(store, partition, [(letter.entry, stream)]) == ["OK"]
    ((again, _),) = await store.execute("XRANGE", stream, "-", "+")
    await dead.bury_entries(store, partition, "letters", [(str(again, "ascii"), "no entry")])
    (letter,) = await dead.read_letters(store, partition, count=1)
    assert await dead.drop_letters(store, partition, [letter.entry]) == ["OK"]
