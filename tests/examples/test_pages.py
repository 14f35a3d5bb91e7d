"""Asking for many issues in pages: in order, few at once, and again where a page fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from examples.enrich_issues import pages
from examples.enrich_issues.pages import ATTEMPTS, PAGES_AT_ONCE, in_pages


class Source:
    """Answers with the numbers it is asked for; the page that begins with n fails as often as
    `failures[n]` says."""

    def __init__(self, failures: dict[int, int] | None = None) -> None:
        self.asked: list[Sequence[int]] = []
        self.at_once = self.most_at_once = 0
        self._failures = dict(failures or {})

    async def fetch(self, numbers: Sequence[int]) -> Sequence[int]:
        self.asked.append(numbers)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self._failures.get(numbers[0], 0) > 0:
            self._failures[numbers[0]] -= 1
            raise httpx.ConnectError("refused")
        return numbers


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAUSE", 0)


def test_pages_hold_a_hundred_and_come_back_in_order() -> None:
    source = Source()
    assert asyncio.run(in_pages(range(1, 251), source.fetch)) == list(range(1, 251))
    assert [len(page) for page in source.asked] == [100, 100, 50]


def test_nothing_is_asked_about_no_issues() -> None:
    source = Source()
    assert asyncio.run(in_pages([], source.fetch)) == []
    assert source.asked == []


def test_only_few_pages_are_asked_for_at_once() -> None:
    source = Source()
    asyncio.run(in_pages(range(1000), source.fetch))
    assert source.most_at_once == PAGES_AT_ONCE


def test_a_page_that_fails_is_asked_for_again_and_the_others_are_not() -> None:
    source = Source(failures={100: ATTEMPTS - 1})
    assert asyncio.run(in_pages(range(300), source.fetch)) == list(range(300))
    assert len(source.asked) == 3 + ATTEMPTS - 1


def test_a_page_that_keeps_failing_fails_the_whole() -> None:
    source = Source(failures={0: ATTEMPTS})
    with pytest.raises(httpx.ConnectError):
        asyncio.run(in_pages(range(300), source.fetch))
