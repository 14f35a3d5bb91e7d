"""Limits that several flows share, and each has other figures for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from resolute.cli.doctor.findings import Finding, Severity
from resolute.cli.live import all_nodes
from resolute.client import Client
from resolute.model.node_plans import SHARED
from resolute.model.plan import Plan
from resolute.store.registry import FlowOffer

Figures = dict[str, set[str]]  # how the limit is described, and the flows that do so


async def read_plans(client: Client, offers: Iterable[FlowOffer]) -> list[Plan]:
    """The plans of all flows as they were offered last."""
    found = [await client.directory.plan(offer.plan) for offer in offers]
    return [plan for plan in found if plan is not None]


def check_limits(plans: Iterable[Plan]) -> Iterator[Finding]:
    """Of a limit that has several figures each flow goes by its own, so that it holds for none."""
    rates: dict[str, Figures] = defaultdict(lambda: defaultdict(set))
    places: dict[str, Figures] = defaultdict(lambda: defaultdict(set))
    for plan in plans:
        for limit in (limit for node in all_nodes(plan) for limit in node.limits):
            if limit.bucket.startswith(SHARED):
                name = limit.bucket.removeprefix(SHARED)
                figures = f"one each {limit.interval_us / 1e6:g} s, burst {limit.burst}"
                rates[name][figures].add(plan.flow)
        for limit in (limit for note in plan.concurrency for limit in note.limits):
            places[limit.name][str(limit.n)].add(plan.flow)
    yield from _differing("rate limit", rates)
    yield from _differing("concurrency limit", places)


def _differing(kind: str, limits: dict[str, Figures]) -> Iterator[Finding]:
    for name, figures in sorted(limits.items()):
        if len(figures) > 1:
            ordered = sorted(figures.items(), key=lambda one: min(one[1]))
            said = "; ".join(f"{figure} in {', '.join(sorted(flows))}" for figure, flows in ordered)
            yield Finding(
                f"{kind} {name}",
                Severity.WARNING,
                f"it is not the same everywhere: {said}",
                "give it the same figures in all flows: each goes by its own",
            )
