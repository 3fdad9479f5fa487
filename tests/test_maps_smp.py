"""Maps, helpers and counters while several threads run programs on them at a time: nothing is lost, torn, or freed twice.

Threads own CPUs as in a parallel replay. Programs: data/maps/hammer.bpf.c; each test says what must hold afterwards.

What native bodies share between CPUs, and what keeps it right (audited body by body; SHARED below is checked against the
sources, so a new body has to be put somewhere):

- alone: works on its arguments, on the program's stack, or on what is the CPU's own (Env, ProgStats, a per-CPU value or
  buffer, ftrace's ring of the CPU); or is only called between turns, under the machine;
- atomic: single words by atomic instructions: counters, ring positions, pointers, reference counts;
- locked: a bucket, a spin lock of the map or of the machine's record, or one that the verifier makes the program hold;
- single: the verifier's core, of which each run has its own states;
- ordered: timers, whose firing needs the order of all events: such programs are replayed by one thread.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.generated import NAME, bound, player
from fastrtp.errors import BpfError
from fastrtp.kernel import Kernel
from fastrtp.kernel.loader.object import BpfObject

HAMMER = Path(__file__).resolve().parent / "data" / "maps" / "hammer.bpf.o"
PACKAGE = Path(__file__).resolve().parents[1] / "fastrtp"
CPUS = 2
EVENTS = int(os.environ.get("FASTRTP_STRESS_EVENTS", "200000"))

SHARED = {
    "helpers/bprintf_native": "alone", "helpers/btf_show_native": "alone",
    "helpers/cpumask_native": "ordered", "helpers/kstring_native": "alone",
    "helpers/packet_native": "alone", "helpers/perf_native": "alone", "helpers/siphash_native": "alone",
    "helpers/sock_native": "alone",
    "helpers/dynptr_native": "atomic", "helpers/format_native": "locked", "helpers/percpu_native": "alone",
    "helpers/probe_native": "alone", "helpers/section_native": "locked", "helpers/signal_native": "locked",
    "helpers/string_native": "alone", "helpers/tail_call_native": "alone", "helpers/task_native": "alone",
    "helpers/time_native": "alone", "jit/conformance_native": "alone", "maps/arraymap_native": "atomic",
    "maps/bytes_native": "alone", "maps/graph_native": "locked",
    "maps/field_rows_native": "alone", "maps/fields_native": "locked",
    "maps/bloom_filter_native": "atomic", "maps/local_storage_native": "locked", "maps/lpm_trie_native": "locked",
    "maps/map_push_native": "locked", "maps/queue_stack_native": "locked",
    "maps/hashtab_native": "locked", "maps/hashtab_lru_native": "locked", "maps/lru_list_native": "locked",
    "maps/htab_any_native": "locked", "maps/htab_value_native": "locked", "maps/htab_chain_native": "locked",
    "maps/htab_elem_native": "atomic", "maps/htab_pool_native": "atomic", "maps/map_native": "locked",
    "maps/object_native": "atomic", "maps/ringbuf_native": "atomic", "maps/stackmap_native": "locked",
    "maps/timer_native": "ordered", "maps/user_ringbuf_native": "atomic", "native/backlog_native": "locked",
    "native/heap_native": "locked",
    "native/machine_native": "alone", "native/smp_native": "atomic", "record/perf_data_native": "alone",
    "record/ring_buffer_native": "alone",
    "replay/loop_native": "alone", "replay/parallel_native": "atomic", "trace/fire_native": "alone",
    "trace/ftrace_native": "alone", "trace/live_native": "alone", "trace/perf_native": "atomic",
    "trace/trampoline_native": "alone",
    **{str(path.relative_to(PACKAGE).with_suffix("")): "single" for path in (PACKAGE / "verifier").rglob("*_native.py")},
}  # fmt: skip
"""By module: how its bodies get along with other CPUs."""


def test_every_native_body_has_been_audited() -> None:
    found = {str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*_native.py")}

    assert found == SHARED.keys()


@pytest.fixture
def hammer() -> Iterator[tuple[Kernel, BpfObject]]:
    with Kernel(cpus=CPUS) as kernel:
        kernel.trace_event(NAME, "u64 key, u64 value, u32 flags")
        yield kernel, kernel.load(HAMMER)


def play(
    hammer: tuple[Kernel, BpfObject], *names: str, keys: int = 1024, events: int = EVENTS, fuse: bool = True, on: str = NAME
) -> dict[str, Any]:
    """Run programs on random events of two CPUs, on two threads; the columns, and the object's counters afterwards."""
    kernel, obj = hammer
    rng = np.random.default_rng(7)
    columns: dict[str, Any] = {
        "cpu": rng.integers(0, CPUS, events), "key": rng.integers(0, keys, events), "value": rng.integers(0, 1 << 30, events)
    }  # fmt: skip
    links = [obj.programs[name].attach(NAME) if on == NAME else obj.programs[name].attach() for name in names]
    made = bound(kernel, **columns, name=on)
    with player(kernel, made, cpus=CPUS, fuse=fuse, window=None) as playing:
        assert playing.threads == CPUS
        assert playing.run() == events
    for link in links:
        link.close()
    counters = next(held for name, held in obj.maps.items() if name.endswith(".bss"))
    return columns | next(iter(counters.items()))[1]


def values(hammer: tuple[Kernel, BpfObject], name: str) -> dict[int, Any]:
    """What a map holds, its elements counted twice."""
    held = hammer[1].maps[name]
    items = list(held.items())

    assert len({key for key, _ in items}) == len(items)
    return dict(items)


def fill(hammer: tuple[Kernel, BpfObject], name: str) -> int:
    """Put new keys in until the map is full; how many elements it has then: were one lost or free twice, not max_entries."""
    contents = hammer[1].maps[name].map
    for key in itertools.count(1 << 20):
        try:
            contents.update_elem(struct.pack("<I", key), bytes(contents.value_size_user))
        except BpfError:
            break
    return len(list(contents.raw_items()))


BOTH = pytest.mark.parametrize("fuse", [True, False], ids=["fused", "linked"])


@BOTH
@pytest.mark.parametrize(("prog", "name"), [("hash", "counts"), ("lru_hash", "lru_counts"), ("array", "array_counts")])
def test_atomic_counts_are_exact(hammer: tuple[Kernel, BpfObject], prog: str, name: str, fuse: bool) -> None:
    seen = play(hammer, prog, keys=256, fuse=fuse)

    counted = {key: value for key, value in values(hammer, name).items() if value}
    assert counted == Counter(seen["key"].tolist())
    assert seen["failed"] == 0


@BOTH
@pytest.mark.parametrize(
    ("prog", "name"),
    [("percpu_hash", "percpu_counts"), ("lru_percpu_hash", "lru_percpu_counts"), ("percpu_array", "percpu_array_counts")],
)
def test_each_cpu_counts_for_itself(hammer: tuple[Kernel, BpfObject], prog: str, name: str, fuse: bool) -> None:
    seen = play(hammer, prog, keys=256, fuse=fuse)

    expected = Counter(zip(seen["key"].tolist(), seen["cpu"].tolist(), strict=True))
    assert values(hammer, name) == {key: [expected[key, cpu] for cpu in range(CPUS)] for key in range(256)}
    assert seen["failed"] == 0


def test_a_global_counter_and_programs_side_by_side(hammer: tuple[Kernel, BpfObject]) -> None:
    seen = play(hammer, "global", "hash", "land")

    assert (seen["total"], seen["landed"], sum(values(hammer, "counts").values())) == (EVENTS, EVENTS, EVENTS)


def test_wide_keys_that_come_and_go(hammer: tuple[Kernel, BpfObject]) -> None:
    """What is left has keys that are whole, each once, with values of their own."""
    seen = play(hammer, "wide_churn", keys=100)

    contents: Any = hammer[1].maps["wide_churned"].map
    left = {key: struct.unpack("<Q", value)[0] for key, value in contents.raw_items()}
    assert seen["torn"] == 0
    assert 0 < len(left) == len(contents) <= 64
    for raw, value in left.items():
        key, other, again, _pad = struct.unpack("<QQII", raw)
        assert (other, again, value) == (~key & (1 << 64) - 1, key, key << 32 | ~key & 0xFFFFFFFF)


@pytest.mark.parametrize(("prog", "name"), [("churn", "churned"), ("lru_churn", "lru_churned")])
@pytest.mark.parametrize("keys", [16, 60, 200])
def test_keys_that_come_and_go(hammer: tuple[Kernel, BpfObject], prog: str, name: str, keys: int) -> None:
    """Values belong to their keys, none is seen half, every element is in the map or free, and once."""
    seen = play(hammer, prog, keys=keys)

    left = values(hammer, name)
    contents: Any = hammer[1].maps[name].map
    assert left.items() <= {key: key << 32 | ~key & 0xFFFFFFFF for key in range(keys)}.items()
    assert len(contents) == len(left)
    assert seen["torn"] == 0
    if name == "churned":
        assert fill(hammer, name) == 64


def test_per_cpu_values_come_and_go(hammer: tuple[Kernel, BpfObject]) -> None:
    seen = play(hammer, "percpu_churn", keys=60)

    left = values(hammer, "percpu_churned")
    assert all(value in (0, key << 32 | ~key & 0xFFFFFFFF) for key, each in left.items() for value in each)
    assert seen["torn"] == 0
    assert fill(hammer, "percpu_churned") == 64


def test_a_walk_over_a_map_that_changes(hammer: tuple[Kernel, BpfObject]) -> None:
    seen = play(hammer, "churn", "walk", keys=60)

    assert seen["torn"] == 0
    assert seen["seen"] > 0


def test_a_full_map_is_full_for_all(hammer: tuple[Kernel, BpfObject]) -> None:
    seen = play(hammer, "hash", keys=5000)

    counted = values(hammer, "counts")
    assert len(counted) == 1024
    assert sum(counted.values()) + seen["failed"] == EVENTS


def test_an_lru_map_keeps_what_is_used(hammer: tuple[Kernel, BpfObject]) -> None:
    """Elements that a CPU has fetched and not filled are missing from a full map: twice 128 at the most (LOCAL_FREE_TARGET)."""
    play(hammer, "lru_hash", keys=5000)

    assert 1024 - 2 * 128 <= len(values(hammer, "lru_counts")) <= 1024


@pytest.mark.parametrize("prog", ["guard", "guard_hash"])
def test_spin_locks_exclude(hammer: tuple[Kernel, BpfObject], prog: str) -> None:
    name = {"guard": "guarded", "guard_hash": "guarded_hash"}[prog]
    contents = hammer[1].maps[name].map
    if prog == "guard_hash":
        for key in range(8):
            contents.update_elem(struct.pack("<I", key), bytes(24))

    seen = play(hammer, prog, on="sys_enter")

    expected = Counter((seen["value"] & 7).tolist())
    assert seen["torn"] == 0
    for key, value in contents.raw_items():
        lock, _pad, a, b = struct.unpack("<IIQQ", value)
        assert (lock, a, b) == (0, *[expected[int.from_bytes(key, "little")]] * 2)


def test_an_update_under_the_lock_is_seen_whole(hammer: tuple[Kernel, BpfObject]) -> None:
    assert play(hammer, "guard_update", on="sys_enter")["torn"] == 0


def test_words_of_a_replaced_value_are_whole(hammer: tuple[Kernel, BpfObject]) -> None:
    assert play(hammer, "replace")["torn"] == 0


@pytest.mark.parametrize("prog", ["ring_reserve", "ring_output"])
def test_two_producers_fill_a_ring(hammer: tuple[Kernel, BpfObject], prog: str) -> None:
    """Every record is there once and whole, each CPU's in its order."""
    events = 200_000
    seen = play(hammer, prog, events=events)

    ring: Any = hammer[1].maps["ring"].map
    records = np.frombuffer(b"".join(ring.consume()), [("cpu", "<u4"), ("key", "<u4"), ("value", "<u8"), ("check", "<u8")])
    kept = seen["value"] % 5 != 0 if prog == "ring_reserve" else np.ones(events, bool)
    assert (seen["failed"], ring.lost, len(records)) == (0, 0, int(kept.sum()))
    assert (records["check"] == ~records["value"]).all()
    for cpu in range(CPUS):
        mine = records[records["cpu"] == cpu]
        chosen = kept & (seen["cpu"] == cpu)
        assert (mine["value"] == seen["value"][chosen]).all()
        assert (mine["key"] == seen["key"][chosen]).all()


def test_two_producers_and_a_ring_that_is_full(hammer: tuple[Kernel, BpfObject]) -> None:
    events = 1_200_000
    seen = play(hammer, "ring_output", events=events)

    ring: Any = hammer[1].maps["ring"].map
    kept = sum(1 for _ in ring.consume())
    assert kept == ((1 << 24) - 1) // 32
    assert (seen["failed"], ring.lost) == (events - kept, events - kept)


@BOTH
@pytest.mark.parametrize("mixed", [False, True], ids=["equal", "mixed"])
def test_two_producers_and_a_consumer_between_turns(hammer: tuple[Kernel, BpfObject], mixed: bool, fuse: bool) -> None:
    """A ring of a page fills up in every turn: each record is there once and whole, and none was refused that had room."""
    kernel, obj = hammer
    events, turn = 40_000, 64
    rng = np.random.default_rng(3)
    cpu, value = rng.integers(0, CPUS, events), np.arange(events)
    key = rng.integers(0, 8, events) if mixed else np.full(events, 3)
    ring: Any = obj.maps["small"].map
    turns: list[list[bytes]] = []
    failed: list[int] = []

    def consume(_played: int, _events: int) -> None:
        turns.append(list(ring.consume()))
        failed.append(ring.lost - sum(failed))

    link = obj.programs["ring_sizes"].attach(NAME)
    with player(kernel, bound(kernel, cpu, key, value), cpus=CPUS, fuse=fuse, window=None, chunk=turn) as playing:
        assert playing.run(consume) == events
    link.close()

    records = [struct.unpack_from("<QII", record) for batch in turns for record in batch]
    assert len(turns) >= events // turn
    assert len({value for value, _cpu, _size in records}) == len(records) == events - sum(failed)
    for number in range(CPUS):
        assert (np.diff([value for value, on, _size in records if on == number]) > 0).all()
    for batch in turns:
        for record in batch:
            number, on, size = struct.unpack_from("<QII", record)
            assert (len(record), on, size) == (size, cpu[number], 24 + key[number] * 32)
            assert record[16:] == struct.pack("<Q", ~number & (1 << 64) - 1) * (size // 8 - 2)
    for batch, lost in zip(turns, failed, strict=True):
        used = sum(len(record) + 8 for record in batch)
        assert used < 4096
        if lost:
            assert used + (8 + 248 if mixed else 8 + 120) >= 4096


def test_two_producers_share_perf_rings(hammer: tuple[Kernel, BpfObject]) -> None:
    events = 100_000
    perf: Any = hammer[1].maps["perf"].map
    perf.open_rings(1 << 22)

    seen = play(hammer, "perf_output", events=events)

    samples = np.frombuffer(b"".join(blob[:24] for blob in perf.consume()), "<u4,<u4,<u8,<u8")
    assert (seen["failed"], perf.lost, len(samples)) == (0, 0, events)
    assert sorted(samples["f2"].tolist()) == sorted(seen["value"].tolist())
    assert (samples["f3"] == ~samples["f2"]).all()


def test_tail_calls_and_inner_maps(hammer: tuple[Kernel, BpfObject]) -> None:
    kernel, obj = hammer
    kernel.map_update_elem(obj.maps["jumps"].fd, bytes(4), struct.pack("<I", obj.programs["land"].fd))

    seen = play(hammer, "jump", "nested", keys=256)

    assert (seen["failed"], seen["landed"]) == (0, EVENTS)
    assert values(hammer, "inner_counts") == Counter(seen["key"].tolist())


def test_prints_are_whole_and_counted(hammer: tuple[Kernel, BpfObject]) -> None:
    events = 20_000
    kernel = hammer[0]
    seen = play(hammer, "print", events=events)

    lines = kernel.memory.trace_pipe()
    assert len(lines) + kernel.memory.printk_lost == events
    texts = {f"cpu {cpu} value {value}" for cpu, value in zip(seen["cpu"].tolist(), seen["value"].tolist(), strict=True)}
    assert {line[3].decode() for line in lines} <= texts


def test_random_numbers_are_those_of_each_cpu(hammer: tuple[Kernel, BpfObject]) -> None:
    """The generator is the CPU's own: the same numbers come, whatever the others do."""
    kernel = hammer[0]
    before = kernel.memory.env["rng"].copy()
    play(hammer, "global")

    assert (kernel.memory.env["rng"] == before).all()


def test_what_one_thread_alone_left_several_go_on_with(hammer: tuple[Kernel, BpfObject]) -> None:
    """Both forms of the code work on the same memory, in turns."""
    kernel, obj = hammer
    contents: Any = obj.maps["churned"].map
    for number in range(4):
        play(hammer, "churn", keys=60, events=50_000)
        link = obj.programs["churn"].attach(NAME)
        fire = kernel.trace(NAME, cpu=number & 1)
        for step in range(2000):
            fire(step * 7 % 60, step, 1)
        link.close()

    assert len(contents) == len(values(hammer, "churned"))
    assert fill(hammer, "churned") == 64
