"""Tail calls as they run: what counts, what a function gives back, what may stand in a program array."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import Any

import pytest
import static_funcs

from fastrtp.btf import Btf
from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.uapi import MAX_TAIL_CALL_CNT, BpfAttachType, BpfMapType, BpfProgType

RAW_TP, WRITABLE = BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE
SLOTS = 4


class Arrays:
    """A kernel with a program array, and an array of one counter."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.progs = kernel.map_create(BpfMapType.BPF_MAP_TYPE_PROG_ARRAY, 4, 4, SLOTS)
        self.counter = kernel.map_create(BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 8, 1)
        self.btf = kernel.btf_load(static_funcs.BLOB)

    def load(self, text: str, kind: int = RAW_TP, **fields: Any) -> int:
        """A program; `map[fd:1]` is the program array, `map[fd:2]` the counter."""
        fds = {1: self.progs, 2: self.counter}
        insns = [i._replace(imm=fds[i.imm]) if i.code == 0x18 and i.src_reg in (1, 2) else i for i in assemble(text)]
        rows = b"".join(struct.pack("<II", *row) for row in static_funcs.func_info(insns))
        return self.kernel.prog_load(kind, encode(insns), btf_fd=self.btf, func_info=rows, **fields)

    def put(self, index: int, prog: int) -> None:
        """Fill a slot."""
        self.kernel.map_update_elem(self.progs, struct.pack("<I", index), struct.pack("<I", prog))

    def count(self) -> int:
        """The counter."""
        return int(struct.unpack("<Q", self.kernel.map_lookup_elem(self.counter, bytes(4)))[0])


@pytest.fixture
def arrays(kernel: Kernel) -> Arrays:
    return Arrays(kernel)


COUNT = "r1 = map[fd:2][0]+0\nr2 = 1\nlock *(u64 *)(r1 +0) += r2\n"
CALL = "r1 = r6\nr2 = map[fd:1]\nr3 = {}\ncall bpf_tail_call#12\n"


@pytest.mark.parametrize("index", [3, SLOTS, -1], ids=["an empty slot", "a slot past the end", "an index of all ones"])
def test_only_calls_of_a_program_count(arrays: Arrays, index: int) -> None:
    """40 calls of nothing leave all 33 to those that follow."""
    caller = arrays.load("r6 = r1\n" + CALL.format(index) * 40 + COUNT + CALL.format(0) + "r0 = 5\nexit")
    arrays.put(0, caller)

    assert arrays.kernel.prog_test_run(caller) == 5
    assert arrays.count() == MAX_TAIL_CALL_CNT + 1


def test_calls_in_functions_count_with_the_others(arrays: Arrays) -> None:
    """33 in a run, wherever they are made."""
    function = "f: r6 = r1\n" + CALL.format(0) + "r0 = 0\nexit"
    caller = arrays.load("r6 = r1\n" + COUNT + "r1 = r6\ncall f\nr1 = r6\ncall f\nr0 = 9\nexit\n" + function)
    arrays.put(0, caller)

    assert arrays.kernel.prog_test_run(caller) == 9
    assert arrays.count() == MAX_TAIL_CALL_CNT + 1


@pytest.mark.parametrize("result", [0, 1, 0x41414141, -1, 1 << 40])
def test_a_function_returns_what_the_other_program_returned(arrays: Arrays, result: int) -> None:
    """All 64 bits of it, whatever the function itself returns; nothing that follows in the function runs."""
    text = "r6 = r1\ncall f\nr7 = 1\nif r0 == 3 goto own\nr7 = 2\nown:\nr0 >>= 32\n"
    text += "r1 = map[fd:2][0]+0\n*(u64 *)(r1 +0) = r0\nr0 = r7\nexit\n"
    caller = arrays.load(text + "f: r6 = r1\n" + CALL.format(0) + "r0 = 3\nexit")
    assert (arrays.kernel.prog_test_run(caller), arrays.count()) == (1, 0)

    arrays.put(0, arrays.load(f"r0 = {result & (1 << 64) - 1:#x} ll\nexit"))

    assert arrays.kernel.prog_test_run(caller) == 2
    assert arrays.count() == (result >> 32) & 0xFFFFFFFF


def test_what_a_program_writes_before_it_returns_is_seen(arrays: Arrays) -> None:
    """The caller's own last store to a value is not what it reads back."""
    text = "r6 = r1\nr7 = map[fd:2][0]+0\nr1 = 1\n*(u64 *)(r7 +0) = r1\nr1 = r6\ncall f\nr0 = *(u64 *)(r7 +0)\nexit\n"
    caller = arrays.load(text + "f: r6 = r1\n" + CALL.format(0) + "r0 = 0\nexit")
    assert arrays.kernel.prog_test_run(caller) == 1

    arrays.put(0, arrays.load("r1 = map[fd:2][0]+0\nr2 = 77\n*(u64 *)(r1 +0) = r2\nr0 = 0\nexit"))

    assert arrays.kernel.prog_test_run(caller) == 77


def touching(size: int) -> str:
    """Instructions that write the last of so many bytes of the tracepoint's buffer."""
    return f"r1 = *(u64 *)(r1 +0)\n*(u8 *)(r1 +{size - 1}) = 0\n" if size else ""


def buffer(size: int) -> str:
    return touching(size) + "r0 = 0\nexit"


def buffer_caller(size: int) -> str:
    return "r6 = r1\n" + touching(size) + CALL.format(0) + "r0 = 0\nexit"


@pytest.mark.parametrize(("caller", "target"), [(0, 1), (4, 5), (4, 1 << 14)])
@pytest.mark.parametrize("order", ["caller first", "target first"])
def test_nothing_beyond_the_buffer_that_was_looked_at(arrays: Arrays, caller: int, target: int, order: str) -> None:
    """At attach only the program itself is held against the buffer of the tracepoint: those it calls may touch no more."""
    if order == "caller first":
        arrays.load(buffer_caller(caller), WRITABLE)
        refused = arrays.load(buffer(target), WRITABLE)
        with pytest.raises(BpfError, match="bytes of its tracepoint's buffer") as caught:
            arrays.put(0, refused)
    else:
        arrays.put(0, arrays.load(buffer(target), WRITABLE))
        with pytest.raises(BpfError, match="more of its tracepoint's buffer") as caught:
            arrays.load(buffer_caller(caller), WRITABLE)

    assert caught.value.errno == errno.EINVAL


def test_as_much_of_the_buffer_may_be_touched(arrays: Arrays) -> None:
    """By both."""
    arrays.load(buffer_caller(4), WRITABLE)
    arrays.put(0, arrays.load(buffer(4), WRITABLE))
    arrays.put(1, arrays.load(buffer(0), WRITABLE))


def tp_btf(kernel: Kernel, name: str) -> dict[str, int]:
    """What makes a program one of a tracepoint with typed arguments."""
    return {"expected_attach_type": BpfAttachType.BPF_TRACE_RAW_TP, "attach_btf_id": kernel.btf.find(f"btf_trace_{name}") or 0}


def prototypes(btf: Btf, names: Sequence[str]) -> set[int]:
    return {btf.type(btf.type(btf.find(f"btf_trace_{name}") or 0).type).type for name in names}


def test_programs_of_tracepoints_with_the_same_arguments(arrays: Arrays) -> None:
    """Of an array of tp_btf programs the type of the arguments is looked at, not the tracepoint."""
    kernel, tracing = arrays.kernel, BpfProgType.BPF_PROG_TYPE_TRACING
    assert len(prototypes(kernel.btf, ["sched_wakeup", "sched_waking"])) == 1
    arrays.load("r6 = r1\n" + CALL.format(0) + "r0 = 0\nexit", tracing, **tp_btf(kernel, "sched_wakeup"))
    arrays.put(0, arrays.load("r0 = 0\nexit", tracing, **tp_btf(kernel, "sched_waking")))

    with pytest.raises(BpfError) as caught:
        arrays.put(1, arrays.load("r0 = 0\nexit", tracing, **tp_btf(kernel, "sched_switch")))
    assert caught.value.errno == errno.EINVAL


def test_many_functions_deep() -> None:
    """Every program of the chain runs below functions of its own: the native stack is deep enough for all 33."""
    with Kernel() as kernel:
        arrays = Arrays(kernel)
        functions = "".join(f"f{n}: *(u64 *)(r10 -24) = 1\ncall f{n + 1}\nr0 += 1\nexit\n" for n in range(1, 7))
        last = "f7: r6 = r1\n" + CALL.format(0) + "r0 = 0\nexit"
        caller = arrays.load("r6 = r1\n" + COUNT + "r1 = r6\ncall f1\nexit\n" + functions + last)
        arrays.put(0, caller)

        assert kernel.prog_test_run(caller) == 6 * (MAX_TAIL_CALL_CNT + 1)
        assert arrays.count() == MAX_TAIL_CALL_CNT + 1
