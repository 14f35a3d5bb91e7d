"""The flows: `enrich-issue` for one issue, `enrich-all-issues` for all of them at once.

Both fetch, ask three sources at the same time, merge, and store; both write the same rows. With a
flow an issue every call is a node of its own: retried by itself, counted by the rate limits,
visible in the history. One flow for all has a handful of nodes that make many calls each.

`resolute-worker --queue enrichment-queue --app examples.enrich_issues.flows` offers both.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from examples.enrich_issues import settings
from examples.enrich_issues.client import services
from examples.enrich_issues.enrichment import (
    ChatData,
    EnrichedIssue,
    PullRequestData,
    TrackerData,
    chat_data,
    merge,
    pull_request_data,
    tracker_data,
)
from examples.enrich_issues.pages import in_pages
from examples.enrich_issues.store import store_at
from examples.enrich_issues.wire import IssueList, IssueSummary
from resolute import (
    FlowBuilder,
    FlowState,
    RateLimit,
    RetryPolicy,
    SharedRateLimit,
    manual,
    node,
    schedule,
)

RETRY = RetryPolicy(initial_interval="100ms", maximum_interval="2s", max_attempts=6)

# Each lies below what its service allows (services.ALLOWED), burst included: in any window of w
# seconds there are at most burst + n × (w + 0.1) starts, retries among them.
TRACKER_LIMIT = SharedRateLimit("tracker", 300, "1s", burst=60)  # two nodes call the tracker
CHAT_LIMIT = RateLimit(200, "1s", burst=50)
PULLS_LIMIT = RateLimit(200, "1s", burst=50)


class Stored(msgspec.Struct, frozen=True):
    """How many rows were written."""

    rows: int


# One flow an issue


class IssueInput(msgspec.Struct, frozen=True):
    """The issue to enrich."""

    number: int


class MergeInput(msgspec.Struct, frozen=True):
    """One issue and what each source says about it."""

    issue: IssueSummary
    tracker: TrackerData
    chat: ChatData
    pulls: PullRequestData


@node("fetch-issue", output="issue", timeout="30s", retry=RETRY, rate_limit=TRACKER_LIMIT)
async def fetch_issue(inp: IssueInput) -> IssueSummary:
    return await services().issue_summary(inp.number)


@node("enrich-tracker", timeout="30s", retry=RETRY, rate_limit=TRACKER_LIMIT)
async def enrich_tracker(issue: IssueSummary) -> TrackerData:
    return tracker_data(await services().tracked_issue(issue.number))


@node("enrich-chat", timeout="30s", retry=RETRY, rate_limit=CHAT_LIMIT)
async def enrich_chat(issue: IssueSummary) -> ChatData:
    return chat_data(await services().thread(issue.number))


@node("enrich-pulls", timeout="30s", retry=RETRY, rate_limit=PULLS_LIMIT)
async def enrich_pulls(issue: IssueSummary) -> PullRequestData:
    return pull_request_data(await services().mentions(issue.number))


def merge_input(state: FlowState) -> MergeInput:
    return MergeInput(
        issue=state[fetch_issue],
        tracker=state[enrich_tracker],
        chat=state[enrich_chat],
        pulls=state[enrich_pulls],
    )


@node("merge-issue")
async def merge_issue(inp: MergeInput) -> EnrichedIssue:
    return merge(inp.issue, inp.tracker, inp.chat, inp.pulls)


@node("store-issue", timeout="1m", retry=RETRY)
def store_issue(issue: EnrichedIssue) -> Stored:
    return Stored(store_at(settings.database()).write([issue]))


enrich_issue = (
    FlowBuilder("enrich-issue", input=IssueInput)
    .triggered_by(manual("api"))
    .on_queue(settings.QUEUE)
    .then(fetch_issue)
    .then_parallel("enrich-sources", enrich_tracker, enrich_chat, enrich_pulls)
    .then(merge_issue.with_input(merge_input))
    .then(store_issue)
    .build()
)


# One flow for all issues


class AllIssuesInput(msgspec.Struct, frozen=True):
    """Which issues to enrich: the newest ones, or all."""

    newest: Annotated[int, msgspec.Meta(ge=1)] | None = None


class IssueNumbers(msgspec.Struct, frozen=True):
    """The issues that a source is asked about."""

    numbers: tuple[int, ...]


class AllTrackerData(msgspec.Struct, frozen=True):
    """What the tracker says, by issue number."""

    data: dict[int, TrackerData]


class AllChatData(msgspec.Struct, frozen=True):
    """What the chat says, by issue number."""

    data: dict[int, ChatData]


class AllPullRequestData(msgspec.Struct, frozen=True):
    """What the pull requests say, by issue number."""

    data: dict[int, PullRequestData]


class MergeAllInput(msgspec.Struct, frozen=True):
    """All issues and what each source says about them."""

    issues: tuple[IssueSummary, ...]
    tracker: dict[int, TrackerData]
    chat: dict[int, ChatData]
    pulls: dict[int, PullRequestData]


class EnrichedIssues(msgspec.Struct, frozen=True):
    """All rows."""

    issues: tuple[EnrichedIssue, ...]


@node("fetch-issues", output="issues", timeout="1m", retry=RETRY)
async def fetch_issues(inp: AllIssuesInput) -> IssueList:
    issues = (await services().issue_list()).issues
    return IssueList(issues if inp.newest is None else issues[-inp.newest :])


def issue_numbers(state: FlowState) -> IssueNumbers:
    return IssueNumbers(tuple(issue.number for issue in state[fetch_issues].issues))


@node("enrich-from-tracker", timeout="2m", retry=RETRY, rate_limit="50/1m")
async def enrich_from_tracker(inp: IssueNumbers) -> AllTrackerData:
    issues = await in_pages(inp.numbers, services().tracked_issues)
    return AllTrackerData({issue.number: tracker_data(issue) for issue in issues})


@node("enrich-from-chat", timeout="2m", retry=RETRY)
async def enrich_from_chat(inp: IssueNumbers) -> AllChatData:
    threads = await in_pages(inp.numbers, services().threads)
    return AllChatData({thread.number: chat_data(thread) for thread in threads})


@node("enrich-from-pulls", timeout="3m", retry=RETRY, rate_limit="1000/1h")
async def enrich_from_pulls(inp: IssueNumbers) -> AllPullRequestData:
    mentions = await in_pages(inp.numbers, services().all_mentions)
    return AllPullRequestData({m.number: pull_request_data(m) for m in mentions})


def merge_all_input(state: FlowState) -> MergeAllInput:
    return MergeAllInput(
        issues=state[fetch_issues].issues,
        tracker=state[enrich_from_tracker].data,
        chat=state[enrich_from_chat].data,
        pulls=state[enrich_from_pulls].data,
    )


@node("merge-data")
async def merge_data(inp: MergeAllInput) -> EnrichedIssues:
    return EnrichedIssues(
        tuple(
            merge(issue, inp.tracker[issue.number], inp.chat[issue.number], inp.pulls[issue.number])
            for issue in inp.issues
        )
    )


@node("store-enriched", timeout="1m", retry=RETRY)
def store_enriched(inp: EnrichedIssues) -> Stored:
    return Stored(store_at(settings.database()).write(inp.issues))


enrich_all_issues = (
    FlowBuilder("enrich-all-issues", input=AllIssuesInput)
    .triggered_by(schedule("0 */4 * * *"))
    .triggered_by(manual("api"))
    .on_queue(settings.QUEUE)
    .then(fetch_issues)
    .then_parallel(
        "enrich-sources",
        enrich_from_tracker.with_input(issue_numbers),
        enrich_from_chat.with_input(issue_numbers),
        enrich_from_pulls.with_input(issue_numbers),
    )
    .then(merge_data.with_input(merge_all_input))
    .then(store_enriched)
    .build()
)
