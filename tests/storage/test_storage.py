"""Objects by path: in a folder, in memory, and behind fsspec."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resolute import (
    ChecksumMismatch,
    ConfigurationError,
    ObjectMissing,
    PayloadTooLarge,
    Storage,
    StorageUnavailable,
)
from resolute.model.references import Stored
from resolute.storage import folder_name

DATA = b"some bytes" * 100


def local(folder: Path) -> Storage:
    return Storage(f"file://{folder}")


def remote(folder: Path) -> Storage:
    """The same folder, by way of fsspec."""
    return Storage(f"local://{folder}")


def memory(_: Path) -> Storage:
    return Storage("memory://")


EVERY = pytest.mark.parametrize("make", [local, remote, memory])
ON_DISK = pytest.mark.parametrize("make", [local, remote])
Make = Callable[[Path], Storage]


def only_file(folder: Path) -> Path:
    (found,) = [path for path in folder.rglob("*-*") if path.is_file() and "run" in path.parts]
    return found


@EVERY
def test_what_was_written_is_read(make: Make, tmp_path: Path):
    storage = make(tmp_path)
    stored = storage.write("ns/run", "1.0", DATA)
    assert stored.path.startswith("ns/run/1.0-")
    assert stored.size == len(DATA)
    assert storage.read(stored) == DATA


@EVERY
def test_two_objects_of_one_name_are_two(make: Make, tmp_path: Path):
    storage = make(tmp_path)
    one, two = storage.write("ns/run", "1.0", b"one"), storage.write("ns/run", "1.0", b"two")
    assert (storage.read(one), storage.read(two)) == (b"one", b"two")


@EVERY
def test_a_folder_is_deleted_with_all_in_it_and_no_other(make: Make, tmp_path: Path):
    storage = make(tmp_path)
    gone = [storage.write("ns/run", f"{n}.0", DATA) for n in range(3)]
    kept = storage.write("ns/run2", "1.0", DATA)
    storage.delete("ns/run")
    storage.delete("ns/run")
    for stored in gone:
        with pytest.raises(ObjectMissing, match="deleted with its run"):
            storage.read(stored)
    assert storage.read(kept) == DATA


@EVERY
def test_one_object_is_deleted(make: Make, tmp_path: Path):
    storage = make(tmp_path)
    gone, kept = storage.write("ns/run", "1.0", DATA), storage.write("ns/run", "2.0", DATA)
    storage.delete(gone.path)
    with pytest.raises(ObjectMissing):
        storage.read(gone)
    assert storage.read(kept) == DATA


@ON_DISK
def test_a_turned_bit_is_found(make: Make, tmp_path: Path):
    storage = make(tmp_path)
    stored = storage.write("ns/run", "1.0", DATA)
    only_file(tmp_path).write_bytes(b"S" + DATA[1:])
    with pytest.raises(ChecksumMismatch, match=f"SHA-256 {stored.sha256}"):
        storage.read(stored)


@ON_DISK
@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"!", DATA * 50])
def test_another_size_is_found(make: Make, tmp_path: Path, data: bytes):
    storage = make(tmp_path)
    stored = storage.write("ns/run", "1.0", DATA)
    only_file(tmp_path).write_bytes(data)
    with pytest.raises(ChecksumMismatch, match=f"{len(DATA):,} bytes"):
        storage.read(stored)


def test_a_folder_has_no_half_object_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StorageUnavailable, match="No space left"):
        local(tmp_path).write("ns/run", "1.0", DATA)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "run" in path.parts] == []


def test_a_folder_that_is_not_mounted_has_lost_nothing(tmp_path: Path):
    storage = local(tmp_path / "mount")
    stored = storage.write("ns/run", "1.0", DATA)
    (tmp_path / "mount").rename(tmp_path / "away")
    (tmp_path / "mount").mkdir()
    with pytest.raises(StorageUnavailable, match="not mounted"):
        storage.read(stored)
    with pytest.raises(StorageUnavailable, match="not mounted"):
        storage.delete("ns/run")


def test_more_than_the_most_is_refused_with_both_sizes(tmp_path: Path):
    storage = Storage(str(tmp_path), max_stored=99)
    with pytest.raises(PayloadTooLarge, match="100 bytes is over the limit of 99"):
        storage.write("ns/run", "1.0", bytes(100))


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a//b", "a/./b", "a\\b", "", "a\0b"])
def test_no_path_leads_out_of_the_root(path: str, tmp_path: Path):
    storage = local(tmp_path / "root")
    with pytest.raises(ValueError, match="below the storage's root"):
        storage.read(Stored(path, 1, "0" * 64))
    with pytest.raises(ValueError, match="below the storage's root"):
        storage.delete(path)


@pytest.mark.parametrize("flow_id", ["run", "..", ".", "x" * 200, "order:1/~3", "a@b/child.1"])
@pytest.mark.parametrize("namespace", ["ns", "..", "a/b"])
def test_every_run_has_a_folder_that_is_a_path(namespace: str, flow_id: str, tmp_path: Path):
    folder = folder_name(namespace, flow_id)
    assert folder != folder_name(namespace, flow_id)
    assert folder.count("/") == 1
    storage = local(tmp_path)
    assert storage.read(storage.write(folder, "1.0", DATA)) == DATA
    storage.delete(folder)
    assert (tmp_path / folder).parent.is_dir()


def test_without_fsspec_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    real = builtins.__import__

    def without(name: str, *arguments: Any, **others: Any) -> Any:
        if name == "fsspec":
            raise ImportError(name)
        return real(name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r'pip install "resolute\[storage\]"') as caught:
        Storage("s3://user:hush@bucket/prefix")
    assert "hush" not in str(caught.value)
    assert local(tmp_path).write("ns/run", "1.0", DATA).size == len(DATA)


@pytest.mark.parametrize("url", ["nonsense://user:hush@host/x", "file://", "file://relative/x"])
def test_an_unusable_url_is_refused_without_its_secrets(url: str):
    with pytest.raises(ConfigurationError, match="storage") as caught:
        Storage(url)
    assert "hush" not in str(caught.value)


def test_no_secret_is_shown():
    storage = Storage("memory://user:hush@name?key=hush")
    assert "hush" not in repr(storage)
    assert "hush" not in storage.where


def test_another_process_can_be_told_of_it(tmp_path: Path):
    told = Storage(f"local://{tmp_path}", max_stored=5000, auto_mkdir=True).told()
    there = Storage.from_told(told)
    assert there.max_stored == 5000
    assert there.read(there.write("ns/run", "1.0", DATA)) == DATA


def test_an_option_that_cannot_be_told_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="plain data"):
        Storage(f"local://{tmp_path}", listings_expiry_time=object()).told()


def test_a_folder_takes_no_options(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="takes no options, got key"):
        Storage(str(tmp_path), key="x")
