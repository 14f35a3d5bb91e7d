"""Imports go down only: the layers of the design, held by reading every import in the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import resolute

PACKAGE = Path(resolute.__file__).parent
WORKER = PACKAGE.parent / "worker" / "resolute_worker"

VOCABULARY, MODEL, STORE, ENGINE, SURFACE, PROGRAM = range(6)
LAYERS = {
    "errors": VOCABULARY,
    "clock": VOCABULARY,
    "ids": VOCABULARY,
    "durability": VOCABULARY,
    "durations": VOCABULARY,
    "options": VOCABULARY,
    "priority": VOCABULARY,
    "status": VOCABULARY,
    "model": MODEL,
    "storage": STORE,
    "store": STORE,
    "engine": ENGINE,
    "client": SURFACE,
    "coordinator": SURFACE,
    "testing": SURFACE,
    "http": SURFACE,
    "web": SURFACE,
    "daemon": SURFACE,
    "sync": SURFACE,
    "cli": PROGRAM,
}
# Who imports `resolute` itself imports all that it exports.
FACADE = SURFACE

STORAGE_CLIENTS = {"fsspec", "s3fs", "gcsfs"}
REDIS_CLIENTS = {"redis", "hiredis", "valkey"}
IO_MODULES = {
    "asyncio", "concurrent", "fcntl", "http", "multiprocessing", "os", "pathlib", "random",
    "select", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time",
    "urllib", "uvloop", *REDIS_CLIENTS, *STORAGE_CLIENTS,
}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports: at its top, in functions, under TYPE_CHECKING, by name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, f"{path}: a relative import hides its layer"
                assert module is not None
                yield module
                # `from resolute import store` names a module, `from resolute import Client` not.
                yield from (f"{module}.{alias.name}" for alias in names if module == "resolute")
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(str(name))]):
                yield name
            case _:
                pass


def layer_of(module: str) -> int | None:
    """The layer of something imported; None where it is not ours."""
    top, _, rest = module.partition(".")
    if top == "resolute_worker":
        return PROGRAM
    if top != "resolute":
        return None
    return LAYERS.get(rest.partition(".")[0], FACADE)


def name_of(path: Path) -> str:
    """The dotted name of a source file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
WORKER_SOURCES = sorted(WORKER.rglob("*.py"))


def file_id(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=file_id)
def test_a_module_imports_nothing_from_a_layer_above_its_own(path: Path):
    own = layer_of(name_of(path))
    assert own is not None
    above = {
        name for name in imports(path) if (layer := layer_of(name)) is not None and layer > own
    }
    assert not above


def test_every_module_belongs_to_a_layer():
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES}
    assert found - LAYERS.keys() == set()


@pytest.mark.parametrize("path", SOURCES, ids=file_id)
def test_nothing_in_the_package_imports_the_worker(path: Path):
    assert not {name for name in imports(path) if name.partition(".")[0] == "resolute_worker"}


def test_the_package_itself_knows_one_name_of_the_worker_and_resolves_it_late():
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    late: set[ast.AST] = set()
    for node in tree.body:
        is_guard = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        is_getattr = isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
        if is_guard or is_getattr:
            late |= set(ast.walk(node))
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("resolute_worker")
    ]
    assert found
    for node in found:
        assert [alias.name for alias in node.names] == ["Worker"]
        assert node in late


@pytest.mark.parametrize("path", [*SOURCES, *WORKER_SOURCES], ids=file_id)
def test_only_the_store_imports_a_redis_client(path: Path):
    if path.is_relative_to(PACKAGE / "store"):
        return
    assert not {name for name in imports(path) if name.partition(".")[0] in REDIS_CLIENTS}


@pytest.mark.parametrize("path", [*SOURCES, *WORKER_SOURCES], ids=file_id)
def test_only_the_storage_imports_a_file_system(path: Path):
    if path.is_relative_to(PACKAGE / "storage"):
        return
    assert not {name for name in imports(path) if name.partition(".")[0] in STORAGE_CLIENTS}


PURE = [
    *sorted((PACKAGE / "model").rglob("*.py")),
    PACKAGE / "engine" / "advance.py",
    PACKAGE / "engine" / "run.py",
]


@pytest.mark.parametrize("path", PURE, ids=file_id)
def test_the_model_and_the_state_machine_do_no_io_and_read_no_clock(path: Path):
    assert not {name for name in imports(path) if name.partition(".")[0] in IO_MODULES}
