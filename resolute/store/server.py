"""Whether a server can be trusted with flows: version, eviction, role, memory."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from resolute.errors import ServerUnsuitable, StoreUnavailable
from resolute.store.connection import Address, Arg, ServerReply
from resolute.store.store import Store

log = logging.getLogger(__name__)

MINIMUM = {"redis": (7, 0), "valkey": (7, 2)}
KEEPS_ALL = "noeviction"


@dataclass(frozen=True)
class ServerInfo:
    """What matters of INFO and CONFIG. A setting that may not be read is None."""

    kind: str
    version: str
    run_id: str
    role: str
    appendonly: bool | None
    appendfsync: str | None
    eviction: str | None
    used_memory: int
    max_memory: int
    clients: int

    def problems(self) -> list[str]:
        """Why flows must not be kept there, each with what to do."""
        found: list[str] = []
        least = MINIMUM[self.kind]
        if tuple(int(part) for part in self.version.split(".")[:2]) < least:
            wanted = ".".join(map(str, least))
            found.append(
                f"{self.kind} {self.version} is too old: at least {wanted} is needed; upgrade it"
            )
        if self.eviction not in (None, KEEPS_ALL):
            found.append(
                f"maxmemory-policy is {self.eviction}, which can delete flows:"
                " CONFIG SET maxmemory-policy noeviction (or start with --allow-eviction)"
            )
        if self.role != "master":
            found.append(f"the server is a {self.role} and read-only: connect to its primary")
        return found


async def run_ids(store: Store) -> set[str]:
    """The identities of these runs of the servers: others after a restart or failover."""
    infos = [await link.execute("INFO", "server") for link in store.servers.primaries()]
    return {parse_info(info).get("run_id", "") for info in infos}


class Asks(Protocol):
    """What sends a command: a link tries once, a store as long as its patience lasts."""

    @property
    def address(self) -> Address: ...

    async def execute(self, *command: Arg) -> Any: ...


async def inspect(server: Asks) -> ServerInfo:
    """Read what there is to know. Raises StoreUnavailable."""
    info = parse_info(await server.execute("INFO"))
    kind = "valkey" if "valkey_version" in info else "redis"
    return ServerInfo(
        kind=kind,
        version=info.get(f"{kind}_version", "0.0"),
        run_id=info.get("run_id", ""),
        role=info.get("role", "unknown"),
        appendonly={"1": True, "0": False}.get(info.get("aof_enabled", "")),
        appendfsync=await _setting(server, "appendfsync"),
        eviction=info.get("maxmemory_policy") or await _setting(server, "maxmemory-policy"),
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        clients=int(info.get("connected_clients", 0)),
    )


async def check(store: Store, *, allow_eviction: bool = False) -> ServerInfo:
    """Raises ServerUnsuitable with every reason not to use this server, or one of this cluster."""
    info = await inspect(store)
    found = [(store.address, info)]
    if store.servers.topology.is_cluster:
        found = [pair async for pair in _primaries(store)]
    for address, info in found:
        problems = [
            problem
            for problem in info.problems()
            if not (allow_eviction and problem.startswith("maxmemory-policy"))
        ]
        if problems:
            raise ServerUnsuitable(f"{address}: " + "; ".join(problems))
    return info


async def _primaries(store: Store) -> AsyncGenerator[tuple[Address, ServerInfo]]:
    """Those that answer: a cluster works without the others, too."""
    for link in store.servers.primaries():
        try:
            yield link.address, await inspect(link)
        except StoreUnavailable as error:
            log.warning("%s: it is not known whether it can be used", error)


async def _setting(server: Asks, name: str) -> str | None:
    try:
        reply = await server.execute("CONFIG", "GET", name)
    except ServerReply:
        return None
    return str(reply[1], "utf-8") if reply else None


def parse_info(reply: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = (line.partition(":") for line in str(reply, "utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
