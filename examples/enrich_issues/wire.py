"""What the three services answer, and what they are asked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeVar

import msgspec

T = TypeVar("T")

BATCH_LIMIT = 100
"""How many issues one batch request may name."""


class Numbers(msgspec.Struct, frozen=True):
    """The body of a batch request."""

    numbers: Annotated[tuple[int, ...], msgspec.Meta(max_length=BATCH_LIMIT)]


class IssueSummary(msgspec.Struct, frozen=True, rename="camel"):
    """Tracker: an issue as a list shows it."""

    number: int
    title: str
    created_at: datetime


class IssueList(msgspec.Struct, frozen=True):
    """Tracker: all issues, in ascending order of their numbers."""

    issues: tuple[IssueSummary, ...]


class TrackedIssue(msgspec.Struct, frozen=True, rename="camel"):
    """Tracker: one issue. `as_of` is the moment that the tracker's data shows."""

    number: int
    title: str
    state: str
    labels: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    as_of: datetime


class ThreadComment(msgspec.Struct, frozen=True, rename="camel"):
    """Chat: one comment; `author` is None where the account is gone."""

    author: str | None
    body: str
    created_at: datetime


class Thread(msgspec.Struct, frozen=True):
    """Chat: what was said about one issue."""

    number: int
    comments: tuple[ThreadComment, ...]


class PullReview(msgspec.Struct, frozen=True, rename="camel"):
    """Pull requests: one review."""

    author: str | None
    state: str
    created_at: datetime


class MentioningPull(msgspec.Struct, frozen=True):
    """Pull requests: one that names the issue in its title or body."""

    number: int
    title: str
    merged: bool
    reviews: tuple[PullReview, ...]


class Mentions(msgspec.Struct, frozen=True):
    """Pull requests: all that name one issue."""

    number: int
    pulls: tuple[MentioningPull, ...]


class Batch(msgspec.Struct, Generic[T], frozen=True):
    """The answer to a batch request, in the order asked."""

    items: tuple[T, ...]


class ServiceStats(msgspec.Struct, frozen=True):
    """What one service has counted. `calls` is every request, refused or not; `peak` the most of
    them within one second; `per_second` and `burst` are what the service allows."""

    calls: int
    http_503: int
    http_429: int
    peak: int
    per_second: float
    burst: int


class ServicesReady(msgspec.Struct, frozen=True):
    """The line that the services print once they can be called."""

    url: str
