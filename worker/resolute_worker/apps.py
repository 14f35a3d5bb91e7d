"""Loading an app: ``module``, ``module:attribute`` or ``path.py``; every flow in it is offered."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from resolute.errors import ConfigurationError
from resolute.model.flow import Flow


def load_flows(app: str) -> dict[str, Flow[Any, Any]]:
    """The flows of an app by name, with those that they start.

    Raises ConfigurationError saying what could not be found.
    """
    target, colon, attribute = app.partition(":")
    module = _load_module(target)
    if colon:
        found = _attribute(module, attribute, app)
    else:
        found = [_as_flow(value) for value in vars(module).values() if isinstance(value, Flow)]
        if not found:
            raise ConfigurationError(
                f"app {app!r}: expected at least one flow in the module; is build() called?"
            )
    flows: dict[str, Flow[Any, Any]] = {}
    for flow in [member for one in found for member in one.family()]:
        if flows.setdefault(flow.name, flow) is not flow:
            raise ConfigurationError(f"app {app!r}: two flows are named {flow.name!r}")
    return flows


def _attribute(module: ModuleType, attribute: str, app: str) -> list[Flow[Any, Any]]:
    try:
        value = getattr(module, attribute)
    except AttributeError:
        raise ConfigurationError(f"app {app!r}: the module has no {attribute!r}") from None
    if isinstance(value, Flow):
        return [_as_flow(value)]
    if isinstance(value, Iterable):
        items = list(cast("Iterable[Any]", value))
        if items and all(isinstance(item, Flow) for item in items):
            return items
    got = type(cast("object", value)).__name__
    raise ConfigurationError(f"app {app!r}: expected a Flow or a collection of them, got {got}")


def _as_flow(value: Any) -> Flow[Any, Any]:
    return value


def _load_module(target: str) -> ModuleType:
    if target.endswith(".py") or "/" in target:
        return _load_file(Path(target))
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name and (target == error.name or target.startswith(error.name + ".")):
            raise ConfigurationError(f"app: there is no module {target!r} on the path") from None
        raise ConfigurationError(f"app {target!r}: {_last_lines()}") from error
    except Exception as error:
        raise ConfigurationError(f"app {target!r} failed to import: {_last_lines()}") from error


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
        raise ConfigurationError(f"app {str(path)!r} failed to run: {_last_lines()}") from error
    return module


def _last_lines() -> str:
    return "\n" + traceback.format_exc(limit=-6)
