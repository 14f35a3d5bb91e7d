"""`resolute flows`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click
import msgspec
from rich.table import Column, Table

from resolute.cli.live import Situation, read_situation
from resolute.cli.output import console, local_time, make_table, print_json
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client
from resolute.durations import humanize, spell
from resolute.model.plan import Plan, RetentionPlan
from resolute.model.triggers import next_tick
from resolute.store import registry
from resolute.store.registry import FlowOffer
from resolute.store.store import Store


class ScheduleRow(msgspec.Struct, frozen=True):
    """A cron trigger; `next` is in seconds of Unix time."""

    cron: str
    timezone: str
    next: float


class VersionRow(msgspec.Struct, frozen=True):
    """A plan of a flow with the runs that are pinned to it and the live processes that serve it.

    Runs of one that nobody serves wait for a worker; they go on by themselves when one comes.
    """

    plan: str
    open_runs: int
    processes: int

    @property
    def is_waiting_for_worker(self) -> bool:
        return self.open_runs > 0 and not self.processes


class FlowRow(msgspec.Struct, frozen=True):
    """An offered flow. `queues` and `plans` count live processes; `plan` is what new runs get.

    `versions` are the plans that have open runs or live processes, that of new runs first; runs
    that have not begun are counted there.

    `retention` is how long its ended runs are kept, where it says so itself: the plan that was
    offered last decides.
    """

    flow: str
    plan: str
    queues: dict[str, int]
    plans: dict[str, int]
    processes: int
    open_runs: int
    versions: list[VersionRow]
    schedules: list[ScheduleRow]
    retention: RetentionPlan | None = None


CHUNK = 1000  # runs looked at together


@click.command()
@json_option
@target_options
def flows(target: Target, as_json: bool) -> None:
    """List the flows that workers offer, or once offered."""
    rows, now = target.run(read_flows)
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("no worker has offered a flow yet", err=True)
    else:
        console().print(_table(rows, now))


async def read_flows(client: Client) -> tuple[list[FlowRow], float]:
    """Every flow that was offered, by name; and the time of Redis."""
    situation = await read_situation(client.store)
    offers = await registry.offered_flows(client.store)
    names = sorted(offers)
    opened = {name: await _open_runs(client.store, name) for name in names}
    rows: list[FlowRow] = []
    for name in names:
        plan_hash = _pinned(situation, name, offers[name])
        plan = await client.directory.plan(plan_hash)
        row = _row(name, offers[name], plan_hash, plan, situation, opened[name])
        offered = await client.directory.plan(offers[name].plan)
        retention = offered.retention if offered else None
        rows.append(msgspec.structs.replace(row, retention=retention))
    return rows, situation.now


def _pinned(situation: Situation, flow: str, offer: FlowOffer) -> str:
    """The plan that a new run gets: of the live worker started last, else the last offered."""
    live = situation.offering(flow)
    if not live:
        return offer.plan
    return max(live, key=lambda process: (process.started, process.name)).flows[flow]


async def _open_runs(store: Store, flow: str) -> Counter[str]:
    """The open runs of a flow by their plan, '' for those that have not begun."""
    found: Counter[str] = Counter()
    for partition in store.keys.partitions:
        ids = await store.execute("ZRANGE", partition.open_of(flow), 0, -1)
        for at in range(0, len(ids), CHUNK):
            keys = [partition.flow(str(i, "utf-8")) for i in ids[at : at + CHUNK]]
            plans = await store.execute_all([("HGET", key, "plan") for key in keys])
            found.update(str(plan, "utf-8") for plan in plans if plan is not None)
    return found


def _versions(pinned: str, opened: Counter[str], live: Counter[str]) -> list[VersionRow]:
    runs = opened + Counter({pinned: opened[""]})
    others = sorted({*runs, *live} - {pinned, ""}, key=lambda plan: (-runs[plan], plan))
    return [VersionRow(plan, runs[plan], live[plan]) for plan in (pinned, *others)]


def _row(
    name: str,
    offer: FlowOffer,
    plan_hash: str,
    plan: Plan | None,
    situation: Situation,
    opened: Counter[str],
) -> FlowRow:
    live = situation.offering(name)
    queues = dict(Counter(process.queue for process in live))
    if plan is not None and plan.queue:
        queues.setdefault(plan.queue, 0)
    return FlowRow(
        flow=name,
        plan=plan_hash,
        queues=dict(sorted(queues.items())) or {offer.queue: 0},
        plans=dict(Counter(process.flows[name] for process in live)) or {plan_hash: 0},
        processes=len(live),
        open_runs=opened.total(),
        versions=_versions(plan_hash, opened, Counter(one.flows[name] for one in live)),
        schedules=[
            ScheduleRow(s.cron, s.timezone, next_tick(s.cron, s.timezone, situation.now))
            for s in (plan.schedules if plan else ())
        ],
    )


def _table(rows: Sequence[FlowRow], now: float) -> Table:
    has_schedules = any(row.schedules for row in rows)
    has_retention = any(row.retention for row in rows)
    table = make_table(
        Column("flow", overflow="fold"),
        Column("queue", overflow="fold"),
        Column("plan", no_wrap=True),
        Column("processes", justify="right", no_wrap=True),
        Column("open", justify="right", no_wrap=True),
    )
    if has_retention:
        table.add_column("kept", overflow="fold")
    if has_schedules:
        table.add_column("schedule", overflow="fold")
    for row in rows:
        queues = "\n".join(row.queues)
        plans = "\n".join(version.plan[:8] for version in row.versions)
        served = "\n".join(_served(version) for version in row.versions)
        opened = "\n".join(f"{version.open_runs:,}" for version in row.versions)
        cells = [row.flow, queues, plans, served, opened]
        cells += [_kept(row.retention)] if has_retention else []
        cells += [_schedules(row.schedules, now)] if has_schedules else []
        table.add_row(*cells)
    return table


def _served(version: VersionRow) -> str:
    """How many processes serve a version, and whether its runs wait for one."""
    if version.is_waiting_for_worker:
        return "waiting for worker"
    return str(version.processes) if version.processes else "[none]"


def _kept(retention: RetentionPlan | None) -> str:
    """``7d``, ``the last 1,000``, or both."""
    if retention is None:
        return ""
    after = [spell(retention.after_ms)] if retention.after_ms is not None else []
    last = [f"the last {retention.keep_last:,}"] if retention.keep_last is not None else []
    return ", ".join(after + last)


def _schedules(schedules: Sequence[ScheduleRow], now: float) -> str:
    return "\n".join(
        f"{s.cron}, next {local_time(s.next, now)} (in {humanize(s.next - now)})" for s in schedules
    )
