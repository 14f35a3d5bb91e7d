"""Which server a command uses, and what it says where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from resolute.cli.exits import Exit
from resolute.cli.main import main
from resolute.cli.target import Target
from resolute.client.dev_server import DevServer
from resolute.store.store import DEFAULT_NAMESPACE, DEFAULT_URL
from resolute.testing.server import EmbeddedServer
from tests.cli.helpers import Cli

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESOLUTE_REDIS", raising=False)
    monkeypatch.delenv("RESOLUTE_NAMESPACE", raising=False)
    return tmp_path


def leave_server_file(folder: Path) -> None:
    (folder / ".resolute").mkdir()
    DevServer(NOWHERE, "dev", 1).write()


def test_without_anything_it_is_the_default(folder: Path):
    assert Target.choose(None, None) == Target(DEFAULT_URL, DEFAULT_NAMESPACE)


def test_a_dev_server_of_this_folder_comes_before_the_default(folder: Path):
    leave_server_file(folder)
    assert Target.choose(None, None) == Target(NOWHERE, "dev", is_dev=True)
    assert Target.choose(None, "mine").namespace == "mine"


def test_a_flag_or_variable_comes_before_a_dev_server(folder: Path):
    leave_server_file(folder)
    assert Target.choose("redis://elsewhere", None) == Target(
        "redis://elsewhere", DEFAULT_NAMESPACE
    )


def test_a_damaged_server_file_is_none(folder: Path):
    leave_server_file(folder)
    (folder / ".resolute/server.json").write_text("{")
    assert Target.choose(None, None).redis == DEFAULT_URL


def test_the_file_is_for_its_owner_alone(folder: Path):
    leave_server_file(folder)
    assert (folder / ".resolute/server.json").stat().st_mode & 0o077 == 0


def test_a_dev_server_that_is_gone_is_named(folder: Path):
    leave_server_file(folder)
    result = CliRunner().invoke(main, ["ls"])
    assert result.exit_code == Exit.UNUSABLE
    assert "does `resolute dev` still run?" in result.stderr


@pytest.mark.parametrize(
    "url", ["redis://user:hunter2@127.0.0.1:1/0", "http://user:hunter2@127.0.0.1:1/0"]
)
@pytest.mark.parametrize("command", [["ls"], ["doctor"], ["show", "x"], ["start", "x"]])
def test_no_server_is_one_line_without_the_password(command: list[str], url: str):
    result = CliRunner().invoke(main, [*command, "--redis", url])
    assert result.exit_code == Exit.UNUSABLE
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert "hunter2" not in result.output


def test_a_wrong_password_is_not_repeated(tmp_path: Path):
    with EmbeddedServer(tmp_path / "server", password="right") as server:
        url = server.url.replace("right", "hunter2")
        result = CliRunner().invoke(main, ["ls", "--redis", url])
    assert result.exit_code == Exit.UNUSABLE
    assert "WRONGPASS" in result.stderr and "hunter2" not in result.output


def test_a_look_at_an_unused_namespace_says_so_and_leaves_nothing(cli: Cli):
    for command in (["ls"], ["flows"], ["show", "x"], ["start", "x"]):
        outcome = cli(*command, code=Exit.UNUSABLE, namespace="never-used")
        assert "has ever used namespace 'never-used'" in outcome.stderr
    assert cli("doctor", code=Exit.FAILED, namespace="never-used")
    # Its number of partitions was not fixed either: it is still unused.
    cli("ls", code=Exit.UNUSABLE, namespace="never-used")


def test_the_help_documents_the_exit_codes():
    text = CliRunner().invoke(main, ["--help"]).output
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "124 ", "130 "):
        assert f"\n    {code}" in text


@pytest.mark.parametrize("arguments", [["nonsense"], ["show"], ["ls", "--limit", "0"], ["--nope"]])
def test_wrong_usage_is_one_line_and_code_2(arguments: list[str]):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == Exit.UNUSABLE
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
