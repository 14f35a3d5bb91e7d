"""`resolute dead ls`, `show`, `retry` and `drop`."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from resolute.cli.dead.hexdump import hex_lines
from resolute.cli.exits import Exit
from resolute.model.messages import Entry, Event
from resolute.status import EventKind
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer
from tests.cli.helpers import Cli
from tests.support.flows import chain
from tests.support.letters import bury, raws
from tests.support.stage import Stage

EVENT = msgspec.msgpack.encode(Event(EventKind.SETTLED, "r-1", seq=2))
Bury = Callable[..., str]


@pytest.fixture
def own(store: Store, server: EmbeddedServer) -> Cli:
    """A command line on the test's own namespace, which nobody serves."""
    return Cli(server.url, store.keys.meta.namespace)


@pytest.fixture
def bury_one(store: Store, runner: asyncio.Runner) -> Bury:
    """Makes a dead letter in the last partition; its id."""

    def made(raw: bytes = EVENT, queue: str = "", why: str = "no use") -> str:
        return runner.run(bury(store, store.keys.partitions[-1], queue, raw, why))

    return made


def test_letters_are_listed_with_what_they_were_for(own: Cli, bury_one: Bury):
    event = bury_one()
    garbage = bury_one(b"\xc1", "mail", "not\nan entry")
    rows = own("dead", "ls").stdout.splitlines()
    assert rows[0].split() == ["id", "buried", "origin", "run", "node", "why"]
    by_id = {row.split()[0]: row for row in rows[1:]}
    assert "inbox" in by_id[event] and "r-1" in by_id[event] and "no use" in by_id[event]
    assert "mail" in by_id[garbage] and "not an entry" in by_id[garbage]


def test_the_list_is_limited_and_says_so(own: Cli, bury_one: Bury):
    ids = [bury_one() for _ in range(3)]
    assert [row["id"] for row in own.json("dead", "ls", "--limit", "2")] == ids[:0:-1]
    assert "there may be more" in own("dead", "ls", "--limit", "2").stderr
    assert own("dead", "ls").stderr == ""


def test_no_letters_are_no_failure(own: Cli):
    assert own("dead", "ls").stderr == "no dead letters\n"
    assert own.json("dead", "ls") == []
    assert own.json("dead", "drop", "--all") == {"dropped": [], "unknown": []}


def test_a_letter_is_shown_with_its_content_and_its_bytes(own: Cli, bury_one: Bury):
    text = own("dead", "show", bury_one()).stdout
    for shown in ("no use", "inbox", "settled", "r-1", f"{len(EVENT)} bytes"):
        assert shown in text
    assert text.splitlines()[-1].endswith("|") and "00000000  " in text


def test_a_letter_that_cannot_be_read_is_shown_as_bytes(own: Cli, bury_one: Bury):
    text = own("dead", "show", bury_one(b"\xc1 [red]nonsense[/red]", "q")).stdout
    assert "cannot be read" in text
    assert "|. [red]nonsense[|" in text


def test_a_letter_as_json_has_its_bytes_in_base64(own: Cli, bury_one: Bury):
    data = own.json("dead", "show", bury_one())
    assert base64.b64decode(data["raw"]) == EVENT
    assert (data["run"], data["content"]["kind"], data["content"]["seq"]) == ("r-1", "settled", 2)


def test_the_raw_bytes_are_written_as_they_are(own: Cli, bury_one: Bury):
    raw = bytes(range(256)) * 40
    command = [str(Path(sys.executable).parent / "resolute"), "dead", "show", bury_one(raw, "q")]
    told = ["--raw", "--redis", own.url, "--namespace", own.namespace]
    assert subprocess.run([*command, *told], capture_output=True, check=True).stdout == raw


def test_of_a_large_letter_the_beginning_is_dumped(own: Cli, bury_one: Bury):
    text = own("dead", "show", bury_one(b"x" * 5000, "q")).stdout
    assert "… 904 more: --raw writes them all" in text
    assert "5,000 bytes" in text


def test_letters_are_retried_by_id(own: Cli, bury_one: Bury, store: Store, runner: asyncio.Runner):
    one, two = bury_one(b"1", "q"), bury_one(b"2", "q")
    assert own("dead", "retry", one).stdout == "1 dead letter retried\n"
    assert own.json("dead", "retry", two) == {"retried": [two], "unknown": []}
    stream = store.keys.partitions[-1].queue("q")
    assert runner.run(raws(store, stream)) == [b"1", b"2"]
    runner.run(store.execute("DEL", stream))


def test_letters_are_dropped_all_at_once(own: Cli, bury_one: Bury):
    ids = [bury_one() for _ in range(3)]
    assert own.json("dead", "drop", "--all") == {"dropped": ids, "unknown": []}
    assert own.json("dead", "ls") == []


def test_letters_that_are_not_there_are_named(own: Cli, bury_one: Bury):
    there = bury_one()
    outcome = own("dead", "drop", there, "0-1-0", code=Exit.UNKNOWN)
    assert outcome.stdout == "1 dead letter dropped\n"
    assert outcome.stderr == "error: no such dead letters: 0-1-0\n"
    data = own.json("dead", "retry", there, code=Exit.UNKNOWN)
    assert data == {"retried": [], "unknown": [there]}
    assert "no dead letter" in own("dead", "show", there, code=Exit.UNKNOWN).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("show",), ("show", "1700000000000-0"), ("retry",), ("drop",), ("retry", "run-1"),
        ("drop", "--all", "0-1-0"), ("show", "0-1-0", "--raw", "--json"), ("ls", "--limit", "0"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_was_not_asked_properly_is_refused(own: Cli, arguments: tuple[str, ...]):
    own("dead", *arguments, code=Exit.UNUSABLE)


def test_a_run_shows_what_of_it_is_a_dead_letter(own: Cli, stage: Stage, runner: asyncio.Runner):
    async def prepare() -> str:
        flow = chain("a", "b")
        await stage.begin_run(flow)
        entry = Entry("run", flow.plan_hash, 0, 1, 0, "1-x.0")
        raw = msgspec.msgpack.encode(entry)
        return await bury(stage.store, stage.of("run"), "q", raw, "damaged record")

    letter_id = runner.run(prepare())
    text = own("show", "run").stdout
    assert "a from q at" in text and "damaged record" in text
    assert f"resolute dead show {letter_id}" in text
    (letter,) = own.json("show", "run")["dead_letters"]
    assert (letter["id"], letter["node"]) == (letter_id, "a")


def test_without_a_command_it_says_which_there_are(own: Cli):
    text = own("dead").stdout
    assert all(f"  {name} " in text for name in ("ls", "show", "retry", "drop"))


def test_a_dump_has_sixteen_bytes_a_line():
    lines = list(hex_lines(bytes(range(48, 66)) + b"\xff"))
    assert lines[0] == (
        "00000000  30 31 32 33 34 35 36 37  38 39 3a 3b 3c 3d 3e 3f  |0123456789:;<=>?|"
    )
    assert lines[1].split() == ["00000010", "40", "41", "ff", "|@A.|"]
    assert list(hex_lines(b"")) == []
