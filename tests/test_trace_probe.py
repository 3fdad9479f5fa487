"""Probes that are compiled with their programs: the same to everyone as the class's shim and bpf_trace_run, only quicker."""

from __future__ import annotations

import pytest

from fastrtp.helpers.table import HELPERS
from fastrtp.isa import assemble, encode
from fastrtp.jit.facts import NO_FACTS, ProgramFacts
from fastrtp.jit.probe_text import probe_text
from fastrtp.kernel import Kernel
from fastrtp.kernel.objects.prog import BpfProg

RAW_TP = 17
PROTO = "u64 key, int value, u8 flag"
PRINTS = """
    *(u32 *)(r10 -8) = 0x000a6968
    r1 = r10
    r1 += -8
    r2 = 4
    call bpf_trace_printk#6
    r0 = 0
    exit"""
SUM_OF_ARGUMENTS = "r0 = *(u64 *)(r1 +0)\nr2 = *(u64 *)(r1 +8)\nr0 += r2\nr2 = *(u64 *)(r1 +16)\nr0 += r2\n"


def load(kernel: Kernel, text: str, expected: str) -> tuple[int, BpfProg]:
    """(descriptor, program), loaded as a loader does that knows where it will be attached ("": as one that does not)."""
    kernel.current.expected = expected
    fd = kernel.prog_load(RAW_TP, encode(assemble(text)), name="p")
    kernel.current.expected = ""
    return fd, kernel.current.files.fget(fd).private_data


@pytest.fixture
def machine(kernel: Kernel) -> Kernel:
    kernel.trace_event("probed", PROTO)
    kernel.trace_event("other", "u64 key")
    return kernel


def test_a_program_whose_tracepoint_is_known_has_a_probe_of_its_own(machine: Kernel):
    fd, prog = load(machine, "r0 = 0\nexit", "probed")
    machine.raw_tracepoint_open("probed", fd)

    assert list(prog.native.probes) == ["841"]
    assert [func.func for func in machine.tracepoints["probed"].funcs] == [prog.native.probes["841"]]


def test_elsewhere_the_shim_serves(machine: Kernel):
    fd, prog = load(machine, "r0 = 0\nexit", "probed")
    machine.raw_tracepoint_open("other", fd)
    machine.trace("other")(1)

    assert [func.func for func in machine.tracepoints["other"].funcs] == [machine.kallsyms.lookup_name("__bpf_trace_other")]
    assert prog.runs == 1


def test_a_program_of_unknown_use_has_none(machine: Kernel):
    assert load(machine, "r0 = 0\nexit", "")[1].native.probes == {}
    assert load(machine, "r0 = 0\nexit", "no_such_tracepoint")[1].native.probes == {}


@pytest.mark.parametrize("expected", ["probed", ""])
class TestBothWays:
    """What can be seen is the same through a probe of one's own and through the shim."""

    def test_arguments_are_cast_and_counted(self, machine: Kernel, expected: str):
        array = machine.map_create(2, 4, 8, 1)
        text = f"""{SUM_OF_ARGUMENTS}
            r6 = r0
            *(u32 *)(r10 -4) = 0
            r2 = r10
            r2 += -4
            r1 = map[fd:{array}]
            call bpf_map_lookup_elem#1
            if r0 == 0 goto +1
            *(u64 *)(r0 +0) = r6
            r0 = 0
            exit"""
        fd, prog = load(machine, text, expected)
        machine.raw_tracepoint_open("probed", fd)

        machine.trace("probed")(1 << 40, -1, 0x1FF)

        assert int.from_bytes(machine.map_lookup_elem(array, bytes(4)), "little") == (1 << 40) + 0xFFFFFFFF + 0xFF
        assert (prog.runs, prog.stats()) == (1, (0, 0, 0))

    def test_a_nested_run_is_a_miss(self, machine: Kernel, expected: str):
        fd, prog = load(machine, PRINTS, expected)
        machine.raw_tracepoint_open("probed", fd)
        machine.raw_tracepoint_open("bpf_trace_printk", fd)

        for _ in range(2):
            machine.trace("probed")(1, 2, 3)

        assert (prog.runs, prog.stats()[2]) == (2, 2)

    def test_a_program_that_is_running_misses_the_event(self, machine: Kernel, expected: str):
        fd, prog = load(machine, PRINTS, expected)
        machine.raw_tracepoint_open("probed", fd)
        prog.record.stats["active"][0] = 1

        machine.trace("probed")(1, 2, 3)

        assert (prog.runs, prog.stats()[2]) == (0, 1)

    def test_statistics(self, machine: Kernel, expected: str):
        fd, prog = load(machine, "r0 = 0\nexit", expected)
        machine.raw_tracepoint_open("probed", fd)
        holder = machine.enable_stats()
        machine.trace("probed")(1, 2, 3)
        machine.close(holder)
        machine.trace("probed")(1, 2, 3)

        assert prog.runs == 2
        assert prog.stats()[1] == 1
        assert prog.stats()[0] > 0

    def test_the_stack_can_be_named_and_nothing_above_it(self, machine: Kernel, expected: str):
        array = machine.map_create(2, 4, 8, 1)
        text = f"""
            *(u64 *)(r10 -16) = 77
            r1 = r10
            r1 += -8
            r2 = 8
            r3 = r10
            r3 += -16
            call bpf_probe_read_kernel#113
            r6 = *(u64 *)(r10 -8)
            r1 = r10
            r1 += -8
            r2 = 8
            r3 = r10
            r3 += 4096
            call bpf_probe_read_kernel#113
            if r0 == 0 goto +1
            r6 += 1
            *(u32 *)(r10 -4) = 0
            r2 = r10
            r2 += -4
            r1 = map[fd:{array}]
            call bpf_map_lookup_elem#1
            if r0 == 0 goto +1
            *(u64 *)(r0 +0) = r6
            r0 = 0
            exit"""
        fd, _prog = load(machine, text, expected)
        machine.raw_tracepoint_open("probed", fd)

        machine.trace("probed")(1, 2, 3)

        assert int.from_bytes(machine.map_lookup_elem(array, bytes(4)), "little") == 78


def test_what_a_program_cannot_notice_is_left_out():
    plain = probe_text("bpf_prog", "8", NO_FACTS)
    prints = probe_text("bpf_prog", "8", ProgramFacts(frozenset({"fires", "env.run_ctx"})))
    cookie = probe_text("bpf_prog", "8", ProgramFacts(frozenset({"run_ctx.cookie", "env.run_ctx"})))

    assert "@bpf_run_begin(i64 %stats, i64 0)" in plain
    assert "@bpf_run_begin(i64 %stats, i64 1)" in prints
    assert "call ptr @llvm.frameaddress" in prints
    assert "call i64 @bpf_run_ctx" in cookie
    assert "call i64 @bpf_run_ctx" not in plain + prints


def test_helpers_that_fire_events_or_read_the_run_are_found_by_their_bodies(kernel: Kernel):
    """What fused loops and probes leave out follows from the bodies: every helper with one is in the table of uses."""
    uses = kernel.memory.lib.uses
    bodies = {row.name: uses[f"bpf_{row.name}"] for row in HELPERS.values() if f"bpf_{row.name}" in uses}
    facts = {name: ProgramFacts(used) for name, used in bodies.items()}

    assert {name for name, fact in facts.items() if fact.nests} == {"trace_printk", "trace_vprintk", "tail_call"}
    assert {name for name, fact in facts.items() if fact.run_ctx} == {"tail_call", "get_attach_cookie"}
    assert {name for name, fact in facts.items() if fact.timers} == {"timer_start"}
    assert {"ktime_get_ns", "jiffies64"} <= {name for name, fact in facts.items() if fact.asks("time")}
    assert {"get_current_comm", "get_current_task"} <= {name for name, fact in facts.items() if fact.asks("current")}
    assert {"get_stack", "get_stackid"} <= {name for name, fact in facts.items() if fact.asks("kernel_stack")}
    assert not facts["map_lookup_elem"].asks("time")
