"""Errors as they are raised, described and stored."""

from __future__ import annotations

import msgspec
import pytest

from resolute.errors import LONGEST_PAUSE, MESSAGE_LIMIT, TRACEBACK_LIMIT, ErrorInfo, RetryAfter


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_retry_after_takes_no_time_that_is_none(seconds: float):
    with pytest.raises(ValueError, match="expected 0 or more seconds"):
        RetryAfter(seconds)


@pytest.mark.parametrize("seconds", [1e12, float("inf")])
def test_retry_after_is_at_most_thirty_days(seconds: float):
    assert RetryAfter(seconds).seconds == LONGEST_PAUSE


def test_a_long_error_keeps_its_beginning_and_its_end():
    info = ErrorInfo.of(ValueError("begin" + "x" * 100_000 + "end"), "node")
    assert info.message.startswith("begin")
    assert info.message.endswith("end")
    assert "characters left out" in info.message
    assert len(info.message) < MESSAGE_LIMIT + 100
    assert len(info.traceback) < TRACEBACK_LIMIT + 100


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, RuntimeError])
def test_an_error_whose_text_cannot_be_had_can_be_described(raised: type[BaseException]):
    class Rude(Exception):
        def __str__(self) -> str:
            raise raised

    info = ErrorInfo.of(Rude())
    assert info.type == "Rude"
    assert raised.__name__ in info.message


def test_an_error_that_is_no_unicode_can_be_stored():
    info = ErrorInfo.of(ValueError("\ud800"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(info), type=ErrorInfo) == info
