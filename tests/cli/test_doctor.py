"""`resolute doctor`: healthy, and each thing that can be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from resolute import ConcurrencyLimit, Flow, FlowBuilder, SharedRateLimit, manual, node
from resolute.cli.doctor.findings import Finding, Severity, exit_code
from resolute.cli.doctor.server import check_server
from resolute.cli.exits import Exit
from resolute.cli.show.snapshot import take_snapshot
from resolute.client import Client
from resolute.errors import DamagedRun
from resolute.model.nodes import AsyncNode, Node
from resolute.store import registry, streams
from resolute.store.registry import ProcessInfo
from resolute.store.server import ServerInfo
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.cli.helpers import Cli, Examine, findings, until
from tests.support.letters import bury
from tests.support.sharded import sharded

LEASE = 0.3  # s; doctor watches beats for a third of it

GOOD = ServerInfo(
    "valkey", "9.1.0", "id", "master", True, "everysec", "noeviction", 2**20, 2**30, 3
)


def healthy_or_none(cli: Cli) -> dict[str, Any] | None:
    """What doctor says, once it is content: other tests left queues that nobody reads."""
    data = cli("doctor", "--json", code=None).data
    return data if data["healthy"] else None


def test_a_deployment_that_works_is_healthy(cli: Cli):
    data = until(lambda: healthy_or_none(cli), "nothing is wrong")
    assert {process["beats"] for process in data["processes"]} == {True}
    assert [p["kind"] for p in data["processes"]] == ["coordinator", "worker", "worker"]
    for check in ("server", "persistence", "eviction", "memory", "latency", "coordinators",
                  "workers", "events", "timers", "dead letters", "runs"):  # fmt: skip
        assert findings(data, check), check
    text = cli("doctor", columns=80).stdout
    assert "1 coordinator, registered up to" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_server_that_evicts_is_unsuitable_and_nothing_else_counts(tmp_path: Path):
    options = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]
    with EmbeddedServer(tmp_path / "server", options=options) as server:
        outcome = Cli(server.url, "any")("doctor", code=Exit.UNUSABLE)
    assert "maxmemory-policy is allkeys-lru" in outcome.stdout
    assert "CONFIG SET maxmemory-policy noeviction" in outcome.stdout


def test_a_cluster_is_looked_at_server_by_server(tmp_path: Path, server_binary: ServerBinary):
    async def check() -> None:
        async with sharded(tmp_path / "cluster", server_binary) as servers:
            store = await Store.open(servers.url, "sharded", partitions=3)
            await store.close()
            bad = servers.primaries[1]
            await bad.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            cli = Cli(servers.url, "sharded")
            data = (await asyncio.to_thread(cli, "doctor", "--json", code=Exit.UNUSABLE)).data
            texts = [found["text"] for found in findings(data, "server")]
            ports = [node.server.port for node in servers.primaries]
            for port in ports:
                assert [f"127.0.0.1:{port}/0, master" in text for text in texts].count(True) == 1
            assert sum("allkeys-lru" in text for text in texts) == 1
            assert findings(data, "coordinators")

    asyncio.run(check())


@pytest.mark.parametrize(
    ("changes", "check", "severity"),
    [
        ({}, "persistence", Severity.OK),
        ({"appendonly": False}, "persistence", Severity.WARNING),
        ({"appendfsync": "no"}, "persistence", Severity.WARNING),
        ({"appendonly": None}, "persistence", Severity.OK),
        ({"used_memory": 2**30 - 1}, "memory", Severity.PROBLEM),
        ({"used_memory": int(0.8 * 2**30)}, "memory", Severity.WARNING),
        ({"max_memory": 0}, "memory", Severity.OK),
        ({"version": "7.0.0"}, "server", Severity.UNSUITABLE),
        ({"role": "slave"}, "server", Severity.UNSUITABLE),
    ],
)
def test_what_a_server_says_of_itself(changes: dict[str, Any], check: str, severity: Severity):
    info = ServerInfo(**{**vars(GOOD), **changes})
    found = [f.severity for f in check_server(info, "redis://x", 0.001) if f.check == check]
    assert found[-1] is severity


def test_a_server_far_away_is_worth_a_warning():
    (latency,) = [f for f in check_server(GOOD, "redis://x", 0.05) if f.check == "latency"]
    assert latency.severity is Severity.WARNING and "50 ms" in latency.text


def test_exit_codes_follow_the_worst_finding():
    def code(*severities: Severity) -> Exit:
        return exit_code(Finding("x", severity, "") for severity in severities)

    assert code(Severity.OK, Severity.WARNING) is Exit.OK
    assert code(Severity.OK, Severity.PROBLEM, Severity.WARNING) is Exit.FAILED
    assert code(Severity.PROBLEM, Severity.UNSUITABLE) is Exit.UNUSABLE


@node("work", queue="gpu")
async def work(value: int) -> int:
    return value


FLOW = FlowBuilder("lonely").triggered_by(manual()).then(work).build()


async def offer(
    store: Store,
    name: str = "host:1:aaaa",
    queue: str = "default",
    flows: Sequence[Flow[Any, Any]] = (FLOW,),
) -> None:
    """Register a worker that never beats again."""
    info = ProcessInfo(
        name=name,
        kind="worker",
        host="host",
        pid=1,
        started=await registry.server_ms(store),
        lease=LEASE,
        queue=queue,
        flows={flow.name: flow.plan_hash for flow in flows},
        concurrency=10,
    )
    await registry.register(store, info, {flow.plan_hash: flow.plan for flow in flows})


pytestmark = pytest.mark.leaves_keys("made by hand, and erased with the namespace")


def test_without_coordinator_and_worker_nothing_moves(examine: Examine):
    data = examine()
    for check, advice in (("coordinators", "resolute-coord"), ("workers", "resolute-worker")):
        (finding,) = findings(data, check)
        assert finding["severity"] == "problem" and advice in finding["advice"]


def test_a_registered_process_without_a_beat_is_not_alive(
    store: Store, examine: Examine, runner: asyncio.Runner
):
    runner.run(offer(store))
    data = examine()
    (lease,) = findings(data, "lease")
    assert "host:1:aaaa" in lease["text"] and "stands still" in lease["text"]
    assert findings(data, "workers")[0]["severity"] == "problem"


def test_events_that_nobody_handles_are_counted(
    store: Store, examine: Examine, runner: asyncio.Runner
):
    old = "1000-1"  # half a century ago
    runner.run(store.execute("XADD", store.keys.partitions[-1].inbox, old, "e", b"x"))
    (finding,) = findings(examine(), "events")
    assert finding["severity"] == "problem" and finding["text"].startswith("1 event to be")


def test_an_overdue_timer_is_a_problem_and_one_of_the_future_is_none(
    store: Store, examine: Examine, runner: asyncio.Runner
):
    timers = store.keys.partitions[-1].timers
    runner.run(store.execute("ZADD", timers, 4_000_000_000_000, "node|q|f|1|0|t"))
    assert findings(examine(), "timers")[0]["severity"] == "ok"
    runner.run(store.execute("ZADD", timers, 1000, "node|q|f|1|1|t"))
    assert findings(examine(), "timers")[0]["severity"] == "problem"


def test_dead_letters_are_counted_with_the_newest_reason(
    store: Store, examine: Examine, runner: asyncio.Runner
):
    partition = store.keys.partitions[-1]
    for why in ("older", "not an event"):
        runner.run(bury(store, partition, "", b"raw", why))
    (finding,) = findings(examine(), "dead letters")
    assert finding["text"].startswith("2 dead letters") and "not an event" in finding["text"]
    assert "resolute dead ls" in finding["advice"]


def test_work_in_a_queue_that_nobody_reads(store: Store, examine: Examine, runner: asyncio.Runner):
    runner.run(offer(store, queue="gpu"))
    runner.run(store.execute("XADD", store.keys.partitions[-1].queue("gpu"), "*", "e", b"x"))
    data = examine()
    (finding,) = findings(data, "queue gpu")
    assert finding["severity"] == "problem" and "no worker reads it" in finding["text"]
    (row,) = [row for row in data["queues"] if (row["queue"], row["plan"]) == ("gpu", "")]
    assert (row["ready"], row["taken"], row["readers"]) == (1, 0, 0)


def test_what_waits_in_a_lane_is_told_by_itself(
    store: Store, examine: Examine, runner: asyncio.Runner
):
    async def fill() -> None:
        await offer(store)
        stream = store.keys.partitions[-1].queue("default^high")
        await store.execute("XADD", stream, "*", "e", b"x")

    runner.run(fill())
    data = examine()
    rows = {row["priority"]: row for row in data["queues"] if not row["plan"]}
    assert rows.keys() == {"high", "normal"}  # one without work is not shown
    assert (rows["high"]["ready"], rows["normal"]["ready"]) == (1, 0)
    (finding,) = findings(data, "queue default, high")
    assert finding["text"].startswith("1 node ready")


def test_taken_and_ready_entries_are_told_apart_and_summed_over_partitions(
    store: Store, examine: Examine, runner: asyncio.Runner
):
    async def fill() -> None:
        await offer(store)
        for partition in store.keys.partitions:
            stream = partition.queue("default")
            await streams.ensure_group(store, partition, stream, "workers")
            for _ in range(3):
                await store.execute("XADD", stream, "*", "e", b"x")
            read = await store.execute(
                "XREADGROUP", "GROUP", "workers", "w", "COUNT", 2, "STREAMS", stream, ">"
            )
            done = read[0][1][0][0]
            await streams.acknowledge(store, stream, "workers", [str(done, "ascii")])

    runner.run(fill())
    (row,) = [r for r in examine()["queues"] if (r["queue"], r["plan"]) == ("default", "")]
    count = len(store.keys.partitions)
    assert (row["ready"], row["taken"]) == (count, count)


def test_a_plan_that_no_live_worker_offers(store: Store, examine: Examine, runner: asyncio.Runner):
    runner.run(offer(store))
    stream = store.keys.partitions[0].queue("default", FLOW.plan_hash)
    runner.run(store.execute("XADD", stream, "*", "e", b"x"))
    (finding,) = [f for f in findings(examine(), "queue default") if FLOW.plan_hash in f["text"]]
    assert finding["severity"] == "problem"


async def echo(value: int) -> int:
    return value


def test_limits_that_differ_between_flows(store: Store, examine: Examine, runner: asyncio.Runner):
    def limited(name: str, places: int, rate: int) -> Flow[Any, Any]:
        one = work.with_concurrency(ConcurrencyLimit("room", places))
        other: Node[int, int] = AsyncNode(
            "other", echo, rate_limit=SharedRateLimit("api", rate, "1s")
        )
        made = FlowBuilder(name).triggered_by(manual()).then(one).then(other)
        return made.build()

    same = [limited("one", 3, 10), limited("two", 3, 10)]
    runner.run(offer(store, flows=same))
    assert not findings(examine(), "rate limit api")
    runner.run(offer(store, "host:1:bbbb", flows=[*same, limited("three", 4, 20)]))
    data = examine()
    (rate,) = findings(data, "rate limit api")
    assert (
        "one each 0.1 s, burst 10 in one, two; one each 0.05 s, burst 20 in three" in rate["text"]
    )
    (room,) = findings(data, "concurrency limit room")
    assert "3 in one, two; 4 in three" in room["text"]
    assert {rate["severity"], room["severity"]} == {"warning"}


def test_a_run_that_nothing_will_move_is_found_with_its_reason(
    store: Store, examine: Examine, runner: asyncio.Runner
):
    async def strand() -> str:
        await offer(store)
        run = await Client(store).start(FLOW.name, 1)
        key = store.keys.of(run.id).flow(run.id)
        await store.execute("HSET", key, "moved", 1000)
        return run.id

    run_id = runner.run(strand())
    data = examine()
    (stuck,) = data["stuck"]
    assert (stuck["id"], stuck["flow"]) == (run_id, FLOW.name)
    assert "resolute-coord" in stuck["waits_for"]
    assert f"resolute show {run_id}" in {finding["advice"] for finding in data["findings"]}


def test_a_run_that_has_just_moved_is_not_stuck(
    store: Store, examine: Examine, runner: asyncio.Runner
):
    async def begin() -> None:
        await offer(store)
        process = ProcessInfo("host:2:bbbb", "coordinator", "host", 2, 0, 60.0)
        await registry.register(store, process, {})
        await registry.end_lease(store, "host:2:bbbb")
        await Client(store).start(FLOW.name, 1)

    runner.run(begin())
    assert examine()["stuck"] == []


def test_a_damaged_run_is_named(store: Store, examine: Examine, runner: asyncio.Runner):
    async def damage() -> str:
        await offer(store)
        run = await Client(store).start(FLOW.name, 1)
        await store.execute("HSET", store.keys.of(run.id).flow(run.id), "status", "nonsense")
        return run.id

    run_id = runner.run(damage())
    assert any(run_id in finding["text"] for finding in findings(examine(), "runs"))


@pytest.mark.parametrize("damage", ["0|0|x", "0|0|1\xec", "7|0|1", "1"])
def test_who_looks_at_a_run_whose_steps_are_damaged_is_told(
    store: Store, runner: asyncio.Runner, damage: str
):
    async def look() -> None:
        await offer(store)
        run = await Client(store).start(FLOW.name, 1)
        key = store.keys.of(run.id).flow(run.id)
        plan = FLOW.plan_hash
        await store.execute("HSET", key, "plan", plan, "s:1", damage.encode("latin-1"))
        with pytest.raises(DamagedRun, match="damaged"):
            await take_snapshot(Client(store), run.id)
        with pytest.raises(DamagedRun, match="damaged"):
            await run.history()

    runner.run(look())


def test_the_report_is_one_json_document(examine: Examine):
    data = examine()
    assert set(data) == {
        "healthy", "server", "latency", "processes", "queues", "backlog", "stuck", "findings",
    }  # fmt: skip
    assert msgspec.json.encode(data)
