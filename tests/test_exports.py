"""The names of the package, which are imported late."""

from __future__ import annotations

import subprocess
import sys

import pytest

import resolute


@pytest.mark.parametrize("name", resolute.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(resolute, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'resolute' has no attribute 'Nothing'"):
        _ = resolute.Nothing  # pyright: ignore[reportAttributeAccessIssue]  # on purpose


def test_the_names_can_be_listed() -> None:
    assert set(resolute.__all__) <= set(dir(resolute))


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = "import sys, resolute; print({'redis', 'msgspec', 'asyncio'} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
