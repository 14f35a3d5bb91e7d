"""Resolute: durable flows for Python on Redis.

What is named here is imported when it is first asked for: the pytest plugin, which every test
session of a project loads, comes through this package and needs none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resolute.client import Client, DeadLetter, FlowRun
    from resolute.durability import Durability
    from resolute.engine.context import NodeContext, current
    from resolute.errors import (
        AlreadyRunning,
        ChecksumMismatch,
        ConfigurationError,
        DurabilityNotConfirmed,
        DurabilityUnavailable,
        ErrorInfo,
        FlowCancelled,
        FlowDefinitionError,
        FlowFailed,
        FlowTerminated,
        HeartbeatTimeout,
        IdConflict,
        InvalidInput,
        InvalidSignal,
        LoopLimitExceeded,
        MissingInput,
        MissingOutput,
        NodeTimeout,
        NotEncodable,
        ObjectMissing,
        PayloadTooLarge,
        QueryFailed,
        QueryTimeout,
        ResoluteError,
        RetryAfter,
        RunEnded,
        ServerUnsuitable,
        SignalsFull,
        StorageError,
        StorageUnavailable,
        StoreError,
        StoreUnavailable,
        TerminalError,
        TooManyPages,
        UnknownFlow,
        UnknownLetter,
        UnknownQuery,
        UnknownRun,
        UnknownSignal,
        UnknownTrigger,
    )
    from resolute.model.builder import FlowBuilder
    from resolute.model.claims import Debounce, Unique
    from resolute.model.classifying import Classifier, Verdict, http_classifier
    from resolute.model.cursors import CursorBackend, SavedBy
    from resolute.model.flow import Flow
    from resolute.model.gates import GateResult
    from resolute.model.hooks import CostEvent, FlowEvent, FlowHooks, NodeEvent, StepEvent
    from resolute.model.markers import cursor, cursor_string, input_data, output, output_ref
    from resolute.model.nodes import AsyncNode, Node, SyncNode, node
    from resolute.model.paging import Page, PageRequest, paginate
    from resolute.model.policies import (
        ConcurrencyLimit,
        RateLimit,
        RetryPolicy,
        SharedRateLimit,
    )
    from resolute.model.provider import Provider
    from resolute.model.references import DataRef
    from resolute.model.state import FlowState
    from resolute.model.triggers import manual, schedule, signal, webhook
    from resolute.priority import Priority
    from resolute.status import NodeStatus, RunStatus
    from resolute.storage import Storage
    from resolute_worker import Worker

__version__ = "0.1.0"

__all__ = [
    "AlreadyRunning",
    "AsyncNode",
    "ChecksumMismatch",
    "Classifier",
    "Client",
    "ConcurrencyLimit",
    "ConfigurationError",
    "CostEvent",
    "CursorBackend",
    "DataRef",
    "DeadLetter",
    "Debounce",
    "Durability",
    "DurabilityNotConfirmed",
    "DurabilityUnavailable",
    "ErrorInfo",
    "Flow",
    "FlowBuilder",
    "FlowCancelled",
    "FlowDefinitionError",
    "FlowEvent",
    "FlowFailed",
    "FlowHooks",
    "FlowRun",
    "FlowState",
    "FlowTerminated",
    "GateResult",
    "HeartbeatTimeout",
    "IdConflict",
    "InvalidInput",
    "InvalidSignal",
    "LoopLimitExceeded",
    "MissingInput",
    "MissingOutput",
    "Node",
    "NodeContext",
    "NodeEvent",
    "NodeStatus",
    "NodeTimeout",
    "NotEncodable",
    "ObjectMissing",
    "Page",
    "PageRequest",
    "PayloadTooLarge",
    "Priority",
    "Provider",
    "QueryFailed",
    "QueryTimeout",
    "RateLimit",
    "ResoluteError",
    "RetryAfter",
    "RetryPolicy",
    "RunEnded",
    "RunStatus",
    "SavedBy",
    "ServerUnsuitable",
    "SharedRateLimit",
    "SignalsFull",
    "StepEvent",
    "Storage",
    "StorageError",
    "StorageUnavailable",
    "StoreError",
    "StoreUnavailable",
    "SyncNode",
    "TerminalError",
    "TooManyPages",
    "Unique",
    "UnknownFlow",
    "UnknownLetter",
    "UnknownQuery",
    "UnknownRun",
    "UnknownSignal",
    "UnknownTrigger",
    "Verdict",
    "Worker",
    "current",
    "cursor",
    "cursor_string",
    "http_classifier",
    "input_data",
    "manual",
    "node",
    "output",
    "output_ref",
    "paginate",
    "schedule",
    "signal",
    "webhook",
]

# Where each name lives that is no error.
_HOMES = {
    "client": ("Client", "DeadLetter", "FlowRun"),
    "durability": ("Durability",),
    "engine.context": ("NodeContext", "current"),
    "model.builder": ("FlowBuilder",),
    "model.claims": ("Debounce", "Unique"),
    "model.classifying": ("Classifier", "Verdict", "http_classifier"),
    "model.flow": ("Flow",),
    "model.gates": ("GateResult",),
    "model.hooks": ("CostEvent", "FlowEvent", "FlowHooks", "NodeEvent", "StepEvent"),
    "model.cursors": ("CursorBackend", "SavedBy"),
    "model.markers": ("cursor", "cursor_string", "input_data", "output", "output_ref"),
    "model.nodes": ("AsyncNode", "Node", "SyncNode", "node"),
    "model.paging": ("Page", "PageRequest", "paginate"),
    "model.provider": ("Provider",),
    "model.policies": ("ConcurrencyLimit", "RateLimit", "RetryPolicy", "SharedRateLimit"),
    "model.references": ("DataRef",),
    "model.state": ("FlowState",),
    "model.triggers": ("manual", "schedule", "signal", "webhook"),
    "priority": ("Priority",),
    "status": ("NodeStatus", "RunStatus"),
    "storage": ("Storage",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # The one name that points up: a worker is a program, but a user looks for it here.
    if name == "Worker":
        from resolute_worker import Worker

        return Worker
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"resolute.{_HOME_OF.get(name, 'errors')}")
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
