"""The header of a script is its contract: what the wrappers send is what it says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from resolute.store import (
    claims,
    cursors,
    dead,
    ended,
    folders,
    limits,
    nodes,
    places,
    registry,
    runs,
    transitions,
)
from resolute.store.script import Item, load_script
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer
from tests.support.monitor import watched
from tests.support.tour import tour

LUA = files("resolute.store") / "lua"
SCRIPTS = sorted(
    path.name.removesuffix(".lua")
    for path in LUA.iterdir()
    if path.name.endswith(".lua") and not path.name.startswith("lib_")
)
ITEMS: dict[str, type[Item]] = {
    "start_flow": runs.StartItem,
    "debounce_flow": claims.DebounceItem,
    "cancel_flow": runs.CancelItem,
    "begin_nodes": nodes.BeginItem,
    "complete_nodes": nodes.CompleteItem,
    "fail_nodes": nodes.FailItem,
    "store_items": nodes.StoreItem,
    "turn_page": nodes.PageItem,
    "keep_progress": nodes.ProgressItem,
    "return_nodes": nodes.ReturnItem,
    "reclaim_nodes": nodes.ReclaimItem,
    "commit_transition": transitions.CommitItem,
    "release_due": transitions.ReleaseItem,
    "fire_timers": transitions.FireItem,
    "signal_flow": runs.SignalItem,
    "drop_flows": transitions.IndexedItem,
    "list_ended": ended.EndedItem,
    "open_folder": folders.FolderItem,
    "judge_folders": folders.JudgeItem,
    "unlist_flows": transitions.IndexedItem,
    "save_cursor": cursors.CursorItem,
    "trim_turns": transitions.TrimItem,
    "take_tokens": limits.TokenItem,
    "take_places": places.PlaceItem,
    "leave_places": places.LeaveItem,
    "wake_nodes": places.WakeItem,
    "beat": registry.BeatItem,
    "end_leases": registry.LeaseItem,
    "note_health": registry.HealthItem,
    "bury_entries": dead.BuryItem,
    "remove_letters": dead.LetterItem,
}
ADMITS_NEW_WORK = {"start_flow", "retry_flow", "debounce_flow"}


def text_of(name: str) -> str:
    return (LUA / f"{name}.lua").read_text("utf-8")


def common_of(name: str) -> list[str]:
    """The names of the values in the first argument."""
    match = re.search(r"^-- ARGV common: ([^(\n]*)", text_of(name), re.MULTILINE)
    assert match is not None, f"{name} does not say what its first argument is"
    return match[1].split()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_takes_and_what_it_answers(name: str):
    header = text_of(name)
    for label in ("KEYS", "ARGV", "RETURNS"):
        assert re.search(rf"^-- {label} ", header, re.MULTILINE), f"{name} has no {label} line"


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_item_has_the_fields_that_the_script_names_in_their_order(name: str):
    item = ITEMS.get(name)
    declared = load_script(name).item
    assert (item.__struct_fields__ if item else ()) == declared


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_finishes_work_in_a_full_memory_but_begins_none(name: str):
    shebang = text_of(name).partition("\n")[0]
    assert ("allow-oom" in shebang) == (name not in ADMITS_NEW_WORK)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_includes_only_what_is_there_and_one_level_deep(name: str):
    for include in re.findall(r"^-- @include (\w+)$", text_of(name), re.MULTILINE):
        assert not re.search(r"^-- @include", text_of(f"lib_{include}"), re.MULTILINE)


def test_a_script_s_version_is_its_text_with_all_that_it_includes():
    script = load_script("begin_nodes")
    assert "local function load_node" in script.source
    assert "local NODE_RUNNING = 'running'" in script.source
    assert script.sha == load_script("begin_nodes").sha
    assert len({load_script(name).sha for name in SCRIPTS}) == len(SCRIPTS)


def test_no_script_is_read_when_it_is_called(monkeypatch: pytest.MonkeyPatch):
    """By then the files may be those of another release, or no descriptor may be left."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "open", refuse)
    assert load_script.__wrapped__("begin_nodes") == load_script("begin_nodes")


class Call(msgspec.Struct):
    """A call of a script as it was sent."""

    script: str
    keys: list[str]
    common: bytes
    arguments: list[Any]


class Recording(Store):
    """Remembers what scripts are called with."""

    calls: list[Call]

    async def call(
        self, name: str, keys: Sequence[str], common: bytes, arguments: Sequence[Any] = ()
    ) -> Any:
        self.calls.append(Call(name, list(keys), common, list(arguments)))
        return await super().call(name, keys, common, arguments)


@pytest.fixture
def recording(store: Store) -> Recording:
    """The test's store, remembering its calls."""
    made = Recording(store.link, store.keys, store.patience)
    made.calls = []
    return made


async def test_the_tour_calls_every_script_as_its_header_says(recording: Recording):
    await tour(recording)
    assert {call.script for call in recording.calls} == set(SCRIPTS)
    for call in recording.calls:
        script = load_script(call.script)
        if call.script != "apply_writes":  # its first argument is as long as the list of commands
            common = msgspec.msgpack.decode(call.common)
            assert len(common) == len(common_of(call.script)), call.script
        assert len(call.keys) >= len(script.keys)
        check_fixed_keys(recording, call, script.keys)
        check_items(call, script.item, script.blobs)


def check_fixed_keys(store: Store, call: Call, names: Sequence[str]) -> None:
    """The keys in front are those that the header names."""
    meta = store.keys.meta
    known = {
        name: {getattr(meta, name)}
        for name in ("beats", "processes", "ticks", "departed", "version")
    }
    for name in ("inbox", "stats", "timers", "open", "dead", "folders", "claims"):
        known[name] = {getattr(partition, name) for partition in store.keys.partitions}
    known["due"] = {partition.folders_due for partition in store.keys.partitions}
    for key, name in zip(call.keys, names, strict=False):
        if name in known:
            assert key in known[name], f"{call.script}: {key} is not {name}"
        elif name == "stream":
            assert key in known["inbox"] or ":q:" in key, f"{call.script}: {key} is no stream"


def blobs_after(call: Call, item: Sequence[Any], blobs: Sequence[str]) -> int:
    """How many blobs follow an item; of some scripts the item says it."""
    match call.script:
        case "commit_transition":
            return len(item[7])
        case "store_items":
            return item[-1]
        case _:
            return len(blobs)


def check_items(call: Call, fields: Sequence[str], blobs: Sequence[str]) -> None:
    """Each item has its fields and its blobs behind it; what ends in _key is a place in KEYS."""
    at = 0
    while fields and at < len(call.arguments):
        item = msgspec.msgpack.decode(call.arguments[at])
        assert len(item) == len(fields), call.script
        for name, value in zip(fields, item, strict=True):
            if name.endswith("_key"):
                assert 1 <= value <= len(call.keys), f"{call.script}: {name}"
        at += 1 + blobs_after(call, item, blobs)
    assert at == len(call.arguments) or not fields


async def test_a_script_touches_only_keys_that_it_declares(store: Store, server: EmbeddedServer):
    async with watched(store, server) as calls:
        await tour(store)
    assert {call.script for call in calls} == set(SCRIPTS)
    for call in calls:
        assert call.touched, call.script
        assert call.touched <= call.declared, call.script


async def test_no_script_touches_two_slots(store: Store, server: EmbeddedServer):
    """On a cluster that would be refused."""
    async with watched(store, server) as calls:
        await tour(store)
    for call in calls:
        tags = {key[key.index("{") : key.index("}")] for key in call.declared}
        assert len(tags) == 1, f"{call.script}: {tags}"
