"""What an app offers, and what a process takes of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from resolute import Worker
from resolute.errors import ConfigurationError
from resolute_worker.apps import App, load_app
from resolute_worker.shared import SharedPage
from tests.support.flows import chain

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
        load_app(str(path))
    path.write_text(TWINS.replace("other = ", "import os  # "))
    assert list(load_app(str(path)).flows) == ["same"]


def test_a_process_offers_all_flows_or_those_that_it_was_told():
    flows = {name: chain("a", flow=name) for name in ("one", "two")}
    app = App("app.py", flows, {})
    assert app.choose() == (flows, {})
    assert list(app.choose(["two"])[0]) == ["two"]
    with pytest.raises(ConfigurationError, match="has no flow 'three'"):
        app.choose(["two", "three"])


NODES = """
from resolute import FlowBuilder, Node, manual, node
@node("svc.charge")
async def charge(amount: int) -> int: return amount
slow = charge.with_timeout("1m")
other = Node.named("svc.other", queue="payments")
flow = FlowBuilder("one").triggered_by(manual()).then(charge).build()
both = [charge, flow]
"""


def test_nodes_are_offered_where_they_are_named_and_nowhere_else(tmp_path: Path):
    path = tmp_path / "nodes.py"
    path.write_text(NODES)
    flows, nodes = load_app(str(path)).choose()
    assert (list(flows), list(nodes)) == (["one"], [])
    flows, nodes = load_app(str(path)).choose((), ["svc.charge"])
    assert (list(flows), list(nodes)) == ([], ["svc.charge"])
    flows, nodes = load_app(f"{path}:charge").choose()
    assert (list(flows), list(nodes)) == ([], ["svc.charge"])
    flows, nodes = load_app(f"{path}:both").choose()
    assert (list(flows), list(nodes)) == (["one"], ["svc.charge"])


PROVIDER = """
cards = Provider("cards", "1.2", [charge])
same = cards
"""


def test_the_providers_of_an_app_are_offered_with_its_flows(tmp_path: Path):
    path = tmp_path / "nodes.py"
    path.write_text(
        NODES.replace("Node,", "Node, Provider,").replace("svc.charge", "charge") + PROVIDER
    )
    for name, expected in (("", ["one"]), (":cards", [])):
        app = load_app(f"{path}{name}")
        flows, nodes = app.choose()
        assert (list(flows), list(nodes)) == (expected, ["cards.charge"])
        assert [one.version for one in app.offering(nodes)] == ["1.2"]
        assert app.offering(["charge"]) == []
    flows, nodes = load_app(str(path)).choose((), ["cards.charge"])
    assert (list(flows), list(nodes)) == ([], ["cards.charge"])
    path.write_text(
        path.read_text().replace("same = cards", "same = Provider('cards', '2', [charge])")
    )
    with pytest.raises(ConfigurationError, match="two providers are named 'cards'"):
        load_app(str(path))


def test_a_node_that_was_got_out_of_its_provider_is_no_second_one(tmp_path: Path):
    path = tmp_path / "nodes.py"
    text = NODES.replace("Node,", "Node, Provider,").replace("svc.charge", "charge") + PROVIDER
    path.write_text(text + "\npay = cards['charge']\n")
    assert "cards.charge" in load_app(str(path)).choose()[1]
    path.write_text(text + "\n@node('cards.charge')\ndef pay(): ...\n")
    with pytest.raises(ConfigurationError, match=r"two nodes are named 'cards\.charge'"):
        load_app(str(path)).choose()


def test_a_node_whose_code_is_not_there_cannot_be_offered(tmp_path: Path):
    path = tmp_path / "nodes.py"
    path.write_text(NODES)
    with pytest.raises(ConfigurationError, match=r"has no node 'svc\.other'"):
        load_app(str(path)).choose((), ["svc.other"])
    with pytest.raises(ConfigurationError, match="expected a Flow, a Provider, a Node or a coll"):
        load_app(f"{path}:other")
    path.write_text(NODES.replace("slow = ", "@node('svc.charge')\ndef slow(): ...\n#"))
    with pytest.raises(ConfigurationError, match=r"two nodes are named 'svc\.charge'"):
        load_app(str(path)).choose((), ["svc.charge"])


@pytest.mark.parametrize(("age", "is_fenced"), [(9.0, False), (11.0, True), (100.0, True)])
def test_a_process_is_fenced_after_two_thirds_of_its_lease(age: float, is_fenced: bool):
    page = SharedPage.create(1, lease=15.0)
    page.record_beat(time.monotonic() - age)
    assert page.is_fenced is is_fenced
    page.close()


@pytest.mark.parametrize("app", ["", ".", ".flows", ":flow"])
def test_an_app_without_a_module_is_refused(app: str):
    with pytest.raises(ConfigurationError, match=r"expected MODULE, MODULE:ATTRIBUTE or PATH\.py"):
        load_app(app)


def test_an_app_that_cannot_be_imported_says_why_in_its_first_line(tmp_path: Path):
    path = tmp_path / "err.py"
    path.write_text("import nosuchmodule\n")
    with pytest.raises(ConfigurationError) as caught:
        load_app(str(path))
    first, *others = str(caught.value).splitlines()
    assert first.endswith("failed to run: ModuleNotFoundError: No module named 'nosuchmodule'")
    assert any("err.py" in line for line in others)


def test_a_worker_that_cannot_be_is_refused_where_it_is_written():
    loose: Any = Worker
    for options in ({"processes": "2"}, {"concurrency": 0}, {"concurrency": 2.5}):
        with pytest.raises((TypeError, ValueError), match=r"worker: .*: expected"):
            loose("q", **options)
    with pytest.raises(TypeError, match="expected a built flow, got"):
        loose("q").with_flow(load_app)
