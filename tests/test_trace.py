"""Tracepoints, probes, and the transition to a program."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from fastrtp.btf import ProtoArg, TracepointProto
from fastrtp.errors import BpfError
from fastrtp.isa import assemble
from fastrtp.jit.lower import LowerInput, find_subprogs
from fastrtp.jit.program import ENTRY, NativeProgram
from fastrtp.native.memory import Memory
from fastrtp.trace import (
    BpfRawEventMap,
    LinkRecord,
    ProgRecord,
    TraceFunction,
    Tracepoint,
    TracepointFunc,
    bpf_probe_register,
    bpf_probe_unregister,
    bpf_prog_test_run_raw_tp,
    tracepoint_probe_register,
    tracepoint_probe_unregister,
)
from fastrtp.trace.widths import MAX_ARGS, SHIM_WIDTHS


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory(2)
    yield memory
    memory.close()


def tracepoint(memory: Memory, widths: str, name: str = "event") -> Tracepoint:
    args = tuple(ProtoArg(f"a{n}", 0, int(width), False, False) for n, width in enumerate(widths))
    return Tracepoint(name, TracepointProto(name, args), memory)


@dataclass
class Loaded:
    """A program that writes what it sees to `out`: u64[16]."""

    memory: Memory
    native: NativeProgram
    record: ProgRecord
    out: int

    def seen(self, count: int) -> list[int]:
        return self.memory.arena.view(self.out, 8 * count).view(np.uint64).tolist()


def load(memory: Memory, text: str) -> Loaded:
    """Compile trusted assembly; OUT in it stands for the address of 16 zeroed u64."""
    out = memory.arena.alloc(128)
    insns = assemble(text.replace("OUT", str(out)))
    native = NativeProgram("test", LowerInput(name=ENTRY, insns=insns, subprogs=find_subprogs(insns)))
    return Loaded(memory, native, ProgRecord(memory, native.entry), out)


def recorder(memory: Memory, count: int) -> Loaded:
    """Stores args[0..count) and counts its runs in the slot behind them."""
    copies = "\n".join(f"r3 = *(u64 *)(r1 +{8 * n})\n*(u64 *)(r2 +{8 * n}) = r3" for n in range(count))
    return load(
        memory, f"r2 = OUT ll\n{copies}\nr3 = *(u64 *)(r2 +{8 * count})\nr3 += 1\n*(u64 *)(r2 +{8 * count}) = r3\nr0 = 0\nexit"
    )


def attach(tp: Tracepoint, prog: Loaded, cookie: int = 0) -> LinkRecord:
    link = LinkRecord(tp.memory, prog.record, cookie)
    bpf_probe_register(BpfRawEventMap(tp, tp.num_args), link)
    return link


@pytest.mark.parametrize("count", range(1, MAX_ARGS + 1))
def test_every_arity_passes_its_arguments_in_order(memory: Memory, count: int) -> None:
    tp = tracepoint(memory, "8" * count)
    prog = recorder(memory, count)
    attach(tp, prog)
    values = [(n + 1) * 0x1111111111111111 for n in range(count)]

    TraceFunction(tp, memory)(*values)

    assert prog.seen(count + 1) == [*[value & (2**64 - 1) for value in values], 1]


@pytest.mark.parametrize("widths", [*SHIM_WIDTHS, "12481248"])
def test_arguments_are_zero_extended_from_their_width(memory: Memory, widths: str) -> None:
    """CAST_TO_U64: an int of -1 arrives as 0x00000000ffffffff, whatever the caller's register held."""
    tp = tracepoint(memory, widths)
    prog = recorder(memory, len(widths))
    attach(tp, prog)
    args = np.full(12, 2**64 - 1, np.uint64)

    memory.lib.trace_fire(memory.machine_address, tp.address, memory.lib.symbols[f"trace_call{len(widths)}"], args.ctypes.data, 0)

    assert prog.seen(len(widths)) == [2 ** (8 * int(width)) - 1 for width in widths]


def test_probes_run_in_the_order_of_attachment(memory: Memory) -> None:
    """Three attached run 1, 2, 3; closing and reopening the first moves it to the tail."""
    tp = tracepoint(memory, "8")
    order = memory.arena.alloc(128)
    digits = [
        load(memory, f"r2 = {order} ll\nr3 = *(u64 *)(r2 +0)\nr3 *= 10\nr3 += {digit}\n*(u64 *)(r2 +0) = r3\nr0 = 0\nexit")
        for digit in (1, 2, 3)
    ]
    links = [attach(tp, prog) for prog in digits]
    result = memory.arena.view(order, 8).view(np.uint64)
    fire = TraceFunction(tp, memory)

    fire(0)
    assert result[0] == 123
    result[0] = 0
    bpf_probe_unregister(BpfRawEventMap(tp, 1), links[0])
    bpf_probe_register(BpfRawEventMap(tp, 1), links[0])
    fire(0)
    assert result[0] == 231


def test_higher_priorities_run_first_and_equals_in_order(memory: Memory) -> None:
    tp = tracepoint(memory, "8")
    for data, prio in ((1, 10), (2, 20), (3, 10), (4, 20)):
        tracepoint_probe_register(tp, TracepointFunc(memory.lib.symbols["__bpf_trace_8"], data, prio))

    assert [func.data for func in tp.funcs] == [2, 4, 1, 3]


def test_the_same_probe_twice_exists_and_an_absent_one_does_not(memory: Memory) -> None:
    tp = tracepoint(memory, "8")
    func = TracepointFunc(memory.lib.symbols["__bpf_trace_8"], 7)
    tracepoint_probe_register(tp, func)

    with pytest.raises(BpfError) as exists:
        tracepoint_probe_register(tp, func)
    with pytest.raises(BpfError) as absent:
        tracepoint_probe_unregister(tp, func.func, 8)

    assert (exists.value.errno, absent.value.errno) == (errno.EEXIST, errno.ENOENT)


def test_regfunc_runs_on_the_first_probe_and_unregfunc_on_the_last(memory: Memory) -> None:
    calls: list[str] = []
    tp = tracepoint(memory, "8")
    tp.regfunc, tp.unregfunc = lambda: calls.append("reg"), lambda: calls.append("unreg")
    prog = recorder(memory, 1)
    first, second = attach(tp, prog), attach(tp, prog)
    for link in (first, second):
        bpf_probe_unregister(BpfRawEventMap(tp, 1), link)

    assert calls == ["reg", "unreg"]


def test_a_regfunc_that_fails_leaves_nothing_registered(memory: Memory) -> None:
    tp = tracepoint(memory, "8")
    tp.regfunc = lambda: -errno.ENODEV

    with pytest.raises(BpfError) as caught:
        attach(tp, recorder(memory, 1))

    assert caught.value.errno == errno.ENODEV
    assert not tp.enabled


def test_a_program_on_two_links_of_one_tracepoint_runs_twice(memory: Memory) -> None:
    tp = tracepoint(memory, "8")
    prog = recorder(memory, 1)
    attach(tp, prog)
    attach(tp, prog)

    TraceFunction(tp, memory)(5)

    assert prog.seen(2) == [5, 2]
    assert prog.record.total("runs") == 2


def test_a_nested_run_of_the_same_program_is_missed_and_counted(memory: Memory) -> None:
    tp = tracepoint(memory, "8")
    prog = recorder(memory, 1)
    attach(tp, prog)
    prog.record.stats["active"][0] = 1

    TraceFunction(tp, memory)(5)
    assert (prog.seen(2), prog.record.total("misses"), prog.record.total("runs")) == ([0, 0], 1, 0)

    TraceFunction(tp, memory, cpu=1)(5)
    assert (prog.seen(2), prog.record.total("runs")) == ([5, 1], 1)


def test_run_time_is_kept_only_while_statistics_are_enabled(memory: Memory) -> None:
    tp = tracepoint(memory, "8")
    prog = recorder(memory, 1)
    attach(tp, prog)
    fire = TraceFunction(tp, memory)
    fire(1)
    assert (prog.record.total("run_cnt"), prog.record.total("run_time_ns")) == (0, 0)

    memory.keep_stats(on=True)
    fire(1)

    assert prog.record.total("run_cnt") == 1
    assert prog.record.total("run_time_ns") > 0
    assert prog.record.total("runs") == 2


def test_wrong_arguments_are_refused_with_the_prototype(memory: Memory) -> None:
    fire = TraceFunction(tracepoint(memory, "48", "my_event"), memory)

    with pytest.raises(TypeError, match=r"trace_my_event\(a0, a1\) takes 2 arguments, not 1"):
        fire(1)


def test_compiled_code_fires_the_same_tracepoint(memory: Memory) -> None:
    import numba

    tp = tracepoint(memory, "48")
    trace = TraceFunction(tp, memory).njit

    @numba.njit
    def many(count: int) -> None:
        for number in range(count):
            trace(-1, number)

    many(10)
    prog = recorder(memory, 2)
    link = attach(tp, prog)
    many(1000)
    bpf_probe_unregister(BpfRawEventMap(tp, 2), link)
    many(10)

    assert prog.seen(3) == [0xFFFFFFFF, 999, 1000]


def test_counts_are_exact_when_threads_fire_and_attach_at_once(memory: Memory) -> None:
    tp = tracepoint(memory, "8")
    steady, coming = recorder(memory, 1), recorder(memory, 1)
    attach(tp, steady)
    fire = TraceFunction(tp, memory)
    each = 3000

    def events() -> None:
        for number in range(each):
            fire(number)

    threads = [threading.Thread(target=events) for _ in range(3)]
    for thread in threads:
        thread.start()
    btp = BpfRawEventMap(tp, 1)
    while any(thread.is_alive() for thread in threads):
        link = LinkRecord(memory, coming.record)
        bpf_probe_register(btp, link)
        bpf_probe_unregister(btp, link)
        link.close()
    for thread in threads:
        thread.join()

    assert steady.seen(2)[1] == 3 * each
    assert steady.record.total("runs") == 3 * each
    assert coming.record.total("runs") <= 3 * each


def test_test_run_gives_r0_as_64_bits(memory: Memory) -> None:
    prog = load(memory, "r0 = *(u64 *)(r1 +8)\nexit")

    assert bpf_prog_test_run_raw_tp(memory, prog.record, struct.pack("<2Q", 1, 2**63 + 5)) == 2**63 + 5
    assert bpf_prog_test_run_raw_tp(memory, prog.record, b"") == 0
