"""What may be a name, and how keys are spelled so that a cluster spreads and scripts stay whole."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolute.errors import ConfigurationError
from resolute.ids import (
    base36,
    check_name,
    check_run_id,
    new_run_id,
    nonces,
    process_name,
    random_text,
    root_of,
)
from resolute.status import RunStatus
from resolute.store.keys import SLOTS, Keys, MetaKeys, Partition, crc16

# Names.


@pytest.mark.parametrize("value", ["a", "order-7", "2026-11-22T10:00:00.5", "me@x.org", "x" * 200])
def test_a_run_id_of_a_user_is_accepted(value: str):
    assert check_run_id(value) == value


@pytest.mark.parametrize(
    "value", ["", "a/b", "a b", "a|b", "é", "a\n", "{a}", "x" * 201, "~1", "a\x00"]
)
def test_a_run_id_that_could_be_a_child_or_break_a_key_is_refused(value: str):
    with pytest.raises(ValueError, match="run id: expected 1 to 200") as caught:
        check_run_id(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["", "a/b", "a|b", "a{b", "x" * 101, "a b", "a\n"])
def test_a_name_that_could_break_a_key_or_a_record_is_refused(value: str):
    with pytest.raises(ValueError, match="node: expected 1 to 100"):
        check_name("node", value)


def test_ids_that_are_made_are_ids_and_are_never_made_twice():
    made = [new_run_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert {len(check_run_id(run_id)) for run_id in made} == {20}


def test_a_process_has_another_name_each_time():
    names = {process_name() for _ in range(100)}
    assert len(names) == 100
    assert all("|" not in name and " " not in name for name in names)


def test_nonces_never_repeat_within_a_process_nor_from_one_to_the_next():
    made = [*itertools.islice(nonces(), 5000), *itertools.islice(nonces(), 5000)]
    assert len(set(made)) == 10_000


@given(st.integers(0, 2**70))
def test_base_36_can_be_read_back(number: int):
    assert int(base36(number), 36) == number


@pytest.mark.parametrize("length", [1, 8, 20])
def test_random_text_is_as_long_as_asked(length: int):
    assert len(random_text(length)) == length


@pytest.mark.parametrize(
    ("run_id", "root"), [("a", "a"), ("a/~1", "a"), ("a/step.3", "a"), ("a/s.1/t.2", "a")]
)
def test_the_root_of_a_family_is_what_comes_before_its_first_slash(run_id: str, root: str):
    assert root_of(run_id) == root


# Slots.


def slot(key: str) -> int:
    """The slot of a key as a cluster computes it: by what is in its first braces."""
    _, _, rest = key.partition("{")
    tag = rest.partition("}")[0]
    return crc16(tag or key) % SLOTS


def test_the_checksum_is_that_of_redis_cluster():
    """The example of its specification, and two slots as CLUSTER KEYSLOT tells them."""
    assert crc16("123456789") == 0x31C3
    assert (slot("foo"), slot("{bar}baz")) == (12_182, 5_061)


def keys_of(partition: Partition) -> list[str]:
    return [
        partition.inbox, partition.timers, partition.stats, partition.dead, partition.open,
        partition.flow("run"), partition.flow("a/b.1"), partition.queue("q"),
        partition.queue("q", "plan"), partition.open_of("f"), partition.ended(RunStatus.FAILED),
        partition.ended(RunStatus.FAILED, "f"), partition.channel("run"),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 16, 100, 1024])
@pytest.mark.parametrize("namespace", ["resolute", "prod:eu", "é"])
def test_each_partition_has_one_slot_in_its_own_range_of_them(namespace: str, count: int):
    keys = Keys(namespace, count)
    for number, partition in enumerate(keys.partitions):
        slots = {slot(key) for key in keys_of(partition)}
        assert len(slots) == 1
        assert number * SLOTS // count <= slots.pop() < (number + 1) * SLOTS // count


@pytest.mark.parametrize(("primaries", "difference"), [(3, 1), (4, 0), (5, 2), (8, 0)])
def test_sixteen_partitions_spread_evenly_over_primaries(primaries: int, difference: int):
    """A cluster gives each primary one range of the slots."""
    keys = Keys("resolute", 16)
    found = Counter(slot(p.inbox) * primaries // SLOTS for p in keys.partitions)
    assert len(found) == primaries
    assert max(found.values()) - min(found.values()) <= difference


def test_a_family_lives_in_one_partition():
    keys = Keys("resolute", 16)
    for number in range(200):
        root = f"order-{number}"
        family = [root, f"{root}/~1", f"{root}/ship.3", f"{root}/ship.3/pack.1"]
        assert len({keys.of(run_id).number for run_id in family}) == 1


def test_runs_spread_over_all_partitions():
    keys = Keys("resolute", 16)
    found = Counter(keys.of(f"order-{number}").number for number in range(16_000))
    assert len(found) == 16
    assert max(found.values()) < 1.3 * min(found.values())


def test_no_two_things_have_the_same_key():
    keys = Keys("resolute", 3)
    meta = keys.meta
    names = [
        meta.partitions, meta.plans, meta.flows, meta.processes, meta.beats, meta.ticks,
        meta.departed, meta.version, meta.cancels("p"), meta.bucket("b"), meta.bucket("b", "k"),
        *(key for partition in keys.partitions for key in keys_of(partition)),
    ]  # fmt: skip
    assert len(set(names)) == len(names)


def test_the_keys_of_a_namespace_share_a_slot_but_each_bucket_has_its_own():
    meta = MetaKeys("resolute")
    shared = [meta.partitions, meta.plans, meta.flows, meta.processes, meta.beats, meta.ticks]
    shared += [meta.departed, meta.version, meta.cancels("p")]
    assert len({slot(key) for key in shared}) == 1
    buckets = {slot(meta.bucket("api", f"tenant-{number}")) for number in range(100)}
    assert len(buckets) > 50


@pytest.mark.parametrize("text", ["", "a", "a:b", "{a}", "}", "é/ü", "a b"])
def test_whatever_splits_a_bucket_it_stays_one_key_of_one_slot(text: str):
    key = MetaKeys("resolute").bucket("api", text)
    assert key.startswith("{resolute:limit:api")
    assert key.index("}") == len(key) - 1


@given(st.text(max_size=20), st.text(max_size=20))
def test_different_texts_split_a_bucket_into_different_ones(one: str, other: str):
    meta = MetaKeys("resolute")
    try:
        same = meta.bucket("api", one) == meta.bucket("api", other)
    except UnicodeEncodeError:
        return
    assert same == (one == other)


@pytest.mark.parametrize("namespace", ["", "{", "a}b", "x" * 101])
def test_a_namespace_with_braces_is_refused(namespace: str):
    with pytest.raises(ConfigurationError, match="without braces"):
        MetaKeys(namespace)


def test_the_queue_of_a_stream_can_be_read_back():
    partition = Keys("resolute", 3).partitions[1]
    for queue, plan in (("q", ""), ("a:b", ""), ("q", "abc")):
        stream = partition.queue(queue, plan)
        assert partition.queue_of(stream) == (f"{queue}@{plan}" if plan else queue)
