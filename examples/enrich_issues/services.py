"""Three HTTP services over one issue archive: a tracker, a chat and a host of pull requests.

    python -m examples.enrich_issues.services --data archive.json.gz --port 8080

prints one line of JSON, `{"url": "http://127.0.0.1:8080"}`, as soon as it can be called.

    GET  /tracker/issues              number, title and creation of every issue
    GET  /tracker/issues/{n}/summary  the same of one issue
    GET  /tracker/issues/{n}          all about one issue
    POST /tracker/issues/batch        all about up to 100 issues: {"numbers": [1, 2, 3]}
    GET  /chat/issues/{n}             the comments on an issue
    POST /chat/issues/batch
    GET  /pulls/issues/{n}            the pull requests that name the issue as #n
    POST /pulls/issues/batch
    GET  /stats                       calls, 503s and 429s of each service; POST resets them
"""

from __future__ import annotations

import re
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import click
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from examples.enrich_issues.archive import SAMPLE, Archive, Issue, PullRequest, load_or_refuse
from examples.enrich_issues.unreliable import Clock, Conditions, Gatekeeper, RateAllowed
from examples.enrich_issues.wire import (
    Batch,
    IssueList,
    IssueSummary,
    MentioningPull,
    Mentions,
    Numbers,
    PullReview,
    ServicesReady,
    Thread,
    ThreadComment,
    TrackedIssue,
)

T = TypeVar("T")

Endpoint = Callable[[Request], Awaitable[Response]]

ALLOWED = {
    "tracker": RateAllowed(per_second=400, burst=200),
    "chat": RateAllowed(per_second=300, burst=150),
    "pulls": RateAllowed(per_second=300, burst=150),
}
"""What each service allows unless told otherwise. The limits of the nodes lie below."""

_MENTION = re.compile(r"#([1-9][0-9]*)")


def build_app(
    archive: Archive, conditions: dict[str, Conditions], clock: Clock = time.monotonic
) -> Starlette:
    """The services as one app; `conditions` by service: tracker, chat, pulls."""
    gates = {name: Gatekeeper(conditions[name], clock) for name in ALLOWED}
    summaries = {issue.number: _summary(issue) for issue in archive.issues}
    tracked = {issue.number: _tracked(issue, archive.as_of) for issue in archive.issues}
    threads = {issue.number: _thread(issue) for issue in archive.issues}
    mentions = _mentions(archive)
    every_issue = IssueList(tuple(summaries[number] for number in sorted(summaries)))

    async def list_issues(request: Request) -> Response:
        return await gates["tracker"].admit(request) or _json(every_issue)

    async def stats(request: Request) -> Response:
        taken = request.method == "POST"
        return _json({n: g.take_stats() if taken else g.stats() for n, g in gates.items()})

    tracker = [
        Route("/issues", list_issues),
        Route("/issues/{number:int}/summary", _one(summaries, gates["tracker"])),
        *_one_and_batch(tracked, gates["tracker"]),
    ]
    return Starlette(
        routes=[
            Mount("/tracker", routes=tracker),
            Mount("/chat", routes=_one_and_batch(threads, gates["chat"])),
            Mount("/pulls", routes=_one_and_batch(mentions, gates["pulls"])),
            Route("/stats", stats, methods=["GET", "POST"]),
        ]
    )


def _one_and_batch(items: dict[int, T], gate: Gatekeeper) -> list[Route]:
    """The endpoints that every service has."""
    return [
        Route("/issues/{number:int}", _one(items, gate)),
        Route("/issues/batch", _batch(items, gate), methods=["POST"]),
    ]


def _one(items: dict[int, T], gate: Gatekeeper) -> Endpoint:
    async def one(request: Request) -> Response:
        refusal = await gate.admit(request)
        return refusal or _json(_find(items, request.path_params["number"]))

    return one


def _batch(items: dict[int, T], gate: Gatekeeper) -> Endpoint:
    async def batch(request: Request) -> Response:
        if refusal := await gate.admit(request):
            return refusal
        try:
            asked = msgspec.json.decode(await request.body(), type=Numbers)
        except msgspec.DecodeError as error:
            raise HTTPException(422, str(error)) from error
        return _json(Batch(tuple(_find(items, number) for number in asked.numbers)))

    return batch


def _find(items: dict[int, T], number: int) -> T:
    if number not in items:
        raise HTTPException(404, f"there is no issue {number}")
    return items[number]


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _summary(issue: Issue) -> IssueSummary:
    return IssueSummary(issue.number, issue.title, issue.created_at)


def _tracked(issue: Issue, as_of: datetime) -> TrackedIssue:
    return TrackedIssue(
        number=issue.number,
        title=issue.title,
        state=issue.state,
        labels=issue.labels,
        created_at=issue.created_at,
        updated_at=issue.updated_at,
        closed_at=issue.closed_at,
        as_of=as_of,
    )


def _thread(issue: Issue) -> Thread:
    comments = (ThreadComment(c.author, c.body, c.created_at) for c in issue.comments)
    return Thread(issue.number, tuple(comments))


def _mentions(archive: Archive) -> dict[int, Mentions]:
    """For each issue, the pull requests that name it in their title or body."""
    by_issue: defaultdict[int, list[MentioningPull]] = defaultdict(list)
    for pull in archive.pulls:
        for number in set(map(int, _MENTION.findall(f"{pull.title}\n{pull.body}"))):
            by_issue[number].append(_mentioning(pull))
    return {
        issue.number: Mentions(issue.number, tuple(by_issue[issue.number]))
        for issue in archive.issues
    }


def _mentioning(pull: PullRequest) -> MentioningPull:
    reviews = (PullReview(r.author, r.state, r.created_at) for r in pull.reviews)
    return MentioningPull(pull.number, pull.title, pull.merged_at is not None, tuple(reviews))


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    if not (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s)", value)):
        raise click.BadParameter(f'expected a duration like "20ms" or "0.5s", got "{value}"')
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def _rate_allowed(_context: click.Context, _parameter: click.Parameter, value: str) -> RateAllowed:
    if not (match := re.fullmatch(r"([1-9][0-9]*):([1-9][0-9]*)", value)):
        raise click.BadParameter(f'expected PER_SECOND:BURST like "400:200", got "{value}"')
    return RateAllowed(per_second=float(match[1]), burst=int(match[2]))


def _limit_option(service: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    allowed = ALLOWED[service]
    return click.option(
        f"--{service}-limit",
        default=f"{allowed.per_second:.0f}:{allowed.burst}",
        show_default=True,
        metavar="PER_SECOND:BURST",
        callback=_rate_allowed,
        help=f"Calls that {service} admits before it answers 429.",
    )


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=SAMPLE,
    help="Archive to serve, .json or .json.gz.  [default: the sample]",
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0: any free one.")
@click.option("--seed", default=1, show_default=True, help="Decides which calls fail.")
@click.option(
    "--latency",
    default="20ms",
    show_default=True,
    callback=_seconds,
    help="Mean of an answer: a path takes between half and one and a half of it.",
)
@click.option(
    "--error-rate",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Share of the calls answered with 503.",
)
@_limit_option("tracker")
@_limit_option("chat")
@_limit_option("pulls")
def main(
    data: Path,
    host: str,
    port: int,
    seed: int,
    latency: float,
    error_rate: float,
    tracker_limit: RateAllowed,
    chat_limit: RateAllowed,
    pulls_limit: RateAllowed,
) -> None:
    """Serve an issue archive as a tracker, a chat and a host of pull requests."""
    limits = {"tracker": tracker_limit, "chat": chat_limit, "pulls": pulls_limit}
    conditions = {
        name: Conditions(allowed, latency, error_rate, seed) for name, allowed in limits.items()
    }
    app = build_app(load_or_refuse(data), conditions)
    listener = socket.create_server((host, port), backlog=1024)
    ready = ServicesReady(f"http://{host}:{listener.getsockname()[1]}")
    print(msgspec.json.encode(ready).decode(), flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=60)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
