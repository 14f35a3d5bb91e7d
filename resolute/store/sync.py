"""Reading a hash from code that cannot wait on a loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import cast

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from resolute.errors import StoreError, StoreUnavailable
from resolute.store.connection import Address
from resolute.store.store import REDIRECTIONS, Store

TIMEOUT = 5.0  # s
ELSEWHERE = (AskError, TryAgainError, ClusterDownError)  # in a cluster: soon


class SyncReader:
    """One blocking connection to each server, made when it is needed; several threads take turns.

    It follows `store`: where that had to connect anew, the server behind this connection may have
    been demoted, and a replica answers reads with what is no longer so.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._generation = 0
        self._clients: dict[Address, redis.Redis] = {}
        self._turn = threading.Lock()

    def hmget(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        """The values of fields of a hash. Raises StoreUnavailable, StoreError."""
        values = self._read("reading an output", key, lambda one: one.hmget(key, list(fields)))
        return cast("list[bytes | None]", values)

    def hkeys(self, key: str) -> list[str]:
        """The fields of a hash. Raises StoreUnavailable, StoreError."""
        names = self._read("reading the outputs", key, lambda one: one.hkeys(key))
        return [str(name, "utf-8") for name in cast("list[bytes]", names)]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients = {}

    def _read(self, what: str, key: str, read: Callable[[redis.Redis], object]) -> object:
        topology = self._store.servers.topology
        try:
            with self._turn:
                for _ in range(REDIRECTIONS):
                    address = topology.address_of(key)
                    try:
                        return read(self._client_of(address))
                    except MovedError as error:
                        topology.moved(f"MOVED {error}", address)
        except (RedisConnectionError, RedisTimeoutError, *ELSEWHERE) as error:
            raise StoreUnavailable(f"{what}: {error}") from error
        except RedisError as error:
            raise StoreError(str(error)) from error
        raise StoreUnavailable(f"{what}: it was moved {REDIRECTIONS} times")

    def _client_of(self, address: Address) -> redis.Redis:
        if self._generation != self._store.generation:
            self.close()
            self._generation = self._store.generation
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]  # untyped **kwargs
                address.url,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=1.0), 6),
            )
        return client
