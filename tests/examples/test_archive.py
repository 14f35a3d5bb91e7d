"""The issue archive: what loads, and what its rows must be."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from examples.enrich_issues.archive import SAMPLE, Archive, expected_rows, load
from examples.enrich_issues.enrichment import EnrichedIssue

ISSUE: dict[str, Any] = {
    "number": 1,
    "title": "It hangs",
    "state": "CLOSED",
    "author": "ada",
    "labels": ["bug", "p1"],
    "body": "Now and then.",
    "createdAt": "2026-03-01T09:00:00Z",
    "updatedAt": "2026-03-09T09:00:00Z",
    "closedAt": "2026-03-04T08:59:59Z",
    "comments": [],
}
PULL: dict[str, Any] = {
    "number": 100,
    "title": "Stop hanging",
    "state": "MERGED",
    "author": "bob",
    "labels": [],
    "body": "Fixes #1.",
    "createdAt": "2026-03-02T09:00:00Z",
    "mergedAt": "2026-03-03T09:00:00Z",
    "comments": [],
    "reviews": [],
}


def comment(author: str | None, created_at: str) -> dict[str, Any]:
    return {"author": author, "body": "Same here.", "createdAt": created_at}


def review(state: str) -> dict[str, Any]:
    return {"author": "eve", "state": state, "createdAt": "2026-03-02T10:00:00Z"}


def archive(issues: list[dict[str, Any]], pulls: list[dict[str, Any]]) -> Archive:
    return msgspec.convert({"issues": issues, "pulls": pulls}, Archive, strict=False)


def row(issue: dict[str, Any], *pulls: dict[str, Any]) -> EnrichedIssue:
    return expected_rows(archive([issue], list(pulls)))[issue["number"]]


def test_an_issue_that_nobody_touched_was_last_active_when_opened() -> None:
    assert row(ISSUE) == EnrichedIssue(
        number=1,
        title="It hangs",
        state="CLOSED",
        labels=("bug", "p1"),
        days_open=2,
        comments=0,
        participants=0,
        last_activity=datetime(2026, 3, 1, 9, tzinfo=UTC),
        pull_requests=0,
        merged_pull_requests=0,
        reviews=0,
    )


def test_an_open_issue_is_as_old_as_the_newest_update_of_the_archive() -> None:
    still_open = ISSUE | {"state": "OPEN", "closedAt": None}
    newer = ISSUE | {"number": 2, "updatedAt": "2026-03-31T09:00:00Z"}
    assert expected_rows(archive([still_open, newer], []))[1].days_open == 30


def test_a_deleted_account_comments_but_is_no_participant() -> None:
    comments = [
        comment("ada", "2026-03-02T00:00:00Z"),
        comment(None, "2026-03-05T00:00:00Z"),
        comment("ada", "2026-03-03T00:00:00Z"),
        comment("bob", "2026-03-04T00:00:00Z"),
    ]
    discussed = row(ISSUE | {"comments": comments})
    assert (discussed.comments, discussed.participants) == (4, 2)
    assert discussed.last_activity == datetime(2026, 3, 5, tzinfo=UTC)


def test_merged_and_reviews_count_over_all_pull_requests_that_name_the_issue() -> None:
    merged = PULL | {"reviews": [review("CHANGES_REQUESTED"), review("APPROVED")]}
    given_up = PULL | {"mergedAt": None, "state": "CLOSED", "reviews": [review("COMMENTED")]}
    unrelated = PULL | {"body": "Typo.", "reviews": [review("APPROVED")]}
    named = row(ISSUE, merged, given_up, unrelated)
    assert (named.pull_requests, named.merged_pull_requests, named.reviews) == (2, 1, 3)


@pytest.mark.parametrize(
    "body",
    ["#1", "Fixes #1.", "(#1)", "#1, #2", "#1 and again #1", "see\r\n#1\r\n", "##1", "a#1"],
)
def test_a_pull_request_names_an_issue_once(body: str) -> None:
    assert row(ISSUE, PULL | {"body": body}).pull_requests == 1


def test_the_title_of_a_pull_request_counts_too() -> None:
    assert row(ISSUE, PULL | {"title": "#1: no more hangs", "body": ""}).pull_requests == 1


@pytest.mark.parametrize("body", ["", "#12", "#10", "# 1", "1", "#01", "#", "issue 1"])
def test_a_longer_number_or_none_is_no_mention(body: str) -> None:
    assert row(ISSUE, PULL | {"body": body}).pull_requests == 0


def test_an_archive_loads_from_plain_and_from_compressed_json(tmp_path: Path) -> None:
    content = msgspec.json.encode({"source": "a test", "issues": [ISSUE], "pulls": [PULL]})
    plain, compressed = tmp_path / "archive.json", tmp_path / "archive.json.gz"
    plain.write_bytes(content)
    compressed.write_bytes(gzip.compress(content))
    assert load(plain) == load(compressed) == archive([ISSUE], [PULL])


def test_an_archive_without_issues_or_with_a_date_without_a_zone_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        archive([], [PULL])
    with pytest.raises(msgspec.ValidationError):
        archive([ISSUE | {"createdAt": "2026-03-01T09:00:00"}], [])


def test_the_sample_covers_what_an_archive_can_hold() -> None:
    sample = load(SAMPLE)
    rows = expected_rows(sample)
    numbers = [item.number for item in (*sample.issues, *sample.pulls)]

    assert len(numbers) == len(set(numbers))
    assert {issue.state for issue in sample.issues} == {"OPEN", "CLOSED"}
    assert all((issue.closed_at is None) == (issue.state == "OPEN") for issue in sample.issues)
    assert any(issue.author is None for issue in sample.issues)
    assert any(c.author is None for issue in sample.issues for c in issue.comments)
    assert {pull.state for pull in sample.pulls} == {"OPEN", "CLOSED", "MERGED"}
    assert {r.state for p in sample.pulls for r in p.reviews} == {
        "APPROVED",
        "CHANGES_REQUESTED",
        "COMMENTED",
    }
    assert any(row.pull_requests > row.merged_pull_requests for row in rows.values())
    assert any(row.pull_requests == 0 for row in rows.values())


def test_nothing_in_the_sample_happens_before_it_was_opened_or_after_the_last_update() -> None:
    sample = load(SAMPLE)
    for issue in sample.issues:
        moments = [c.created_at for c in issue.comments]
        assert moments == sorted(moments), issue.number
        moments += [issue.closed_at] if issue.closed_at else []
        assert all(issue.created_at <= m <= issue.updated_at for m in moments), issue.number
    for pull in sample.pulls:
        moments = [r.created_at for r in pull.reviews]
        moments += [pull.merged_at] if pull.merged_at else []
        assert all(pull.created_at <= m <= sample.as_of for m in moments), pull.number
