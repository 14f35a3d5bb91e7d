"""Reading a hash from code that cannot wait on a loop."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import cast

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from resolute.errors import StoreError, StoreUnavailable
from resolute.store.connection import Link

TIMEOUT = 5.0  # s


class SyncReader:
    """One blocking connection, made when it is first needed; several threads take turns.

    It follows `link`: where that had to connect anew, the server behind this connection may have
    been demoted, and a replica answers reads with what is no longer so.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._generation = 0
        self._client: redis.Redis | None = None
        self._turn = threading.Lock()

    def hmget(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        """The values of fields of a hash. Raises StoreUnavailable, StoreError."""
        try:
            with self._turn:
                values = self._redis().hmget(key, list(fields))
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise StoreUnavailable(f"reading an output: {error}") from error
        except RedisError as error:
            raise StoreError(str(error)) from error
        return cast("list[bytes | None]", values)

    def hkeys(self, key: str) -> list[str]:
        """The fields of a hash. Raises StoreUnavailable, StoreError."""
        try:
            with self._turn:
                names = cast("list[bytes]", self._redis().hkeys(key))
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise StoreUnavailable(f"reading the outputs: {error}") from error
        except RedisError as error:
            raise StoreError(str(error)) from error
        return [str(name, "utf-8") for name in names]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _redis(self) -> redis.Redis:
        if self._generation != self._link.generation:
            self.close()
            self._client, self._generation = None, self._link.generation
        if self._client is None:
            self._client = redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]  # untyped **kwargs
                self._link.address.url,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=1.0), 6),
            )
        return self._client
