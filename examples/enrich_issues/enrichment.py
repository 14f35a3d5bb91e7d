"""What the flows make of the services' answers: the data of each source, and the row they become.

Pure functions, so that the flow for one issue and the flow for all of them come to the same rows.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from examples.enrich_issues.wire import IssueSummary, Mentions, Thread, TrackedIssue


class TrackerData(msgspec.Struct, frozen=True):
    """From the tracker. `days_open`: whole days until closed, else until the tracker's `asOf`."""

    state: str
    labels: tuple[str, ...]
    days_open: int


class ChatData(msgspec.Struct, frozen=True):
    """From the chat. `participants` counts distinct authors; a deleted account is nobody."""

    comments: int
    participants: int
    last_activity: datetime | None


class PullRequestData(msgspec.Struct, frozen=True):
    """From the pull requests that name the issue; `reviews` are those of all of them."""

    mentioning: int
    merged: int
    reviews: int


class EnrichedIssue(msgspec.Struct, frozen=True):
    """All that is known about an issue: its row."""

    number: int
    title: str
    state: str
    labels: tuple[str, ...]
    days_open: int
    comments: int
    participants: int
    last_activity: datetime
    pull_requests: int
    merged_pull_requests: int
    reviews: int


def tracker_data(issue: TrackedIssue) -> TrackerData:
    open_for = (issue.closed_at or issue.as_of) - issue.created_at
    return TrackerData(issue.state, issue.labels, open_for.days)


def chat_data(thread: Thread) -> ChatData:
    return ChatData(
        comments=len(thread.comments),
        participants=len({c.author for c in thread.comments if c.author is not None}),
        last_activity=max((c.created_at for c in thread.comments), default=None),
    )


def pull_request_data(mentions: Mentions) -> PullRequestData:
    return PullRequestData(
        mentioning=len(mentions.pulls),
        merged=sum(pull.merged for pull in mentions.pulls),
        reviews=sum(len(pull.reviews) for pull in mentions.pulls),
    )


def merge(
    issue: IssueSummary, tracker: TrackerData, chat: ChatData, pulls: PullRequestData
) -> EnrichedIssue:
    """One row from all sources. An issue that nobody discussed was last active when opened."""
    return EnrichedIssue(
        number=issue.number,
        title=issue.title,
        state=tracker.state,
        labels=tracker.labels,
        days_open=tracker.days_open,
        comments=chat.comments,
        participants=chat.participants,
        last_activity=chat.last_activity or issue.created_at,
        pull_requests=pulls.mentioning,
        merged_pull_requests=pulls.merged,
        reviews=pulls.reviews,
    )
