"""Names: of runs, of processes, and the random parts that make a counter unrepeatable."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import socket
from collections.abc import Iterator
from typing import cast

RETRY = "/~"  # and a number: behind the id of a run, that of a retry of it

_RUN_ID = re.compile(r"[A-Za-z0-9._:@-]{1,200}")
_RETRIED = re.compile(r"/~[0-9]+\Z")
_NAME = re.compile(r"[A-Za-z0-9._:@-]{1,100}")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"

EXPECTED_RUN_ID = "1 to 200 characters of A-Z a-z 0-9 . _ : @ -"
EXPECTED_NAME = "1 to 100 characters of A-Z a-z 0-9 . _ : @ -"


def check_run_id(value: str) -> str:
    """`value` if a user may give it to a run. Raises ValueError otherwise."""
    if not isinstance(cast("object", value), str) or not _RUN_ID.fullmatch(value):
        raise ValueError(f"run id: expected {EXPECTED_RUN_ID}, got {value!r}")
    return value


def check_name(kind: str, value: str) -> str:
    """`value` if it can name a flow, node, queue or limiter. Raises ValueError otherwise."""
    if not isinstance(cast("object", value), str) or not _NAME.fullmatch(value):
        raise ValueError(f"{kind}: expected {EXPECTED_NAME}, got {value!r}")
    return value


def check_queue(value: str) -> str:
    """`value` if it can name a queue: like any name, but streams are named after queue@plan."""
    if isinstance(cast("object", value), str) and "@" in value:
        raise ValueError(f"queue: expected a name without @, got {value!r}")
    return check_name("queue", value)


def new_run_id() -> str:
    """A random run id of 20 characters: 100 bits."""
    return random_text(20)


def random_text(length: int) -> str:
    """`length` characters of 5 bits of entropy each."""
    bits = secrets.randbits(5 * length)
    return "".join(_ALPHABET[(bits >> (5 * i)) & 31] for i in range(length))


def root_of(flow_id: str) -> str:
    """The id of the family: a child's id is ``<root>/<step>.<n>``."""
    return flow_id.partition("/")[0]


def parent_of(flow_id: str) -> str:
    """The id of the run that started this one; '' where a client, a schedule or a retry did."""
    parent, slash, own = flow_id.rpartition("/")
    return parent if slash and not own.startswith("~") else ""


def retried_by(flow_id: str) -> str:
    """The id after which retries of this run are numbered: of a retry, that of the run it is of.

    What is behind a retry's own number is another run, which it has started.
    """
    return _RETRIED.sub("", flow_id)


def check_retry(number: int) -> int:
    """`number` if it can be that of a retry. Raises ValueError otherwise."""
    if type(number) is not int or number < 1:
        raise ValueError(f"retry: expected a number of 1 or more, got {number!r}")
    return number


def runs_above(flow_id: str) -> list[str]:
    """The runs that an id says it is a child or a retry of, the nearest first."""
    parts = flow_id.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def process_name(pid: int | None = None) -> str:
    """A name for one incarnation of a process, never used twice: host, pid and a random part.

    Of this process, or of the one with that `pid`.
    """
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60] or "host"
    return f"{host}:{pid or os.getpid()}:{random_text(8)}"


def nonces() -> Iterator[str]:
    """Texts that no other process and no earlier moment of this one ever made.

    After a Redis lost its last second, counters in it repeat; what carries a nonce does not.
    """
    base = random_text(6)
    return (base + base36(count) for count in itertools.count())


def base36(number: int) -> str:
    """A non-negative number in 36 digits."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _ALPHABET[digit] + digits
        if not number:
            return digits
