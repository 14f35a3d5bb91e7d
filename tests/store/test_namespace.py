"""A namespace has a name that fits into keys, and one number of partitions for good."""

from __future__ import annotations

import asyncio

import pytest

from resolute.errors import ConfigurationError
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer

one_partition = pytest.mark.parametrize("partitions", [1], indirect=True)


async def test_the_first_to_use_a_namespace_says_how_many_partitions_it_has(store: Store):
    count = len(store.keys.partitions)
    other = await Store.open(store.link.address.url, store.keys.meta.namespace)
    assert len(other.keys.partitions) == count
    await other.close()


async def test_a_number_of_partitions_that_was_lost_is_written_anew_by_who_knows_it(store: Store):
    """FLUSHALL: whoever comes next must not decide on another one."""
    count = store.keys.count
    await store.execute("DEL", store.keys.meta.partitions)
    await store.confirm_partitions()
    await store.confirm_partitions()
    assert int(await store.execute("GET", store.keys.meta.partitions)) == count


async def test_who_knows_another_number_than_that_which_was_written_anew_is_told(store: Store):
    await store.execute("SET", store.keys.meta.partitions, 7)
    with pytest.raises(ConfigurationError, match=r"has 7 partition\(s\)"):
        await store.confirm_partitions()


async def test_the_number_of_partitions_cannot_be_changed(store: Store):
    with pytest.raises(ConfigurationError, match="cannot be given 7"):
        await Store.open(store.link.address.url, store.keys.meta.namespace, partitions=7)


@one_partition
async def test_of_many_that_use_a_namespace_first_all_have_the_same_number(store: Store):
    namespace = f"{store.keys.meta.namespace}-new"
    opened = await asyncio.gather(
        *(
            Store.open(store.link.address.url, namespace, partitions=n)
            for n in (4, None, 2, 4, None)
        ),
        return_exceptions=True,
    )
    stores = [found for found in opened if isinstance(found, Store)]
    assert len({len(found.keys.partitions) for found in stores}) == 1
    for found in stores:
        await found.execute("DEL", found.keys.meta.partitions)
        await found.close()
    for found in opened:
        assert isinstance(found, Store | ConfigurationError)


@one_partition
@pytest.mark.parametrize("partitions_wanted", [0, -1, 1025])
async def test_a_senseless_number_of_partitions_is_refused(store: Store, partitions_wanted: int):
    with pytest.raises(ConfigurationError, match="expected 1 to 1024"):
        await Store.open(store.link.address.url, "senseless", partitions=partitions_wanted)


@pytest.mark.parametrize("namespace", ["", "a{b", "a}b", "x" * 101])
async def test_a_namespace_that_would_break_the_hash_tags_is_refused(
    server: EmbeddedServer, namespace: str
):
    with pytest.raises(ConfigurationError, match="namespace"):
        await Store.open(server.url, namespace)
