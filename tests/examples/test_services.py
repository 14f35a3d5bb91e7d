"""The three services: what they answer, which calls fail, and how many they admit."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette

from examples.enrich_issues.archive import SAMPLE, Archive, expected_rows, load
from examples.enrich_issues.enrichment import (
    EnrichedIssue,
    chat_data,
    merge,
    pull_request_data,
    tracker_data,
)
from examples.enrich_issues.services import ALLOWED, build_app
from examples.enrich_issues.unreliable import Conditions, RateAllowed, TokenBucket
from examples.enrich_issues.wire import (
    Batch,
    IssueList,
    IssueSummary,
    Mentions,
    ServiceStats,
    Thread,
    TrackedIssue,
)

GENEROUS = RateAllowed(per_second=1000, burst=100_000)


class FakeClock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Services:
    """The app, called without a network."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def get(self, *paths: str) -> list[httpx.Response]:
        return self._call([("GET", path, b"") for path in paths])

    def post(self, path: str, content: bytes = b"") -> httpx.Response:
        return self._call([("POST", path, content)])[0]

    def statuses(self, path: str, calls: int) -> list[int]:
        return [response.status_code for response in self.get(*[path] * calls)]

    def stats(self) -> dict[str, ServiceStats]:
        return msgspec.json.decode(self.get("/stats")[0].content, type=dict[str, ServiceStats])

    def _call(self, requests: list[tuple[str, str, bytes]]) -> list[httpx.Response]:
        async def call() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return [await client.request(m, path, content=body) for m, path, body in requests]

        return asyncio.run(call())


def numbers(*numbers: int) -> bytes:
    return msgspec.json.encode({"numbers": numbers})


@pytest.fixture(scope="module")
def archive() -> Archive:
    return load(SAMPLE)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def serve(
    archive: Archive,
    clock: FakeClock,
    *,
    allowed: RateAllowed = GENEROUS,
    error_rate: float = 0.0,
    seed: int = 1,
) -> Services:
    conditions = Conditions(allowed, error_rate=error_rate, seed=seed)
    return Services(build_app(archive, dict.fromkeys(ALLOWED, conditions), clock))


def test_the_answers_one_by_one_make_the_expected_rows(archive: Archive, clock: FakeClock) -> None:
    services = serve(archive, clock)

    def enriched(number: int) -> EnrichedIssue:
        def get(path: str, kind: Any) -> Any:
            return msgspec.json.decode(services.get(path)[0].content, type=kind)

        return merge(
            get(f"/tracker/issues/{number}/summary", IssueSummary),
            tracker_data(get(f"/tracker/issues/{number}", TrackedIssue)),
            chat_data(get(f"/chat/issues/{number}", Thread)),
            pull_request_data(get(f"/pulls/issues/{number}", Mentions)),
        )

    expected = expected_rows(archive)
    assert {number: enriched(number) for number in expected} == expected


def test_the_answers_in_batches_make_the_expected_rows(archive: Archive, clock: FakeClock) -> None:
    services = serve(archive, clock)
    issues = msgspec.json.decode(services.get("/tracker/issues")[0].content, type=IssueList).issues
    body = numbers(*(issue.number for issue in issues))

    def post(path: str, kind: Any) -> Any:
        content = services.post(path, body).content
        return msgspec.json.decode(content, type=kind).items

    answers = zip(
        issues,
        post("/tracker/issues/batch", Batch[TrackedIssue]),
        post("/chat/issues/batch", Batch[Thread]),
        post("/pulls/issues/batch", Batch[Mentions]),
        strict=True,
    )
    rows = {
        issue.number: merge(issue, tracker_data(t), chat_data(c), pull_request_data(p))
        for issue, t, c, p in answers
    }
    assert rows == expected_rows(archive)


@pytest.mark.parametrize("service", list(ALLOWED))
def test_an_unknown_issue_is_not_found(service: str, archive: Archive, clock: FakeClock) -> None:
    services = serve(archive, clock)
    assert services.statuses(f"/{service}/issues/9999", 1) == [404]
    batch = services.post(f"/{service}/issues/batch", numbers(9999))
    assert (batch.status_code, batch.text) == (404, "there is no issue 9999")


@pytest.mark.parametrize("body", [b'{"numbers": ["x"]}', b"{", b"\xff"])
def test_a_batch_that_cannot_be_read_is_refused(
    body: bytes, archive: Archive, clock: FakeClock
) -> None:
    services = serve(archive, clock)
    assert services.post("/chat/issues/batch", body).status_code == 422


def test_a_batch_of_more_than_a_hundred_is_refused(archive: Archive, clock: FakeClock) -> None:
    services = serve(archive, clock)
    first = archive.issues[0].number
    assert services.post("/pulls/issues/batch", numbers(*[first] * 100)).is_success
    assert services.post("/pulls/issues/batch", numbers(*[first] * 101)).status_code == 422


def test_which_calls_fail_depends_on_the_seed_alone(archive: Archive, clock: FakeClock) -> None:
    path = f"/chat/issues/{archive.issues[0].number}"

    def outcome(seed: int) -> list[int]:
        return serve(archive, clock, error_rate=0.3, seed=seed).statuses(path, 60)

    assert outcome(7) == outcome(7)
    assert outcome(7) != outcome(8)


def test_calls_of_other_paths_do_not_change_which_calls_fail(
    archive: Archive, clock: FakeClock
) -> None:
    path, other = (f"/chat/issues/{issue.number}" for issue in archive.issues[:2])
    alone = serve(archive, clock, error_rate=0.3).statuses(path, 40)
    services = serve(archive, clock, error_rate=0.3)
    mixed: list[int] = []
    for _ in range(40):
        mixed += services.statuses(path, 1)
        services.statuses(other, 3)
    assert mixed == alone


def test_even_the_worst_service_fails_only_twice_in_a_row(
    archive: Archive, clock: FakeClock
) -> None:
    services = serve(archive, clock, error_rate=1.0)
    path = f"/pulls/issues/{archive.issues[0].number}"
    assert services.statuses(path, 6) == [503, 503, 200, 503, 503, 200]


def test_the_error_rate_is_about_the_one_asked_for(archive: Archive, clock: FakeClock) -> None:
    services = serve(archive, clock, error_rate=0.1)
    for issue in archive.issues:
        services.statuses(f"/chat/issues/{issue.number}", 50)
    seen = services.stats()["chat"]
    assert 0.08 < seen.http_503 / seen.calls < 0.12


def test_a_call_over_the_limit_is_told_when_to_come_back(
    archive: Archive, clock: FakeClock
) -> None:
    services = serve(archive, clock, allowed=RateAllowed(per_second=0.25, burst=3))
    path = f"/chat/issues/{archive.issues[0].number}"
    assert services.statuses(path, 3) == [200, 200, 200]
    [refused] = services.get(path)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "4")
    clock.now += 4
    assert services.statuses(path, 2) == [200, 429]


def test_each_service_has_a_limit_of_its_own(archive: Archive, clock: FakeClock) -> None:
    services = serve(archive, clock, allowed=RateAllowed(per_second=1, burst=2))
    first = archive.issues[0].number
    assert services.statuses(f"/chat/issues/{first}", 3) == [200, 200, 429]
    assert services.statuses(f"/pulls/issues/{first}", 3) == [200, 200, 429]


def test_a_refused_call_does_not_change_which_calls_fail(
    archive: Archive, clock: FakeClock
) -> None:
    path = f"/chat/issues/{archive.issues[0].number}"
    calm = serve(archive, clock, error_rate=0.3).statuses(path, 30)
    services = serve(archive, clock, error_rate=0.3, allowed=RateAllowed(per_second=1, burst=1))
    hurried: list[int] = []
    for _ in range(30):
        assert services.statuses(path, 2) in ([calm[len(hurried)], 429],)
        hurried.append(calm[len(hurried)])
        clock.now += 1
    assert hurried == calm


def test_a_bucket_never_holds_more_than_its_burst(clock: FakeClock) -> None:
    bucket = TokenBucket(RateAllowed(per_second=10, burst=2), clock)
    clock.now += 3600
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, pytest.approx(0.1)]


def test_stats_count_every_call_and_every_refusal(archive: Archive, clock: FakeClock) -> None:
    services = serve(archive, clock, error_rate=1.0, allowed=RateAllowed(per_second=1, burst=3))
    services.statuses(f"/chat/issues/{archive.issues[0].number}", 5)
    seen = services.stats()
    assert (seen["chat"].calls, seen["chat"].http_503, seen["chat"].http_429) == (5, 2, 2)
    assert seen["tracker"].calls == seen["pulls"].calls == 0


def test_the_peak_is_the_most_calls_within_one_second(archive: Archive, clock: FakeClock) -> None:
    services = serve(archive, clock)
    path = f"/chat/issues/{archive.issues[0].number}"
    for calls in (2, 3, 1):
        services.statuses(path, calls)
        clock.now += 0.6
    assert services.stats()["chat"].peak == 5


def test_posting_to_stats_takes_them_and_begins_anew(archive: Archive, clock: FakeClock) -> None:
    services = serve(archive, clock)
    services.statuses(f"/chat/issues/{archive.issues[0].number}", 4)
    taken = msgspec.json.decode(services.post("/stats").content, type=dict[str, ServiceStats])
    assert taken["chat"].calls == taken["chat"].peak == 4
    assert services.stats()["chat"].calls == services.stats()["chat"].peak == 0
