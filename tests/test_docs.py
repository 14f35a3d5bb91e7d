"""The code in the documentation builds, and where it is a test it passes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from resolute import Flow
from resolute.testing import FlowTester

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "getting-started.md"]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_first_flow_on_a_page_builds(page: Path) -> None:
    names: dict[str, Any] = {"__name__": "documentation"}
    exec(compile(python_blocks(page)[0], str(page), "exec"), names)
    assert isinstance(names["flow"], Flow)


def test_the_first_flow_of_the_readme_runs() -> None:
    names: dict[str, Any] = {"__name__": "documentation"}
    exec(compile(python_blocks(ROOT / "README.md")[0], "README.md", "exec"), names)
    result = FlowTester().run(names["flow"], names["Issue"](7))
    assert result.output == names["Enriched"](7, 2, True)


TESTS = ROOT / "docs" / "testing.md"  # whose blocks are tests: they are run as such
# The second block of the pages in PAGES needs a server.
OTHERS = {TESTS, *PAGES}
CODE = [one for one in sorted(ROOT.glob("docs/*.md")) if python_blocks(one) and one not in OTHERS]


@pytest.mark.parametrize("page", CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path) -> None:
    """From its beginning to its end: what a block defines is there for those below it."""
    names: dict[str, Any] = {"__name__": "documentation"}
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), names)


def test_the_tests_of_the_page_on_testing_pass(pytester: pytest.Pytester) -> None:
    blocks = python_blocks(TESTS)
    pytester.makepyfile(**{f"test_block_{i}": block for i, block in enumerate(blocks)})
    options = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")
    flags = [flag for option in options for flag in ("-o", option)]
    result = pytester.runpytest_subprocess("-p", "no:valkey", "-W", "error", *flags)
    result.assert_outcomes(passed=sum(block.count("\nasync def test_") for block in blocks) + 2)


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=str)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
