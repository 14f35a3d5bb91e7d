"""List the open issues of a repository, page by page, and answer each of them once.

    python -m examples.answer_issues    # with a tracker of its own, in memory

or, with the variables TRACKER_URL and TRACKER_TOKEN of the worker:

    resolute-worker --queue issues --app examples.answer_issues.flows
    resolute start answer-issues --input '{"repo": "books"}' --wait

The token is read on the worker when a call is made: no run has it. When the tracker says that no
calls are left, nobody calls it until there are some again, whichever worker was told so.
"""

from __future__ import annotations

import msgspec

from resolute import FlowBuilder, FlowState, RetryPolicy, manual
from resolute.http import HttpApi, env

tracker = HttpApi(
    "tracker",
    base_url=env("TRACKER_URL"),
    headers={"Authorization": env("TRACKER_TOKEN", "Bearer {}")},
    rate_limit="100/s",
    timeout="30s",
    retry=RetryPolicy(initial_interval="100ms", max_attempts=5),
    health="/status",
)


class Search(msgspec.Struct):
    """Which issues to answer."""

    repo: str
    state: str = "open"


class Issue(msgspec.Struct):
    """What the flow needs to know of an issue."""

    number: int
    title: str


class Comment(msgspec.Struct):
    """An answer, and where it goes."""

    repo: str
    number: int
    body: str


class Posted(msgspec.Struct):
    """What the tracker calls the answer."""

    id: int


issues = tracker.pages(
    "issues", "/repos/{repo}/issues", input=Search, returns=list[Issue], max_pages=50
)
answer = tracker.post(
    "answer", "/repos/{repo}/issues/{number}/comments", input=Comment, returns=Posted
)
provider = tracker.provider()


def answers(state: FlowState) -> list[Comment]:
    """An answer for each issue."""
    repo = state.input(Search).repo
    return [
        Comment(repo, issue.number, f"Thank you for “{issue.title}”.") for issue in state[issues]
    ]


flow = (
    FlowBuilder("answer-issues", input=Search)
    .triggered_by(manual())
    .then(issues)
    .then_each("answers", answer, items=answers, max_concurrency=5)
    .build()
)
