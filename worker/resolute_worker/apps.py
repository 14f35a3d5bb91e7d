"""Loading an app: ``module``, ``module:attribute`` or ``path.py``.

Every flow and every provider in it is offered, and every node that the attribute names.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from resolute.errors import ConfigurationError
from resolute.model.flow import Flow
from resolute.model.nodes import Node
from resolute.model.provider import Provider


@dataclass(frozen=True)
class App:
    """What a process finds. `nodes` can be offered by name, those in `offered` are."""

    name: str
    flows: dict[str, Flow[Any, Any]]
    nodes: dict[str, Node[Any, Any]]
    offered: tuple[str, ...] = ()
    twins: frozenset[str] = frozenset()  # names that several nodes have
    providers: tuple[Provider, ...] = ()

    def choose(
        self, flows: Sequence[str] = (), nodes: Sequence[str] = ()
    ) -> tuple[dict[str, Flow[Any, Any]], dict[str, Node[Any, Any]]]:
        """The flows of these names, with those that they start, and the nodes; without any name,
        all that the app offers.

        Raises ConfigurationError for one that the app has not.
        """
        if not flows and not nodes:
            if not self.flows and not self.offered:
                raise ConfigurationError(
                    f"app {self.name!r}: expected at least one flow in the module; is build()"
                    " called? Nodes are offered by a Provider, or as module:attribute"
                )
            flows, nodes = tuple(self.flows), self.offered
        for what, wanted, found in (("flow", flows, self.flows), ("node", nodes, self.nodes)):
            missing = [name for name in wanted if name not in found]
            if missing:
                raise ConfigurationError(f"app {self.name!r} has no {what} {missing[0]!r}")
        for name in nodes:
            if name in self.twins:
                raise ConfigurationError(f"app {self.name!r}: two nodes are named {name!r}")
        family = {one.name: one for name in flows for one in self.flows[name].family()}
        return family, {name: self.nodes[name] for name in nodes}

    def offering(self, nodes: Iterable[str]) -> list[Provider]:
        """The providers that these nodes belong to."""
        found = set(nodes)
        return [one for one in self.providers if found & one.offered.keys()]


def load_app(app: str) -> App:
    """What an app has. Raises ConfigurationError saying what could not be found."""
    target, colon, attribute = app.partition(":")
    module = _load_module(target)
    found = _attribute(module, attribute, app) if colon else list(vars(module).values())
    flows: dict[str, Flow[Any, Any]] = {}
    nodes: dict[str, Node[Any, Any]] = {}
    twins: set[str] = set()
    providers: dict[str, Provider] = {}
    for value in found:
        match value:
            case Flow():
                for flow in cast("Flow[Any, Any]", value).family():
                    if flows.setdefault(flow.name, flow) is not flow:
                        raise ConfigurationError(f"app {app!r}: two flows are named {flow.name!r}")
            case Node():
                node = cast("Node[Any, Any]", value)
                if not node.is_named and nodes.setdefault(node.name, node).fn is not node.fn:
                    twins.add(node.name)
            case Provider():
                if providers.setdefault(value.name, value) is not value:
                    raise ConfigurationError(f"app {app!r}: two providers are named {value.name!r}")
            case _:
                pass
    offered = list(nodes) if colon else []
    for provider in providers.values():
        # One that was got out of the provider, for a flow beside it, is no twin.
        for name in nodes.keys() & provider.offered.keys():
            if nodes[name].fn is not provider.offered[name].fn:
                twins.add(name)
        nodes.update(provider.offered)
        offered += provider.offered
    named = tuple(dict.fromkeys(offered))
    return App(app, flows, nodes, named, frozenset(twins), tuple(providers.values()))


def _attribute(module: ModuleType, attribute: str, app: str) -> list[Any]:
    try:
        value = getattr(module, attribute)
    except AttributeError:
        raise ConfigurationError(f"app {app!r}: the module has no {attribute!r}") from None
    if _is_offer(value):
        return [value]
    if isinstance(value, Iterable):
        items = list(cast("Iterable[Any]", value))
        if items and all(map(_is_offer, items)):
            return items
    got = type(cast("object", value)).__name__
    raise ConfigurationError(
        f"app {app!r}: expected a Flow, a Provider, a Node or a collection of them, got {got}"
    )


def _is_offer(value: Any) -> bool:
    return isinstance(value, Flow | Provider) or (isinstance(value, Node) and not value.is_named)


def _load_module(target: str) -> ModuleType:
    if not target or target.startswith("."):
        raise ConfigurationError(
            f"app: expected MODULE, MODULE:ATTRIBUTE or PATH.py, got {target!r}"
        )
    if target.endswith(".py") or "/" in target:
        return _load_file(Path(target))
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name and (target == error.name or target.startswith(error.name + ".")):
            raise ConfigurationError(f"app: there is no module {target!r} on the path") from None
        raise ConfigurationError(f"app {target!r}: {_told(error)}") from error
    except Exception as error:
        raise ConfigurationError(f"app {target!r} failed to import: {_told(error)}") from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(f"app: there is no file {str(path)!r}")
    sys.path.insert(0, str(path.resolve().parent))
    name = path.stem if path.stem.isidentifier() else "resolute_app"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"app: cannot load {str(path)!r} as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigurationError(f"app {str(path)!r} failed to run: {_told(error)}") from error
    return module


def _told(error: Exception) -> str:
    """What was raised, in the first line, and where."""
    return f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
