"""`resolute doctor`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Generator, Sequence

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from resolute.cli.doctor.findings import Finding, Severity, exit_code
from resolute.cli.doctor.limits import check_limits, read_plans
from resolute.cli.doctor.partitions import Backlog, check_backlog, read_backlog
from resolute.cli.doctor.processes import ProcessRow, check_processes, find_silent, rows_of
from resolute.cli.doctor.queues import QueueRow, check_queues, queue_names, read_queues
from resolute.cli.doctor.server import check_server, round_trip
from resolute.cli.doctor.stuck import StuckRun, check_damaged, check_stuck, find_stuck, oldest_open
from resolute.cli.live import read_situation
from resolute.cli.output import as_data, console, counted, make_table, print_json
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client
from resolute.durations import humanize
from resolute.errors import ConfigurationError
from resolute.priority import queue_of
from resolute.store import registry, server
from resolute.store.server import ServerInfo
from resolute.store.servers import Servers

LEASE = 15.0  # s, where nobody is registered who could say

_SIGNS = {
    Severity.OK: ("✓", "green"),
    Severity.WARNING: ("!", "yellow"),
    Severity.PROBLEM: ("✗", "red"),
    Severity.UNSUITABLE: ("✗", "bold red"),
}


class Report(msgspec.Struct):
    """Everything that doctor found."""

    server: ServerInfo | None = None
    latency: float = 0.0
    processes: list[ProcessRow] = []
    queues: list[QueueRow] = []
    backlog: Backlog | None = None
    stuck: list[StuckRun] = []
    findings: list[Finding] = []


@click.command()
@json_option
@target_options
def doctor(target: Target, as_json: bool) -> None:
    """Look for what is wrong with server, processes, queues and runs.

    Takes up to a third of a lease, in which every beat must move. Exits with 0 if all is well
    (warnings are no illness), 1 for problems, 2 for a server that is away or unsuitable.
    """
    report = asyncio.run(_examine(target, quiet=as_json))
    if as_json:
        code = exit_code(report.findings)
        print_json({"healthy": not code, **as_data(report)})
    else:
        console().print(_render(report))
    sys.exit(exit_code(report.findings))


async def _examine(target: Target, *, quiet: bool) -> Report:
    report = Report()
    async with target.link() as link:
        servers = Servers(link)
        await servers.look()
        report.server = await server.inspect(link)
        report.latency = await round_trip(link)
        primaries = [one for one in servers.primaries() if one is not link]
        for one in primaries or [link]:
            info = report.server if one is link else await server.inspect(one)
            latency = report.latency if one is link else await round_trip(one)
            report.findings += check_server(info, str(one.address), latency)
        await servers.close()
    try:
        async with target.connect() as client:
            with _patience(quiet):
                await _examine_namespace(client, report)
    except ConfigurationError as error:
        advice = "is --namespace right? Start resolute-coord and resolute-worker"
        report.findings.append(Finding("namespace", Severity.PROBLEM, str(error), advice))
    return report


@contextlib.contextmanager
def _patience(quiet: bool) -> Generator[None]:
    screen = Console(stderr=True)
    if quiet or not screen.is_terminal:
        yield
        return
    with screen.status("looking, and waiting for every beat to move"):
        yield


async def _examine_namespace(client: Client, report: Report) -> None:
    store = client.store
    situation = await read_situation(store)
    members = (*situation.coordinators, *situation.workers)
    silent = await find_silent(store, members)
    offers = await registry.offered_flows(store)
    opened, damaged = await oldest_open(store)
    lease = max((process.lease for process in members), default=LEASE)
    plans = {offer.plan for offer in offers.values()} | {h.plan for h in opened if h.plan}

    report.processes = rows_of(situation, silent)
    names = set(await queue_names(client, situation, plans))
    names |= {(queue_of(header.queue), plan) for header in opened for plan in ("", header.plan)}
    report.queues = await read_queues(store, sorted(names), situation, silent)
    report.backlog = await read_backlog(store, situation)
    report.stuck = await find_stuck(client, opened, report.queues, situation, lease)

    report.findings += check_processes(report.processes, bool(offers))
    report.findings += check_queues(report.queues, report.processes)
    report.findings += check_limits(await read_plans(client, offers.values()))
    report.findings += check_backlog(report.backlog)
    report.findings += check_damaged(damaged)
    report.findings += check_stuck(report.stuck, len(opened))


def _render(report: Report) -> RenderableType:
    parts: list[RenderableType] = [_findings(report.findings)]
    if report.processes:
        parts += ["", _processes(report.processes)]
    return Group(*parts, "", _summary(report.findings))


def _findings(findings: Sequence[Finding]) -> Table:
    table = make_table()
    table.add_column(no_wrap=True)
    table.add_column(style="bold", overflow="fold", max_width=24)
    table.add_column(overflow="fold")
    for finding in findings:
        sign, style = _SIGNS[finding.severity]
        text = Text(finding.text)
        if finding.advice:
            text.append(f"\n→ {finding.advice}", style="cyan")
        table.add_row(Text(sign, style=style), finding.check, text)
    return table


def _processes(rows: Sequence[ProcessRow]) -> Table:
    table = make_table(
        Column("process", overflow="fold"),
        Column("kind", no_wrap=True),
        Column("queue", overflow="fold"),
        Column("registered", justify="right", no_wrap=True),
        Column("slots", justify="right", no_wrap=True),
        Column("flows", justify="right", no_wrap=True),
    )
    for row in rows:
        is_worker = row.kind == "worker"
        table.add_row(
            row.name,
            row.kind,
            row.queue,
            f"{humanize(row.age)} ago",
            str(row.slots) if is_worker else "",
            str(row.flows) if is_worker else "",
            style="" if row.beats else "red",
        )
    return table


def _summary(findings: Sequence[Finding]) -> Text:
    severities = [finding.severity for finding in findings]
    problems = severities.count(Severity.PROBLEM) + severities.count(Severity.UNSUITABLE)
    warnings = severities.count(Severity.WARNING)
    said = [
        counted(count, noun)
        for count, noun in ((problems, "problem"), (warnings, "warning"))
        if count
    ]
    return Text(", ".join(said) or "all is well", style="bold red" if problems else "bold")
