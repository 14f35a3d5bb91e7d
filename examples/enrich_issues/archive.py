"""An issue archive: its schema, how to load it, and what enriching it must come to.

`expected_rows` is the oracle of the example. It reads the whole archive in one pass, asks no
service and shares no code with the flows, so that where both agree, both are right.
"""

from __future__ import annotations

import gzip
import zlib
from collections import defaultdict
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import click
import msgspec

from examples.enrich_issues.enrichment import EnrichedIssue

SAMPLE = Path(__file__).with_name("sample.json")

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class Comment(msgspec.Struct, frozen=True, rename="camel"):
    """A comment on an issue; `author` is None where the account is gone."""

    author: str | None
    body: str
    created_at: Timestamp


class Review(msgspec.Struct, frozen=True, rename="camel"):
    """One review of a pull request."""

    author: str | None
    state: str
    created_at: Timestamp


class Issue(msgspec.Struct, frozen=True, rename="camel"):
    """An issue with all its comments."""

    number: int
    title: str
    state: str
    author: str | None
    labels: tuple[str, ...]
    body: str
    created_at: Timestamp
    updated_at: Timestamp
    closed_at: Timestamp | None
    comments: tuple[Comment, ...]


class PullRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A pull request with its reviews; its comments play no part here."""

    number: int
    title: str
    state: str
    author: str | None
    body: str
    created_at: Timestamp
    merged_at: Timestamp | None
    reviews: tuple[Review, ...]


class Archive(msgspec.Struct, frozen=True):
    """A tracker at one moment: `as_of`, the newest update of any issue."""

    issues: Annotated[tuple[Issue, ...], msgspec.Meta(min_length=1)]
    pulls: tuple[PullRequest, ...]

    @property
    def as_of(self) -> datetime:
        return max(issue.updated_at for issue in self.issues)


def load(path: Path) -> Archive:
    """Read an archive from a `.json` or `.json.gz` file.

    Raises OSError where it cannot be read, msgspec.ValidationError where it is no archive.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return msgspec.json.decode(content, type=Archive)


def load_or_refuse(path: Path) -> Archive:
    """`load` for a command line: raises click.BadParameter with the reason."""
    try:
        return load(path)
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
        raise click.BadParameter(f"{path}: {error}", param_hint="--data") from error


def expected_rows(archive: Archive) -> dict[int, EnrichedIssue]:
    """What the row of every issue must be, by issue number."""
    newest_update = max(issue.updated_at for issue in archive.issues)
    mentioned_by: defaultdict[str, list[PullRequest]] = defaultdict(list)
    for pull in archive.pulls:
        for digits in _digits_after_hash(pull.title) | _digits_after_hash(pull.body):
            mentioned_by[digits].append(pull)

    rows: dict[int, EnrichedIssue] = {}
    for issue in archive.issues:
        pulls = mentioned_by[str(issue.number)]
        open_for = (issue.closed_at or newest_update) - issue.created_at
        rows[issue.number] = EnrichedIssue(
            number=issue.number,
            title=issue.title,
            state=issue.state,
            labels=issue.labels,
            days_open=open_for.days,
            comments=len(issue.comments),
            participants=len({c.author for c in issue.comments} - {None}),
            last_activity=max([issue.created_at, *(c.created_at for c in issue.comments)]),
            pull_requests=len(pulls),
            merged_pull_requests=len([pull for pull in pulls if pull.merged_at]),
            reviews=sum(len(pull.reviews) for pull in pulls),
        )
    return rows


def _digits_after_hash(text: str) -> set[str]:
    """The run of digits behind each `#`: `"#12, #7th"` gives `{"12", "7"}`."""
    return {"".join(takewhile("0123456789".__contains__, part)) for part in text.split("#")[1:]} - {
        ""
    }
