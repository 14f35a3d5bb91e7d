"""The code in the documentation builds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from resolute import Flow

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "getting-started.md"]


def first_python_block(page: Path) -> str:
    match = re.search(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_first_flow_on_a_page_builds(page: Path) -> None:
    names: dict[str, Any] = {"__name__": "documentation"}
    exec(compile(first_python_block(page), str(page), "exec"), names)
    assert isinstance(names["flow"], Flow)


@pytest.mark.parametrize("name", ["concepts.md", "waiting.md", "lists-and-loops.md", "webhooks.md"])
def test_the_code_of_a_page_runs(name: str) -> None:
    page = ROOT / "docs" / name
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), {"__name__": "documentation"})


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=str)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
