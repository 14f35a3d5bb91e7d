"""Every error that Resolute raises.

ResoluteError
├── FlowDefinitionError      build() found mistakes: all of them, in `problems`
├── ConfigurationError       a flag, variable or server setting is unusable
│   ├── ServerUnsuitable     the Redis answers but cannot hold flows
│   └── DurabilityUnavailable  the Redis cannot promise the durability that was asked for
├── DurabilityNotConfirmed   written, but not proved to be as durable as was asked for
├── StoreUnavailable         Redis did not answer; the call may or may not have happened
├── StoreError               Redis answered with an error
├── StorageError             the storage of large values cannot do what was asked
│   ├── StorageUnavailable   it does not answer; the same again may work later
│   ├── ObjectMissing        what was stored is not there (any more)
│   └── ChecksumMismatch     what is there is not what was stored
├── DamagedRun               the hash of a run cannot be read
├── UnknownFlow              no worker ever offered a flow of that name
├── UnknownRun               no run of that id is (still) stored
├── RunEnded                 the run has ended: it takes no signals
├── UnknownSignal            neither a gate nor with_signal() names a signal so
├── UnknownTrigger           no flow is triggered by a signal of that name
├── UnknownQuery             the flow has no with_query() of that name
├── QueryFailed              the query's function raised
├── QueryTimeout             no worker answered a query in time
├── SignalsFull              the run keeps as many signals that nobody took as it can
├── UnknownLetter            no dead letter of that id is (still) there
├── IdConflict               the id belongs to a run of another flow or input
├── AlreadyRunning           another run of the flow has the unique key
├── InvalidInput             the input does not fit the flow's type
├── InvalidSignal            the payload does not fit the signal's type
├── MissingOutput            state[...] of something that has no output (also a KeyError)
│   └── MissingInput         input_data() of something that the flow's input has not
├── NotEncodable             a value that no codec can put on the wire
├── PayloadTooLarge          a value above max_payload
├── TerminalError            raised by a node: do not retry
│   ├── LoopLimitExceeded    a loop would take more turns than it may
│   └── TooManyPages         a node that fetches page by page would take more than it may
├── RetryAfter               raised by a node: retry no sooner than this
├── HttpError                a call of an API failed; see resolute.http.errors
├── NodeTimeout              an attempt overran its timeout
│   └── HeartbeatTimeout     an attempt gave no sign of life in time
├── FlowTesterError          a test asks the FlowTester for what cannot be
└── FlowFailed               the run ended, but not in `completed`
    ├── FlowCancelled
    └── FlowTerminated
"""

from __future__ import annotations

import contextlib
import traceback as _traceback
from collections.abc import Generator, Iterable

import msgspec

TRACEBACK_LIMIT = 16_384
MESSAGE_LIMIT = 4_096
LONGEST_PAUSE = 30 * 86_400.0  # s


class ResoluteError(Exception):
    """The base of everything that Resolute raises on purpose."""


class FlowDefinitionError(ResoluteError):
    """A flow cannot be built. `problems` names every mistake, not only the first."""

    def __init__(self, flow: str, problems: Iterable[str]) -> None:
        self.flow = flow
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"flow {flow!r} has {len(self.problems)} problem(s):{lines}")


class ConfigurationError(ResoluteError):
    """A flag, an environment variable or an argument is unusable."""


class ServerUnsuitable(ConfigurationError):
    """The server answers, but cannot be trusted with flows (too old, evicting, read-only)."""


class DurabilityUnavailable(ConfigurationError):
    """The server has no proof of this durability. Refused before anything was written."""

    def __init__(self, level: str, has: str, needs: str) -> None:
        self.level = level
        self.has = has
        self.needs = needs
        super().__init__(f"durability {level} cannot be promised by this server: {has}; {needs}")


class DurabilityNotConfirmed(ResoluteError):
    """The write happened, but is not proved to be as durable as was asked for.

    The same call again, with the same `ids`, is safe and confirms it.
    """

    def __init__(self, level: str, missing: str, ids: Iterable[str] = ()) -> None:
        self.level = level
        self.missing = missing
        self.ids = tuple(ids)
        of = f" of {', '.join(self.ids[:5])}" if self.ids else ""
        more = f" and {len(self.ids) - 5} more" if len(self.ids) > 5 else ""
        super().__init__(
            f"the write{of}{more} happened but is not confirmed as {level}: {missing};"
            " the same call with the same id is safe and confirms it"
        )


class StoreUnavailable(ResoluteError):
    """Redis did not answer. The call may or may not have taken effect; sending it again is safe."""


class StoreError(ResoluteError):
    """Redis answered a command with an error."""


class StorageError(ResoluteError):
    """The storage of large values cannot do what was asked."""


class StorageUnavailable(StorageError):
    """The storage does not answer, or there is none here. The same again may work later."""


class ObjectMissing(StorageError):
    """An object is not in the storage: deleted with its run, or it is another storage."""

    def __init__(self, path: str, where: str) -> None:
        self.path = path
        super().__init__(
            f"no object {path!r} in {where}: deleted with its run, or this is another storage"
        )


class ChecksumMismatch(StorageError):
    """An object in the storage is not what was stored: damaged, or replaced."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        self.path = path
        self.expected = expected
        self.found = found
        super().__init__(f"object {path!r} is damaged: expected {expected}, found {found}")


class DamagedRun(ResoluteError):
    """The hash of a run holds something that cannot be read."""

    def __init__(self, flow_id: str, reason: str) -> None:
        self.id = flow_id
        super().__init__(f"the hash of run {flow_id!r} is damaged: {reason}")


@contextlib.contextmanager
def reading(flow_id: str) -> Generator[None]:
    """What cannot be read of a run here raises DamagedRun."""
    try:
        yield
    except (ValueError, LookupError) as error:  # numbers, statuses, text; places in its plan
        raise DamagedRun(flow_id, str(error)) from error


class UnknownFlow(ResoluteError):
    """No worker ever offered a flow of this name in this namespace."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        offered = ", ".join(self.known) or "none"
        super().__init__(f"no worker has offered a flow {name!r}; offered: {offered}")


class UnknownRun(ResoluteError):
    """No run of this id is stored: never started, or past its retention."""

    def __init__(self, flow_id: str) -> None:
        self.id = flow_id
        super().__init__(f"no run {flow_id!r}: never started, or past its retention")


class RunEnded(ResoluteError):
    """The run has ended: it takes no signals."""

    def __init__(self, flow_id: str) -> None:
        self.id = flow_id
        super().__init__(f"run {flow_id!r} has ended: it takes no signals")


class UnknownSignal(ResoluteError):
    """The flow has no gate and no with_signal() for a signal of this name."""

    def __init__(self, flow: str, name: str, known: Iterable[str] = ()) -> None:
        self.flow = flow
        self.name = name
        self.known = tuple(sorted(known))
        has = f"it takes {', '.join(self.known)}" if self.known else "it takes none"
        super().__init__(f"flow {flow!r} takes no signal {name!r}: {has}")


class UnknownTrigger(ResoluteError):
    """No flow that was ever offered is `triggered_by(signal(name))`."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        has = f"signals that start one: {', '.join(self.known)}" if self.known else "none does"
        super().__init__(f"no flow is started by a signal {name!r}; {has}")


class UnknownQuery(ResoluteError):
    """The flow, as the run was started with it, has no `with_query` of that name."""

    def __init__(self, flow: str, name: str, known: Iterable[str] = ()) -> None:
        self.flow = flow
        self.name = name
        self.known = tuple(sorted(known))
        has = f"it has {', '.join(self.known)}" if self.known else "it has none"
        super().__init__(f"flow {flow!r} has no query {name!r}: {has}")


class QueryTimeout(ResoluteError):
    """No worker that has the run's plan answered in time."""

    def __init__(self, flow_id: str, name: str, seconds: float) -> None:
        self.flow_id = flow_id
        self.name = name
        super().__init__(
            f"query {name!r} of run {flow_id!r}: no worker with its plan answered in {seconds:g} s"
        )


class SignalsFull(ResoluteError):
    """The run keeps as many signals of this name that nobody took as it can."""

    def __init__(self, flow_id: str, name: str) -> None:
        self.id = flow_id
        self.name = name
        super().__init__(f"run {flow_id!r} keeps too many signals {name!r} that nobody took")


class UnknownLetter(ResoluteError):
    """No dead letter of this id is there: never was, or retried or dropped already."""

    def __init__(self, letter_id: str) -> None:
        self.id = letter_id
        super().__init__(f"no dead letter {letter_id!r}: never was, or retried or dropped already")


class IdConflict(ResoluteError):
    """The id is taken by a run of another flow, or of the same flow with another input."""

    def __init__(self, flow_id: str) -> None:
        self.id = flow_id
        super().__init__(f"run {flow_id!r} exists with another flow or another input")


class AlreadyRunning(ResoluteError):
    """Another run of the flow has the unique key: it is open, or was started within the period.

    `id` is that run's.
    """

    def __init__(self, flow: str, key: str, id: str) -> None:
        self.flow = flow
        self.key = key
        self.id = id
        super().__init__(f"flow {flow!r}: run {id!r} has the unique key {key!r}")


class InvalidInput(ResoluteError):
    """The input does not fit the type that the flow declares."""

    def __init__(self, flow: str, reason: str) -> None:
        self.flow = flow
        self.reason = reason
        super().__init__(f"input of flow {flow!r}: {reason}")


class InvalidSignal(ResoluteError):
    """The payload does not fit the type that the flow declares for the signal."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"signal {name!r}: {reason}")


class MissingOutput(ResoluteError, KeyError):
    """`state[...]` of a node that has no output: not run, skipped, or failed best-effort."""

    def __init__(self, key: str, cause: str = "no node with this output key has completed") -> None:
        self.key = key
        self.cause = cause
        super().__init__(f"no output {key!r}: {cause}")

    def __str__(self) -> str:
        return str(self.args[0])


class MissingInput(MissingOutput):
    """`input_data(path)` of something that the flow's input has not."""

    def __init__(self, path: str, cause: str) -> None:
        self.key = path
        self.cause = cause
        ResoluteError.__init__(self, f"no {path!r} in the input of the flow: {cause}")


class NotEncodable(ResoluteError):
    """A value has a part that cannot go over the wire. `path` says which."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"cannot encode {path}: {reason}")


class PayloadTooLarge(ResoluteError):
    """A value is larger than `max_payload`, or with a storage than its `max_stored`; in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"payload of {size:,} bytes is over the limit of {limit:,} bytes")


class TerminalError(ResoluteError):
    """Raise this in a node to fail it without another attempt."""


class TooManyPages(TerminalError):
    """A node that fetches page by page would take more than its max_pages."""

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(
            f"there are more than max_pages={most:,} pages: give paginate() more, or ask for less"
        )


class LoopLimitExceeded(TerminalError):
    """A loop would take more turns than its max_iterations."""

    def __init__(self, loop: str, most: int) -> None:
        self.loop = loop
        self.most = most
        super().__init__(f"loop {loop!r} would take more than its {most:,} turns")


class RetryAfter(ResoluteError):
    """Raise this in a node to be tried again after `seconds`, not before; at most 30 days."""

    def __init__(self, seconds: float, message: str = "") -> None:
        if not seconds >= 0:  # not a number, or below 0
            raise ValueError(f"RetryAfter: expected 0 or more seconds, got {seconds!r}")
        self.seconds = min(float(seconds), LONGEST_PAUSE)
        super().__init__(message or f"retry after {self.seconds:g} s")


class NodeTimeout(ResoluteError):
    """One attempt of a node took longer than its timeout (seconds)."""

    def __init__(self, node: str, timeout: float) -> None:
        self.node = node
        self.timeout = timeout
        super().__init__(f"node {node!r} ran longer than its timeout of {timeout:g} s")


class HeartbeatTimeout(NodeTimeout):
    """One attempt of a node gave no heartbeat for as long as it may (`timeout`, seconds)."""

    def __init__(self, node: str, timeout: float) -> None:
        super().__init__(node, timeout)
        self.args = (f"node {node!r} gave no heartbeat for {timeout:g} s",)


class FlowTesterError(ResoluteError):
    """A test asks the FlowTester for what cannot be; never a failure of the flow."""


class ErrorInfo(msgspec.Struct, frozen=True, array_like=True):
    """An error as it is stored: what was raised, its text, its traceback, and where."""

    type: str
    message: str
    traceback: str = ""
    node: str = ""

    @classmethod
    def of(cls, error: BaseException, node: str = "") -> ErrorInfo:
        """Describe `error`; never raises, whatever its `str` and `repr` do."""
        try:
            text = str(error)
        except BaseException as broken:
            text = f"<the error's own str() raised {type(broken).__name__}>"
        try:
            trace = "".join(_traceback.format_exception(error))
        except BaseException:
            trace = "".join(_traceback.format_tb(error.__traceback__))
        return cls(
            type=type(error).__name__,
            message=_printable(text, MESSAGE_LIMIT),
            traceback=_printable(trace, TRACEBACK_LIMIT),
            node=node,
        )

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        return f"{where}{self.type}: {self.message}" if self.message else f"{where}{self.type}"


def _printable(text: str, limit: int) -> str:
    """`text` in valid UTF-8, the middle cut out when it is over `limit` characters."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    if len(clean) <= limit:
        return clean
    half = limit // 2
    return f"{clean[:half]}\n… {len(clean) - limit:,} characters left out …\n{clean[-half:]}"


class FlowFailed(ResoluteError):
    """The run ended `failed`. `error` is what its first failing node raised."""

    def __init__(self, flow_id: str, error: ErrorInfo | None) -> None:
        self.id = flow_id
        self.error = error
        super().__init__(f"run {flow_id!r} {self._ended}" + (f": {error}" if error else ""))

    _ended = "failed"


class FlowCancelled(FlowFailed):
    """The run was cancelled; what had completed was compensated."""

    _ended = "was cancelled"


class FlowTerminated(FlowFailed):
    """The run was terminated, without compensation."""

    _ended = "was terminated"


class QueryFailed(ResoluteError):
    """The function of a query raised `error` on the worker."""

    def __init__(self, flow_id: str, name: str, error: ErrorInfo) -> None:
        self.flow_id = flow_id
        self.name = name
        self.error = error
        super().__init__(f"query {name!r} of run {flow_id!r} failed: {error}")
