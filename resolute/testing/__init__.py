"""What a test of a flow needs: a runner in memory, and real servers for as long as the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resolute.testing.tester import FlowTester, TesterResult

__all__ = ["FlowTester", "TesterResult"]


def __getattr__(name: str) -> Any:
    # Late: who only wants a server, as the pytest plugin at first, loads nothing of the engine.
    if name in __all__:
        from resolute.testing import tester

        return getattr(tester, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
