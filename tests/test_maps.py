"""Maps by the system call's operations: contents, limits, errors of Linux."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.maps import ArrayMap, HashMap, Map, MapAttr, PerfEventArray, RingBuf, map_create
from fastrtp.maps.records import HtabBucket
from fastrtp.native.memory import Memory
from fastrtp.uapi import (
    BPF_ANY,
    BPF_EXIST,
    BPF_F_LOCK,
    BPF_F_NO_PREALLOC,
    BPF_F_RDONLY_PROG,
    BPF_F_WRONLY_PROG,
    BPF_NOEXIST,
    BpfMapType,
)

HASHES = [
    BpfMapType.BPF_MAP_TYPE_HASH,
    BpfMapType.BPF_MAP_TYPE_LRU_HASH,
    BpfMapType.BPF_MAP_TYPE_PERCPU_HASH,
    BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH,
]
CPUS = 2


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    memory = Memory(CPUS)
    yield memory
    memory.close()


def make(memory: Memory, kind: int, key: int, value: int, entries: int, flags: int = 0) -> Map:
    return map_create(MapAttr(kind, key, value, entries, flags, "m"), memory)


def error_of(action: object, *args: object) -> int:
    with pytest.raises(BpfError) as caught:
        action(*args)  # type: ignore[operator]
    assert caught.value.errno is not None
    return caught.value.errno


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 13), st.lists(st.tuples(st.sampled_from("udnx"), st.integers(0, 30)), max_size=200))
def test_a_hash_map_is_a_dict_with_a_limit(memory: Memory, key_size: int, actions: list[tuple[str, int]]) -> None:
    """Any sequence of updates and deletions leaves what a dict of at most 10 entries would hold, with Linux's errors."""
    hash_map = make(memory, BpfMapType.BPF_MAP_TYPE_HASH, key_size, 8, 10)
    model: dict[bytes, bytes] = {}
    for count, (action, number) in enumerate(actions):
        key, value = bytes([number] * key_size), struct.pack("<Q", count)
        if action == "d":
            if key in model:
                hash_map.delete_elem(key)
                del model[key]
            else:
                assert error_of(hash_map.delete_elem, key) == errno.ENOENT
            continue
        flags = {"u": BPF_ANY, "n": BPF_NOEXIST, "x": BPF_EXIST}[action]
        expected = 0
        if key in model and flags == BPF_NOEXIST:
            expected = errno.EEXIST
        elif key not in model and flags == BPF_EXIST:
            expected = errno.ENOENT
        elif key not in model and len(model) == 10:
            expected = errno.E2BIG
        if expected:
            assert error_of(hash_map.update_elem, key, value, flags) == expected
        else:
            hash_map.update_elem(key, value, flags)
            model[key] = value

    assert dict(hash_map.raw_items()) == model
    assert {key: hash_map.lookup_elem(key) for key in model} == model
    hash_map.close()


@pytest.mark.parametrize("kind", HASHES)
def test_walking_the_keys_visits_each_once(memory: Memory, kind: int) -> None:
    hash_map = make(memory, kind, 4, 8, 64)
    for number in range(50):
        hash_map.update_elem(u32(number), bytes(hash_map.value_size_user))
    hash_map.delete_elem(u32(7))
    seen: list[bytes] = []
    for _ in range(49):
        seen.append(hash_map.get_next_key(seen[-1] if seen else None))

    assert error_of(hash_map.get_next_key, seen[-1]) == errno.ENOENT
    assert sorted(seen) == sorted(u32(number) for number in range(50) if number != 7)


def test_an_unknown_key_starts_the_walk_over(memory: Memory) -> None:
    hash_map = make(memory, BpfMapType.BPF_MAP_TYPE_HASH, 4, 8, 4)
    hash_map.update_elem(u32(1), bytes(8))

    assert hash_map.get_next_key(u32(99)) == u32(1)


@pytest.mark.parametrize("kind", [BpfMapType.BPF_MAP_TYPE_LRU_HASH, BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH])
def test_a_full_lru_map_gives_up_old_entries(memory: Memory, kind: int) -> None:
    lru = make(memory, kind, 4, 8, 16)
    for number in range(17):
        lru.update_elem(u32(number), bytes(lru.value_size_user))
    keys = {struct.unpack("<I", key)[0] for key, _ in lru.raw_items()}

    assert keys == set(range(4, 17))


def test_per_cpu_values_are_those_of_every_cpu(memory: Memory) -> None:
    array = make(memory, BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 4, 3)
    values = struct.pack("<QQ", 5, 6)

    array.update_elem(u32(2), values)

    assert array.value_size_user == 8 * CPUS
    assert array.lookup_elem(u32(2)) == values
    assert list(array.items()) == [(0, [0, 0]), (1, [0, 0]), (2, [5, 6])]


def test_array_errors_are_those_of_linux(memory: Memory) -> None:
    array = make(memory, BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 8, 3)

    assert error_of(array.lookup_elem, u32(3)) == errno.ENOENT
    assert error_of(array.update_elem, u32(3), bytes(8)) == errno.E2BIG
    assert error_of(array.update_elem, u32(0), bytes(8), BPF_NOEXIST) == errno.EEXIST
    assert error_of(array.update_elem, u32(0), bytes(8), 8) == errno.EINVAL
    assert error_of(array.update_elem, u32(0), bytes(8), BPF_F_LOCK) == errno.EINVAL
    assert error_of(array.delete_elem, u32(0)) == errno.EINVAL
    assert error_of(array.lookup_and_delete_elem, u32(0)) == ENOTSUPP


def test_the_last_array_index_ends_the_walk(memory: Memory) -> None:
    array = make(memory, BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 8, 3)

    assert [array.get_next_key(None), array.get_next_key(u32(0)), array.get_next_key(u32(9))] == [u32(0), u32(1), u32(0)]
    assert error_of(array.get_next_key, u32(2)) == errno.ENOENT


def test_lookup_and_delete_takes_the_value_away(memory: Memory) -> None:
    hash_map = make(memory, BpfMapType.BPF_MAP_TYPE_HASH, 4, 8, 3)
    hash_map.update_elem(u32(1), struct.pack("<Q", 9))

    assert hash_map.lookup_and_delete_elem(u32(1)) == struct.pack("<Q", 9)
    assert error_of(hash_map.lookup_elem, u32(1)) == errno.ENOENT


def test_keys_and_values_of_the_wrong_size_are_refused(memory: Memory) -> None:
    hash_map = make(memory, BpfMapType.BPF_MAP_TYPE_HASH, 4, 8, 3)

    assert error_of(hash_map.lookup_elem, b"123") == errno.EINVAL
    assert error_of(hash_map.update_elem, u32(1), b"1234") == errno.EINVAL


A, H, P, L, R, E = (
    BpfMapType.BPF_MAP_TYPE_ARRAY,
    BpfMapType.BPF_MAP_TYPE_HASH,
    BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY,
    BpfMapType.BPF_MAP_TYPE_LRU_HASH,
    BpfMapType.BPF_MAP_TYPE_RINGBUF,
    BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
)


@pytest.mark.parametrize(
    ("kind", "key", "value", "entries", "flags", "expected"),
    [
        (A, 8, 8, 1, 0, errno.EINVAL),
        (A, 4, 0, 1, 0, errno.EINVAL),
        (A, 4, 8, 0, 0, errno.EINVAL),
        (A, 4, 8, 1, BPF_F_NO_PREALLOC, errno.EINVAL),
        (A, 4, 8, 1, BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG, errno.EINVAL),
        (A, 4, 1 << 31, 1, 0, errno.E2BIG),
        (P, 4, 40_000, 1, 0, errno.E2BIG),
        (H, 0, 8, 1, 0, errno.EINVAL),
        (H, 4, 0, 1, 0, errno.EINVAL),
        (H, 4, 8, 0, 0, errno.EINVAL),
        (H, 4, 5 << 20, 1, 0, errno.E2BIG),
        (L, 4, 8, 1, BPF_F_NO_PREALLOC, ENOTSUPP),
        (R, 0, 0, 4095, 0, errno.EINVAL),
        (R, 4, 0, 4096, 0, errno.EINVAL),
        (R, 0, 0, 0, 0, errno.EINVAL),
        (E, 4, 8, 1, 0, errno.EINVAL),
        (999, 4, 8, 1, 0, errno.EINVAL),
        (BpfMapType.BPF_MAP_TYPE_SOCKMAP, 4, 12, 1, 0, errno.EINVAL),
        (H, 4, 4 << 20 >> 1, 0xFFFFFFFF, 0, errno.ENOMEM),
    ],
)
def test_a_map_that_linux_refuses_is_refused(
    memory: Memory, kind: int, key: int, value: int, entries: int, flags: int, expected: int
) -> None:
    assert error_of(make, memory, kind, key, value, entries, flags) == expected


def test_a_refused_map_leaves_no_memory_behind(memory: Memory) -> None:
    before = memory.arena.allocated

    error_of(make, memory, H, 4, 4 << 20 >> 1, 0xFFFFFFFF, 0)

    assert memory.arena.allocated == before


def test_closing_a_map_gives_its_memory_back(memory: Memory) -> None:
    before = memory.arena.allocated
    for kind, key, value in ((H, 4, 8), (A, 4, 8), (P, 4, 8), (L, 4, 8), (R, 0, 0), (E, 4, 4)):
        make(memory, kind, key, value, 4096).close()

    assert memory.arena.allocated == before


def test_array_values_are_a_view(memory: Memory) -> None:
    array = make(memory, A, 4, 4, 5)
    assert isinstance(array, ArrayMap)

    array.values()[3] = [1, 2, 3, 4]

    assert array.lookup_elem(u32(3)) == bytes([1, 2, 3, 4])
    assert array.read_value(24, 4) == bytes([1, 2, 3, 4])


def test_hash_arrays_are_copies_of_one_moment(memory: Memory) -> None:
    hash_map = make(memory, H, 4, 8, 8)
    assert isinstance(hash_map, HashMap)
    for number in range(5):
        hash_map.update_elem(u32(number), struct.pack("<Q", number * number))

    keys, values = hash_map.arrays()

    assert keys.view("<u4").ravel().tolist() == [0, 1, 2, 3, 4]
    assert values.view("<u8").ravel().tolist() == [0, 1, 4, 9, 16]
    assert len(hash_map) == 5


def test_a_ring_gives_records_once_and_in_order(memory: Memory) -> None:
    ring = make(memory, R, 0, 0, 4096)
    assert isinstance(ring, RingBuf)
    env = memory.env_of(0)
    source = memory.arena.alloc(64)
    memory.arena.view(source, 64)[:] = range(64)

    for size in (1, 8, 13):
        assert memory.lib.bpf_ringbuf_output(ring.address, source, size, 0, env) == 0

    assert list(ring.consume()) == [bytes(range(size)) for size in (1, 8, 13)]
    assert list(ring.consume()) == []


def test_a_ring_goes_round_its_end(memory: Memory) -> None:
    ring = make(memory, R, 0, 0, 4096)
    assert isinstance(ring, RingBuf)
    source = memory.arena.alloc(1000)
    for turn in range(50):
        memory.arena.view(source, 1000)[:] = turn
        assert memory.lib.bpf_ringbuf_output(ring.address, source, 1000, 0, memory.env_of(0)) == 0

        assert list(ring.consume()) == [bytes([turn] * 1000)]


def test_a_full_ring_drops_and_counts(memory: Memory) -> None:
    ring = make(memory, R, 0, 0, 4096)
    assert isinstance(ring, RingBuf)
    source = memory.arena.alloc(2000)
    results = [memory.lib.bpf_ringbuf_output(ring.address, source, 2000, 0, memory.env_of(0)) for _ in range(3)]

    assert results == [0, 0, -errno.EAGAIN]
    assert ring.lost == 1


def test_discarded_and_unfinished_records_are_not_seen(memory: Memory) -> None:
    ring = make(memory, R, 0, 0, 4096)
    assert isinstance(ring, RingBuf)
    lib, env = memory.lib, memory.env_of(0)
    first, second, third = (lib.bpf_ringbuf_reserve(ring.address, 8, 0, env) for _ in range(3))
    lib.bpf_ringbuf_discard(first, 0, env)
    lib.bpf_ringbuf_submit(third, 0, env)

    assert list(ring.consume()) == []
    lib.bpf_ringbuf_submit(second, 0, env)
    assert list(ring.consume()) == [bytes(8), bytes(8)]


@pytest.mark.parametrize("size", [4096, 1 << 40, -1])
def test_a_record_that_cannot_fit_is_not_reserved(memory: Memory, size: int) -> None:
    ring = make(memory, R, 0, 0, 4096)

    assert memory.lib.bpf_ringbuf_reserve(ring.address, size, 0, memory.env_of(0)) == 0


def test_perf_samples_come_back_by_cpu_and_padded(memory: Memory) -> None:
    perf = make(memory, E, 4, 4, CPUS)
    assert isinstance(perf, PerfEventArray)
    source = memory.arena.alloc(16)
    memory.arena.view(source, 5)[:] = range(5)
    output, current = memory.lib.bpf_perf_event_output, 0xFFFFFFFF

    assert output(0, perf.address, current, source, 5, memory.env_of(1)) == -errno.ENOENT
    perf.open_rings(4096)
    assert output(0, perf.address, current, source, 5, memory.env_of(1)) == 0
    assert output(0, perf.address, 99, source, 5, memory.env_of(1)) == -errno.E2BIG
    assert output(0, perf.address, 1 << 32, source, 5, memory.env_of(1)) == -errno.EINVAL

    assert list(perf.consume_by_cpu()) == [(1, bytes([0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0]))]


def test_hashes_spread_over_the_whole_table(memory: Memory) -> None:
    """Multiplications wrap: were overflow undefined, LLVM would fold the hash of a constant-size key to a constant."""
    hash_map = make(memory, BpfMapType.BPF_MAP_TYPE_HASH, 4, 8, 1024)
    assert isinstance(hash_map, HashMap)
    for number in range(1024):
        hash_map.update_elem(u32(number), bytes(8))
    buckets = memory.arena.view(int(hash_map.record["slots"][0]), hash_map.slots * HtabBucket.layout.size).view(
        HtabBucket.layout.dtype
    )

    assert np.count_nonzero(buckets["first"]) > 700
