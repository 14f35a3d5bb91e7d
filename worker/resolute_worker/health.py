"""The health checks of the providers that a process offers: called beside its nodes, harming none.

Each call has a thread of its own, which nothing waits for: a check that hangs, or ends itself with
SystemExit, costs a thread and says that its provider is ill. Redis is told only of changes.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from resolute.errors import ErrorInfo
from resolute.model.provider import HealthCheck, Provider

log = logging.getLogger(__name__)

PERIOD = 30.0  # s from one round to the next
PATIENCE = 5.0  # s for each check
MOST_SAID = 500  # characters

Report = Callable[[Mapping[str, str]], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Call:
    """A check that runs in its thread, or ran."""

    name: str
    answer: asyncio.Future[str]
    began: float


class HealthChecks:
    """Runs the checks in rounds; `report` is given what is ill, by provider, when that changes."""

    def __init__(
        self,
        providers: Iterable[Provider],
        report: Report,
        *,
        period: float = PERIOD,
        patience: float = PATIENCE,
    ) -> None:
        self._checks = {one.name: one.health for one in providers if one.health is not None}
        self._report = report
        self._period = period
        self._patience = patience
        self._hanging: dict[str, _Call] = {}
        self._told: Mapping[str, str] = {}

    async def run(self) -> None:
        """Round after round, until cancelled. Raises nothing of what a check does."""
        if not self._checks:
            return
        while True:
            began = time.monotonic()
            await self.look()
            await asyncio.sleep(max(0.0, self._period - (time.monotonic() - began)))

    async def look(self) -> None:
        """One round: all checks at the same time."""
        names = list(self._checks)
        answers = await asyncio.gather(*(self._ask(name) for name in names))
        ill = {name: answer for name, answer in zip(names, answers, strict=True) if answer}
        if ill == self._told:
            return
        try:
            await self._report(ill)
        except Exception:
            log.exception("telling of the health of providers; once more in the next round")
            return
        for name in sorted({*self._told, *ill}):
            if ill.get(name) != self._told.get(name):
                log.warning("provider %s: %s", name, ill.get(name, "is well again"))
        self._told = ill

    async def _ask(self, name: str) -> str:
        """What is wrong with a provider, '' if nothing is."""
        call = self._hanging.pop(name, None) or self._begin(name)
        done, _ = await asyncio.wait([call.answer], timeout=self._patience)
        if done:
            return call.answer.result()
        self._hanging[name] = call  # no second one beside it
        return f"its health check does not end within {self._patience:g} s"

    def _begin(self, name: str) -> _Call:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        check, patience = self._checks[name], self._patience

        def settle(said: str) -> None:
            if not answer.done():
                answer.set_result(said)

        def work() -> None:
            said = _called(check, patience)
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(settle, said)

        call = _Call(name, answer, loop.time())
        try:
            threading.Thread(target=work, name=f"health of {name}", daemon=True).start()
        except RuntimeError as error:  # no thread can be started now
            settle(f"its health check cannot be called: {error}")
        return call


def _called(check: HealthCheck, patience: float) -> str:
    """Call a check in this thread; what it says is wrong."""
    try:
        answer = check()
        if inspect.isawaitable(answer):
            answer = asyncio.run(_bounded(answer, patience))
    except BaseException as error:  # SystemExit too: it ends the check, not the process
        return _cut(str(ErrorInfo.of(error)))
    match answer:
        case None | "":
            return ""
        case str():
            return _cut(answer)
        case _:
            kind = type(answer).__name__
            return f"its health check: expected None or a text, got a {kind}"


async def _bounded(answer: Awaitable[object], patience: float) -> object:
    async with asyncio.timeout(patience):
        return await answer


def _cut(text: str) -> str:
    """On one line, in valid UTF-8, and not too long."""
    line = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return line if len(line) <= MOST_SAID else f"{line[:MOST_SAID]}…"
