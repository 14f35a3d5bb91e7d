"""What an app offers, and what a process takes of it."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from resolute.errors import ConfigurationError
from resolute_worker.apps import load_flows
from resolute_worker.process import ProcessConfig, _choose
from resolute_worker.shared import SharedPage
from tests.support.flows import chain

CONFIG = ProcessConfig("n", "s", "redis:", "ns", 1, "q", "app.py", (), 1, 15.0, 1.0, "info")

TWINS = """
from resolute import FlowBuilder, manual, node
@node("a")
async def a() -> None: ...
one = FlowBuilder("same").triggered_by(manual()).then(a).build()
other = FlowBuilder("same").triggered_by(manual()).then(a).build()
again = one
"""


def test_two_flows_of_one_name_are_refused_and_one_under_two_names_is_not(tmp_path: Path):
    path = tmp_path / "twins.py"
    path.write_text(TWINS)
    with pytest.raises(ConfigurationError, match="two flows are named 'same'"):
        load_flows(str(path))
    path.write_text(TWINS.replace("other = ", "import os  # "))
    assert list(load_flows(str(path))) == ["same"]


def test_a_process_offers_all_flows_or_those_that_it_was_told():
    flows = {name: chain("a", flow=name) for name in ("one", "two")}
    assert _choose(flows, CONFIG) == flows
    chosen = msgspec.structs.replace(CONFIG, only=("two",))
    assert list(_choose(flows, chosen)) == ["two"]
    with pytest.raises(ConfigurationError, match="has no flow 'three'"):
        _choose(flows, msgspec.structs.replace(CONFIG, only=("two", "three")))


@pytest.mark.parametrize(("age", "is_fenced"), [(9.0, False), (11.0, True), (100.0, True)])
def test_a_process_is_fenced_after_two_thirds_of_its_lease(age: float, is_fenced: bool):
    page = SharedPage.create(1, lease=15.0)
    page.record_beat(time.monotonic() - age)
    assert page.is_fenced is is_fenced
    page.close()
