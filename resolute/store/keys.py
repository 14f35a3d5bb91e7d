"""How every key is spelled. No other file knows.

All keys of a run share the hash tag of its partition, so that one script can touch them on a
cluster. `{ns:p.k}`: k is the smallest number that puts the tag into the p-th of P equal ranges of
the 16,384 slots, so that partitions spread evenly over primaries.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import cast
from urllib.parse import quote

from resolute.errors import ConfigurationError, UnknownRun
from resolute.ids import root_of
from resolute.priority import stream_of
from resolute.status import RunStatus

SLOTS = 16_384
MAX_PARTITIONS = 1024


def crc16(text: str) -> int:
    """The CRC-16/XMODEM that Redis Cluster uses for its slots."""
    return crc_hqx(text.encode(), 0)


def slot_of(key: str) -> int:
    """The slot of a key: that of what is in its first braces, where there is anything."""
    start = key.find("{")
    if start >= 0:
        end = key.find("}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc16(key) % SLOTS


class MetaKeys:
    """The keys of a namespace that belong to no partition."""

    def __init__(self, namespace: str) -> None:
        if not namespace or set(namespace) & set("{}") or len(namespace) > 100:
            raise ConfigurationError(
                f"namespace: expected 1 to 100 characters without braces, got {namespace!r}"
            )
        self.namespace = namespace
        base = f"{{{namespace}}}"
        self.base = base
        self.partitions = f"{base}:partitions"
        self.plans = f"{base}:plans"
        self.flows = f"{base}:flows"
        self.processes = f"{base}:processes"
        self.beats = f"{base}:beats"
        self.departed = f"{base}:departed"
        self.ticks = f"{base}:ticks"
        self.cursors = f"{base}:cursors"
        self.version = f"{base}:version"

    def cancels(self, process: str) -> str:
        """The set of nodes that a process is to cancel."""
        return f"{self.base}:cancel:{process}"

    def bucket(self, bucket: str, key: str = "") -> str:
        """A limiter's bucket; each has a hash tag of its own."""
        return f"{{{self.namespace}:limit:{bucket}{_part(key)}}}"

    def places(self, limit: str, key: str = "") -> tuple[str, str, str]:
        """Of a concurrency limit who runs, who waits, and who was woken; it has a hash tag too."""
        tag = f"{{{self.namespace}:places:{limit}{_part(key)}}}"
        return f"{tag}:held", f"{tag}:line", f"{tag}:woken"


def _part(key: str) -> str:
    """What splits a limit, behind a character that no name has and no such text."""
    return f"#{quote(key, safe='')}" if key else ""


class Partition:
    """The keys of one partition."""

    def __init__(self, namespace: str, number: int, count: int) -> None:
        self.number = number
        tag = f"{{{_tag(namespace, number, count)}}}"
        self.tag = tag
        self.inbox = f"{tag}:in"
        self.timers = f"{tag}:timers"
        self.stats = f"{tag}:stats"
        self.dead = f"{tag}:dead"
        self.open = f"{tag}:x:open"
        self.folders = f"{tag}:folders"
        self.folders_due = f"{tag}:folders:due"
        self.claims = f"{tag}:claims"
        self._flow = f"{tag}:f:"
        self._queue = f"{tag}:q:"
        self._index = f"{tag}:x:"

    def flow(self, flow_id: str) -> str:
        """The hash of a run."""
        return self._flow + flow_id

    def queue(self, queue: str, plan: str = "") -> str:
        """The stream of a lane; with `plan`, of those of its queue's entries that need that plan.

        Also that of a name that has the plan in it already.
        """
        if plan:
            queue = f"{queue}@{plan}"
        return self._queue + (stream_of(queue) if "@" in queue else queue)

    def queue_of(self, stream: str) -> str:
        """The lane, or the queue with its plan, that a stream key is for."""
        return stream.removeprefix(self._queue)

    def open_of(self, flow: str) -> str:
        """The index of the open runs of one flow."""
        return f"{self._index}open:{flow}"

    def ended(self, status: RunStatus, flow: str = "") -> str:
        """The index of the runs that ended so, of all flows or of one."""
        return f"{self._index}{status.value}:{flow}" if flow else f"{self._index}{status.value}"

    def done(self, nonce: str) -> str:
        """What one call did with dead letters, for a while."""
        return f"{self.dead}:{nonce}"

    def answer(self, nonce: str) -> str:
        """The answer to a query, for a while, and where it is published."""
        return f"{self.tag}:a:{nonce}"

    def recent(self, claim: str) -> str:
        """Which run was started last with a unique key, for its period."""
        return f"{self.claims}:{claim}"

    def call(self, flow: str, call: str) -> str:
        """Which run a debounced start went into that has an id of its sender, for a while."""
        return f"{self.tag}:c:{flow}:{call}"

    def channel(self, flow_id: str) -> str:
        """Where the end of a run is published."""
        return f"{self.tag}:end:{flow_id}"


class Keys:
    """All keys of a namespace of `count` partitions."""

    def __init__(self, namespace: str, count: int) -> None:
        self.meta = MetaKeys(namespace)
        self.count = count
        self.partitions = tuple(Partition(namespace, p, count) for p in range(count))

    def of(self, flow_id: str) -> Partition:
        """The partition of a run: that of its root, so that a family is together.

        Raises TypeError for what is no text, and UnknownRun for what no run can be called.
        """
        if not isinstance(cast("object", flow_id), str):
            raise TypeError(f"run id: expected a text, got {flow_id!r}")
        try:
            flow_id.encode()
        except UnicodeEncodeError:
            raise UnknownRun(flow_id) from None
        if self.count == 1:
            return self.partitions[0]
        return self.partitions[crc16(root_of(flow_id)) % self.count]

    def of_key(self, flow: str, key: str) -> Partition:
        """The partition of the runs of a flow that share a key of `Unique` or `Debounce`."""
        return self.partitions[crc16(f"{flow}|{key}") % self.count]


def unique_claim(flow: str, key: str) -> str:
    """A unique key among the claims of its partition."""
    return f"u|{flow}|{key}"


def key_in(claim: str) -> str:
    """The key that a claim is for, as who started the run named it."""
    return claim.split("|", 2)[-1]


def schedule_claim(flow: str, index: int) -> str:
    """That of the runs of a schedule; no user's key is meant by it."""
    return f"s|{flow}|{index}"


def debounce_claim(flow: str, key: str) -> str:
    """A key of debounced starts among the claims of its partition."""
    return f"d|{flow}|{key}"


def stats_beside(key: str) -> str:
    """The counters of the partition that a key belongs to."""
    return f"{key[: key.index('}') + 1]}:stats"


def _tag(namespace: str, number: int, count: int) -> str:
    low, high = number * SLOTS // count, (number + 1) * SLOTS // count
    k = 0
    while True:
        tag = f"{namespace}:{number}.{k}"
        if low <= crc16(tag) % SLOTS < high:
            return tag
        k += 1
