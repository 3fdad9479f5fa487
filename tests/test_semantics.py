"""Linux's contract for raw tracepoints, sentence by sentence: one case for each, named by it.

A case is a function below a `@row("sentence")`; the sentence is a passage of the reference's semantics.md, or of the mail
thread that began it all, and the last test looks that none is forgotten. Details have tests of their own in
test_kernel_*.py; each sentence is asserted here all the same.
"""

# ruff: noqa: E501 - a case is named by a whole sentence

from __future__ import annotations

import ctypes
import errno
import re
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrtp.kernel
from fastrtp.btf import BtfKind, BtfWriter
from fastrtp.errors import BpfError, BtfError, ObjectError, ObjectWarning, VerifierError
from fastrtp.helpers.table import HELPERS
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel, Process
from fastrtp.trace import BpfRawEventMap, TracepointFunc, tracepoint_probe_register, tracepoint_probe_unregister
from fastrtp.uapi import ATTRS, BpfCmd, bpf_link_info_raw_tracepoint

RAW_TP, RAW_TP_W, TRACING, RAW_TP_ATTACH = 17, 24, 26, 23
OPEN = BpfCmd.BPF_RAW_TRACEPOINT_OPEN
SWITCH, RENAME = "sched_switch", "task_rename"
ENOTSUPP = 524
ELF = Path(__file__).parent / "data" / "elf"
CASES: dict[str, Callable[[Kernel], None]] = {}


def row(sentence: str) -> Callable[[Callable[[Kernel], None]], Callable[[Kernel], None]]:
    """Register a case under the sentence that it proves."""

    def register(case: Callable[[Kernel], None]) -> Callable[[Kernel], None]:
        assert sentence not in CASES
        CASES[sentence] = case
        return case

    return register


# what the cases say things with


def asm(text: str) -> bytes:
    return encode(assemble(text))


RETURN_0 = asm("r0 = 0\nexit")
READS_ARG_7 = asm("r0 = *(u64 *)(r1 +56)\nexit")


def fails(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Errno of a call that has to fail."""
    with pytest.raises(BpfError) as caught:
        function(*args, **kwargs)
    return caught.value.errno or 0


def load(kernel: Kernel | Process, code: bytes = RETURN_0, prog_type: int = RAW_TP, **fields: Any) -> int:
    return kernel.prog_load(prog_type, code, **fields)


def load_tp_btf(kernel: Kernel, name: str = SWITCH, code: bytes = RETURN_0) -> int:
    btf_id = kernel.tracepoints.proto(name).btf_id
    return load(kernel, code, TRACING, expected_attach_type=RAW_TP_ATTACH, attach_btf_id=btf_id)


def refused(kernel: Kernel, code: str, prog_type: int = RAW_TP, **fields: Any) -> tuple[int, str]:
    """(errno, log) of a program that the verifier refuses."""
    with pytest.raises(VerifierError) as caught:
        load(kernel, asm(code), prog_type, **fields)
    return caught.value.errno or 0, caught.value.log


def bpf(kernel: Kernel, cmd: str, size: int | None = None, **fields: Any) -> tuple[int, Any]:
    """(errno or 0, the attr afterwards) of a command."""
    command = BpfCmd["BPF_" + cmd]
    attr: Any = ATTRS[command].struct(**fields)
    try:
        kernel.bpf(command, attr, size)
    except BpfError as error:
        return error.errno or 0, attr
    return 0, attr


def open_attr(kernel: Kernel, data: Any, size: int | None = None) -> int:
    """Errno of BPF_RAW_TRACEPOINT_OPEN with this attr, 0 where it succeeds."""
    try:
        kernel.bpf(OPEN, data, size)
    except BpfError as error:
        return error.errno or 0
    return 0


def state(kernel: Kernel) -> tuple[int, ...]:
    """Everything that could leak."""
    return (len(kernel.links), len(kernel.progs), len(kernel.maps), kernel.file_table.nr_files,
            len(kernel.current.files), kernel.memory.arena.allocated, kernel.tracepoints.references(SWITCH))  # fmt: skip


def warm(kernel: Kernel) -> int:
    """A loaded program, after one link came and went: what is made with the first probe is there."""
    prog = load(kernel)
    kernel.close(kernel.raw_tracepoint_open(SWITCH, prog))
    return prog


def function_types(kernel: Kernel, code: str, returned: str) -> dict[str, Any]:
    """BTF and function records of a program with one function behind its first exit, which returns that: void or int."""
    writer = BtfWriter()
    number = writer.add_int("int", 4, 1)
    main = writer.add(BtfKind.FUNC, "main", writer.add_func_proto(number, []), vlen=1)
    func = writer.add(BtfKind.FUNC, "f", writer.add_func_proto(0 if returned == "void" else number, []), vlen=0)
    start = next(at + 1 for at, insn in enumerate(assemble(code)) if insn.code == 0x95)
    return {"btf_fd": kernel.btf_load(writer.dump()), "func_info": struct.pack("<4I", 0, main, start, func)}


def prog_of(kernel: Kernel, fd: int) -> Any:
    return kernel.current.files.fget(fd).private_data


def storing(kernel: Kernel, args: int) -> tuple[int, int]:
    """(program, array): a program that stores its first `args` arguments into an array."""
    array = kernel.map_create(2, 4, 8 * args, 1)
    lines = [f"r7 = *(u64 *)(r1 +{8 * n})\n*(u64 *)(r10 -{8 * (args + 1 - n)}) = r7" for n in range(args)]
    lines += ["*(u64 *)(r10 -8) = 0", "*(u32 *)(r10 -112) = 0", f"r1 = map[fd:{array}]", "r2 = r10", "r2 += -112", "r3 = r10",
              f"r3 += -{8 * (args + 1)}", "r4 = 0", "call bpf_map_update_elem", "r0 = 0", "exit"]  # fmt: skip
    return load(kernel, asm("\n".join(lines))), array


def stored(kernel: Kernel, array: int, args: int) -> tuple[int, ...]:
    return struct.unpack(f"<{args}Q", kernel.map_lookup_elem(array, bytes(4)))


def order(kernel: Kernel, name: str = SWITCH) -> list[int]:
    """Link ids in the order in which their programs run."""
    by_record = {link.record.address: link.id for link in kernel.links}
    return [by_record[func.data] for func in kernel.tracepoints[name].funcs]


class Probe:
    """A probe that is no BPF program, as ftrace and perf have theirs: counts the events."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.tp = kernel.tracepoints[name]
        self.seen = 0
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * (self.tp.num_args + 2))
        self._function = kind(self._called)
        self.address = ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def _called(self, *_args: int) -> int:
        self.seen += 1
        return 0

    def register(self, prio: int = 10) -> None:
        tracepoint_probe_register(self.tp, TracepointFunc(self.address, 0, prio))

    def unregister(self) -> None:
        tracepoint_probe_unregister(self.tp, self.address, 0)


# history


@row("`bpf_raw_tracepoint_open(name)` gave an fd, then `bpf_prog_attach(prog_fd, raw_tp_fd)`")
def _(kernel: Kernel) -> None:
    text = " ".join((fastrtp.kernel.__doc__ or "").split())
    assert "bpf_raw_tracepoint_open(name)" in text
    assert "bpf_prog_attach(prog_fd, raw_tp_fd)" in text
    prog = load(kernel)
    link = kernel.raw_tracepoint_open(SWITCH, prog)
    assert bpf(kernel, "PROG_ATTACH", target_fd=link, attach_bpf_fd=prog, attach_type=RAW_TP_ATTACH)[0] == errno.EINVAL


@row(
    "merged open + attach into one command, which removes the race between them and still lets one program serve many tracepoints"
)
def _(kernel: Kernel) -> None:
    prog = load(kernel)
    names = (SWITCH, RENAME, "sys_enter", "sched_wakeup")
    for name in names:
        kernel.raw_tracepoint_open(name, prog)
        assert kernel.tracepoints[name].enabled
    for name in names:
        kernel.trace(name)(*[0] * kernel.tracepoints[name].num_args)
    assert (prog_of(kernel, prog).runs, len(kernel.progs)) == (4, 1)


@row("Today the fd is a `bpf_link`")
def _(kernel: Kernel) -> None:
    assert kernel.current.fd_name(kernel.raw_tracepoint_open(SWITCH, load(kernel))) == "anon_inode:bpf_link"


# the order of the checks


@row("attr longer than 4096 bytes, or non-zero bytes past the attr the kernel knows: E2BIG")
def _(kernel: Kernel) -> None:
    assert open_attr(kernel, bytearray(8192), 4097) == errno.E2BIG
    assert open_attr(kernel, bytearray(168) + b"\x01") == errno.E2BIG
    assert open_attr(kernel, bytearray(4096)) == errno.EINVAL


@row("attr not readable: EFAULT")
def _(kernel: Kernel) -> None:
    assert open_attr(kernel, None, 24) == errno.EFAULT
    assert open_attr(kernel, 4096, 24) == errno.EFAULT


@row("CHECK_ATTR: non-zero bytes after the command's last field (`cookie` on 6.18; `prog_fd` on 6.1): EINVAL")
def _(kernel: Kernel) -> None:
    attr = bytearray(bytes(ATTRS[OPEN].struct(prog_fd=999)).ljust(64, b"\0"))
    assert open_attr(kernel, attr) == errno.EBADF
    attr[24] = 1
    assert open_attr(kernel, attr) == errno.EINVAL


@row("prog_fd: not open EBADF; open but not a program EINVAL")
def _(kernel: Kernel) -> None:
    assert bpf(kernel, "RAW_TRACEPOINT_OPEN", name=0, prog_fd=999)[0] == errno.EBADF
    assert bpf(kernel, "RAW_TRACEPOINT_OPEN", name=0, prog_fd=kernel.map_create(1, 4, 4, 1))[0] == errno.EINVAL


@row("wrong program type, or tp_btf with a non-NULL name: EINVAL")
def _(kernel: Kernel) -> None:
    assert bpf(kernel, "RAW_TRACEPOINT_OPEN", name=8, prog_fd=load_tp_btf(kernel))[0] == errno.EINVAL
    other = load(kernel)
    prog_of(kernel, other).type = 2  # a kprobe program, which cannot be loaded here
    assert bpf(kernel, "RAW_TRACEPOINT_OPEN", name=8, prog_fd=other)[0] == errno.EINVAL


@row("name NULL or unreadable: EFAULT (128-byte buffer, at most 127 characters copied, the rest cut off)")
def _(kernel: Kernel) -> None:
    prog = load(kernel)
    for address in (0, 8, 1 << 63):
        assert bpf(kernel, "RAW_TRACEPOINT_OPEN", name=address, prog_fd=prog)[0] == errno.EFAULT
    kernel.trace_event("n" * 127, "int a")
    kernel.raw_tracepoint_open("n" * 127 + " and the rest is cut off", prog)
    assert fails(kernel.raw_tracepoint_open, "n" * 126, prog) == errno.ENOENT


@row('no such tracepoint (also "", "task:task_rename", and an over-long name once cut): ENOENT')
def _(kernel: Kernel) -> None:
    prog = load(kernel)
    for name in ("no_such", "", "task:task_rename", RENAME + "x" * 200):
        assert fails(kernel.raw_tracepoint_open, name, prog) == errno.ENOENT


@row("no memory: ENOMEM")
def _(kernel: Kernel) -> None:
    prog = warm(kernel)
    kernel.raw_tracepoint_open(SWITCH, prog)  # only probes behind the first have an array
    before = state(kernel)
    arena = type(kernel.memory.arena)
    alloc, calls = arena.alloc, 0
    failing = 0

    def injected(self: Any, size: int, *args: Any, **kwargs: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise MemoryError("injected")
        return alloc(self, size, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arena, "alloc", injected)
        for failing in (1, 2):
            calls = 0
            assert fails(kernel.raw_tracepoint_open, SWITCH, prog) == errno.ENOMEM
            assert (calls, state(kernel)) == (failing, before)
        calls, failing = 0, 1
        kernel.current.files.rlimit_nofile = prog + 1
        assert fails(kernel.raw_tracepoint_open, SWITCH, prog) == errno.ENOMEM  # before the descriptor
    kernel.current.files.rlimit_nofile = 1024
    kernel.raw_tracepoint_open(SWITCH, prog)
    assert kernel.tracepoints[SWITCH].enabled


@row("no free fd: EMFILE (RLIMIT_NOFILE) / ENFILE — and nothing leaks (the bug that the review caught)")
def _(kernel: Kernel) -> None:
    prog = warm(kernel)
    limit = kernel.current.files.rlimit_nofile = 256
    opened = [kernel.raw_tracepoint_open(SWITCH, prog) for _ in range(limit - prog - 1)]
    before = state(kernel)
    assert fails(kernel.raw_tracepoint_open, SWITCH, prog) == errno.EMFILE
    assert state(kernel) == before
    assert len(opened) == len(kernel.links) == len(kernel.tracepoints[SWITCH].funcs)
    kernel.close(opened.pop())
    kernel.file_table.max_files, limit = kernel.file_table.nr_files, kernel.file_table.max_files
    before = state(kernel)
    assert fails(kernel.raw_tracepoint_open, SWITCH, prog) == errno.ENFILE
    assert state(kernel) == before
    kernel.file_table.max_files = limit
    for fd in opened:
        kernel.close(fd)
    assert state(kernel)[0] == 0
    assert not kernel.tracepoints[SWITCH].enabled


@row("`max_ctx_offset > 8 * num_args`, or `max_tp_access > writable_size`: EINVAL (the attach-time half of the static check)")
def _(kernel: Kernel) -> None:
    reads, touches = load(kernel, READS_ARG_7), load(kernel, asm("r2 = *(u64 *)(r1 +0)\nr0 = *(u32 *)(r2 +0)\nexit"), RAW_TP_W)
    kernel.trace_event("eight", ", ".join(f"int a{n}" for n in range(8)))
    assert fails(kernel.raw_tracepoint_open, SWITCH, reads) == errno.EINVAL
    kernel.raw_tracepoint_open("eight", reads)
    assert fails(kernel.raw_tracepoint_open, SWITCH, touches) == errno.EINVAL
    kernel.raw_tracepoint_open("bpf_test_finish", touches)
    too_far = load(kernel, asm("r2 = *(u64 *)(r1 +0)\nr0 = *(u32 *)(r2 +4)\nexit"), RAW_TP_W)
    assert fails(kernel.raw_tracepoint_open, "bpf_test_finish", too_far) == errno.EINVAL


@row("probe registration: regfunc's own error, EEXIST, ENOMEM")
def _(kernel: Kernel) -> None:
    prog = load(kernel)
    kernel.trace_event("refusing", "int a", regfunc=lambda: -errno.EPERM)
    assert fails(kernel.raw_tracepoint_open, "refusing", prog) == errno.EPERM
    kernel.raw_tracepoint_open(SWITCH, prog)
    (there,) = kernel.tracepoints[SWITCH].funcs
    assert fails(tracepoint_probe_register, kernel.tracepoints[SWITCH], there) == errno.EEXIST
    assert len(kernel.links) == 1


@row("The fd: `anon_inode:bpf_link`, O_CLOEXEC, read(2) EINVAL, write(2) EBADF")
def _(kernel: Kernel) -> None:
    link, process = kernel.raw_tracepoint_open(SWITCH, load(kernel)), kernel.current
    assert (process.fd_name(link), process.files.cloexec(link)) == ("anon_inode:bpf_link", True)
    assert (fails(process.read, link, 8), fails(process.write, link, b"x")) == (errno.EINVAL, errno.EBADF)


@row("The same program twice on one tracepoint: allowed on 6.18 and runs twice (probe data is the link)")
def _(kernel: Kernel) -> None:
    prog = load(kernel)
    for _time in range(2):
        kernel.raw_tracepoint_open(RENAME, prog)
    kernel.trace(RENAME)(0, 0)
    assert prog_of(kernel, prog).runs == 2


# probes


@row("Sorted by priority; raw_tp registers with the default priority and is FIFO among equals. "
     "Three attached run 1,2,3; closing and reopening the first moves it to the tail")  # fmt: skip
def _(kernel: Kernel) -> None:
    prog = load(kernel)
    fds = [kernel.raw_tracepoint_open(SWITCH, prog) for _ in range(3)]
    assert order(kernel) == [1, 2, 3]
    kernel.close(fds[0])
    kernel.raw_tracepoint_open(SWITCH, prog)
    assert order(kernel) == [2, 3, 4]
    first, last = Probe(kernel, SWITCH), Probe(kernel, SWITCH)
    first.register(prio=11)
    last.register(prio=9)
    assert [func.prio for func in kernel.tracepoints[SWITCH].funcs] == [11, 10, 10, 10, 9]
    first.unregister()
    last.unregister()


@row("Closing the program fd keeps the link alive; a dup'ed link fd keeps it attached; the last close detaches")
def _(kernel: Kernel) -> None:
    prog = load(kernel)
    link = kernel.raw_tracepoint_open(SWITCH, prog)
    kernel.close(prog)
    again = kernel.current.dup(link)
    kernel.close(link)
    assert (len(kernel.progs), kernel.tracepoints[SWITCH].enabled) == (1, True)
    kernel.close(again)
    assert (len(kernel.progs), kernel.tracepoints[SWITCH].enabled) == (0, False)


@row("Release order: tracepoint_probe_unregister -> module_put -> bpf_prog_put -> free after an RCU grace period")
def _(kernel: Kernel) -> None:
    steps: list[str] = []
    prog = load(kernel)
    link = kernel.raw_tracepoint_open(SWITCH, prog)
    held = prog_of(kernel, prog)
    kernel.close(prog)

    def spied(owner: Any, name: str, step: str) -> None:
        real = getattr(owner, name)
        patch.setattr(owner, name, lambda *args: (steps.append(step), real(*args))[1])

    with pytest.MonkeyPatch.context() as patch:
        spied(kernel.tracepoints, "bpf_probe_unregister", "tracepoint_probe_unregister")
        spied(kernel.tracepoints, "bpf_put_raw_tracepoint", "module_put")
        spied(held, "release", "bpf_prog_put")
        spied(held.native, "close", "free")
        for owner, name in ((kernel.memory.lib, "machine_enter"), (kernel.memory, "synchronize_rcu")):
            spied(owner, name, "grace period")
        kernel.close(link)
    wanted = ["tracepoint_probe_unregister", "grace period", "module_put", "bpf_prog_put", "grace period", "free"]
    assert steps == wanted


@row("regfunc/unregfunc run on the 0 -> 1 and 1 -> 0 transitions")
def _(kernel: Kernel) -> None:
    calls: list[str] = []
    kernel.trace_event("counted", "int a", regfunc=lambda: calls.append("reg"), unregfunc=lambda: calls.append("unreg"))
    prog = load(kernel)
    fds = [kernel.raw_tracepoint_open("counted", prog) for _ in range(3)]
    for fd in fds:
        kernel.close(fd)
    assert calls == ["reg", "unreg"]


@row("ftrace, perf and raw_tp probes are independent; each may come and go while the others run")
def _(kernel: Kernel) -> None:
    ftrace, perf, prog = Probe(kernel, RENAME), Probe(kernel, RENAME), load(kernel)
    trace = kernel.trace(RENAME)
    ftrace.register()
    trace(0, 0)
    link = kernel.raw_tracepoint_open(RENAME, prog)
    perf.register()
    trace(0, 0)
    ftrace.unregister()
    trace(0, 0)
    kernel.close(link)
    trace(0, 0)
    perf.unregister()
    trace(0, 0)
    assert (ftrace.seen, perf.seen, prog_of(kernel, prog).runs) == (2, 3, 2)
    assert not kernel.tracepoints[RENAME].enabled


@row("A process that exits (Ctrl-C, crash, SIGKILL) closes its fds: programs detach, unload and unregister by themselves")
def _(kernel: Kernel) -> None:
    for end in ("exit", "kill"):
        process = kernel.new_process(comm="tool")
        process.raw_tracepoint_open(SWITCH, load(process))
        assert (len(kernel.progs), kernel.tracepoints[SWITCH].enabled) == (1, True)
        getattr(process, end)()
        assert (len(kernel.progs), len(kernel.links), kernel.tracepoints[SWITCH].enabled) == (0, 0, False)


# the cast and the call


@row("`__bpf_trace_<class>(void *__data, proto)` casts each argument to u64 and tail-jumps to `bpf_trace_run<N>`; "
     "one shim per event *class*, shared by all its tracepoints")  # fmt: skip
def _(kernel: Kernel) -> None:
    wakeups = {kernel.tracepoints.bpf_get_raw_tracepoint(name).bpf_func() for name in ("sched_wakeup", "sched_wakeup_new")}
    assert wakeups == {kernel.kallsyms.lookup_name("__bpf_trace_sched_wakeup_template")}
    report = kernel.shim_report()
    assert min(report.shims.values()) > 0
    assert report.text == sum(report.shims.values()) < 64 * report.tracepoints


@row("CAST_TO_U64 copies into an unsigned integer of the argument's size, then widens: **zero-extension, even for signed ints** "
     "(int -1 arrives as 0x00000000ffffffff)")  # fmt: skip
def _(kernel: Kernel) -> None:
    kernel.trace_event("ints", "signed char a, short b, int c, long d")
    prog, array = storing(kernel, 4)
    kernel.raw_tracepoint_open("ints", prog)
    kernel.trace("ints")(-1, -1, -1, -1)
    assert stored(kernel, array, 4) == (0xFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


@row("Structs and unions of 1, 2, 4 or 8 bytes go by value; any other size is a build error")
def _(kernel: Kernel) -> None:
    assert kernel.btf.sizeof(kernel.btf.find("list_head")) == 16
    with pytest.raises(BtfError, match="16 bytes, by value 1, 2, 4 or 8 are allowed"):
        kernel.trace_event("too_big", "struct list_head head")
    assert kernel.btf.sizeof(kernel.btf.find("hlist_head")) == 8
    kernel.trace_event("by_value", "struct hlist_head head, kuid_t uid")
    prog, array = storing(kernel, 2)
    kernel.raw_tracepoint_open("by_value", prog)
    kernel.trace("by_value")(0x1122334455667788, -1)
    assert stored(kernel, array, 2) == (0x1122334455667788, 0xFFFFFFFF)


@row("`bpf_trace_run1..12` build `u64 args[N]` on the stack; at most 12 arguments")
def _(kernel: Kernel) -> None:
    proto = ", ".join(f"long a{n}" for n in range(12))
    kernel.trace_event("twelve", proto)
    prog, array = storing(kernel, 12)
    kernel.raw_tracepoint_open("twelve", prog)
    kernel.trace("twelve")(*range(100, 112))
    assert stored(kernel, array, 12) == tuple(range(100, 112))
    with pytest.raises(BtfError, match="12"):
        kernel.trace_event("thirteen", proto + ", long a12")


@row("Arity on 6.18 (1,601 tracepoints): 1:468 2:497 3:309 4:172 5:75 6:47 7:18 8:7 9:5 10:2 12:1")
def _(kernel: Kernel) -> None:
    """The shipped BTF is of 6.1; that no tracepoint takes none or more than 12 holds for both."""
    arity = Counter(len(kernel.tracepoints.proto(name).args) for name in kernel.tracepoints)
    assert (len(kernel.tracepoints), min(arity), max(arity)) == (693, 1, 12)
    assert kernel.shim_report().arity == dict(sorted(arity.items()))


@row("Argument kinds: 1,938 pointers, 528 signed 4-byte, 95 bool, 4 unions")
def _(kernel: Kernel) -> None:
    args = [arg for name in kernel.tracepoints for arg in kernel.tracepoints.proto(name).args]
    assert {arg.size for arg in args} == {1, 2, 4, 8}
    assert all(arg.size == 8 for arg in args if arg.is_pointer)
    assert sum(arg.is_pointer for arg in args) > sum(arg.signed and arg.size == 4 for arg in args) > 0


@row("`__bpf_raw_tp_map` holds {tp, bpf_func, num_args, writable_size}; the probe functions are in kallsyms")
def _(kernel: Kernel) -> None:
    kernel.shim_report()  # compiles every shim at once
    btp = kernel.tracepoints.bpf_get_raw_tracepoint(SWITCH)
    assert isinstance(btp, BpfRawEventMap)
    assert (btp.tp.name, btp.num_args, btp.writable_size) == (SWITCH, 4, 0)
    assert btp.bpf_func() == kernel.kallsyms.lookup_name("__bpf_trace_sched_switch")
    names = [name for name in kernel.kallsyms if name.startswith(("__bpf_trace_", "bpf_trace_run"))]
    assert len(names) == 486 + 12
    assert all(kernel.kallsyms.lookup_name(name) for name in names)


@row("BTF has `typedef void (*btf_trace_<name>)(void *, args...)` for every tracepoint: that is where the prototypes come from")
def _(kernel: Kernel) -> None:
    for name in (SWITCH, RENAME, "sys_enter"):
        assert kernel.btf.type(kernel.tracepoints.proto(name).btf_id).name == f"btf_trace_{name}"
    assert kernel.prototype("sys_enter") == "sys_enter(struct pt_regs *, long int)"


# context access


@row("raw_tp: reads only; offset in [0, 96); size 1, 2, 4 or 8; offset % size == 0; else EACCES `invalid bpf_context access "
     "off=N size=M`. `prog->aux->max_ctx_offset` is the highest end. Any R0 at exit is fine, even the ctx pointer")  # fmt: skip
def _(kernel: Kernel) -> None:
    for code, at, size in (("r0 = *(u64 *)(r1 +96)", 96, 8), ("r0 = *(u16 *)(r1 +1)", 1, 2), ("r0 = *(u8 *)(r1 -1)", -1, 1),
                           ("*(u32 *)(r1 +4) = 0", 4, 4)):  # fmt: skip
        number, log = refused(kernel, f"{code}\nexit")
        assert (number, f"invalid bpf_context access off={at} size={size}" in log) == (errno.EACCES, True)
    assert prog_of(kernel, load(kernel, asm("r0 = *(u8 *)(r1 +95)\nexit"))).max_ctx_offset == 96
    assert prog_of(kernel, load(kernel, asm("r0 = *(u16 *)(r1 +10)\nexit"))).max_ctx_offset == 12
    load(kernel, asm("r0 = r1\nexit"))


@row("writable raw_tp: an 8-byte read at offset 0 yields a tp-buffer pointer; negative offsets are rejected; "
     "the size is checked at attach only")  # fmt: skip
def _(kernel: Kernel) -> None:
    number, log = refused(kernel, "r2 = *(u64 *)(r1 +0)\nr0 = *(u32 *)(r2 -4)\nexit", RAW_TP_W)
    assert (number, "R2 invalid tracepoint buffer access: off=-4, size=4" in log) == (errno.EACCES, True)
    writes = load(kernel, asm("r2 = *(u64 *)(r1 +0)\n*(u32 *)(r2 +0) = 7\nr0 = 0\nexit"), RAW_TP_W)
    load(kernel, asm("r2 = *(u64 *)(r1 +0)\n*(u64 *)(r2 +4000) = 7\nr0 = 0\nexit"), RAW_TP_W)
    kernel.raw_tracepoint_open("bpf_test_finish", writes)
    buffer = np.zeros(1, np.int32)
    kernel.trace("bpf_test_finish")(buffer.ctypes.data)
    assert buffer[0] == 7


@row("tp_btf (BPF_TRACE_RAW_TP): needs attach_btf_id (`Tracing programs must provide btf_id`); arguments are trusted BTF pointers; "
     "a u32 read of a pointer slot gives `size 4 must be 8`; past the end gives `func 'X' doesn't have N-th argument`; "
     "opened with name NULL, or with LINK_CREATE (attach_type 23) plus cookie")  # fmt: skip
def _(kernel: Kernel) -> None:
    btf_id = kernel.tracepoints.proto(SWITCH).btf_id
    target = {"expected_attach_type": RAW_TP_ATTACH, "attach_btf_id": btf_id}
    number, log = refused(kernel, "r0 = 0\nexit", TRACING, expected_attach_type=RAW_TP_ATTACH)
    assert (number, "Tracing programs must provide btf_id" in log) == (errno.EINVAL, True)
    assert "size 4 must be 8" in refused(kernel, "r0 = *(u32 *)(r1 +8)\nexit", TRACING, **target)[1]
    assert (
        "func 'sched_switch' doesn't have 5-th argument" in refused(kernel, "r0 = *(u64 *)(r1 +32)\nexit", TRACING, **target)[1]
    )
    pid = kernel.btf.member("task_struct", "pid").offset_bytes
    prog = load_tp_btf(kernel, code=asm(f"r2 = *(u64 *)(r1 +16)\nr0 = *(u32 *)(r2 +{pid})\nexit"))
    kernel.close(kernel.raw_tracepoint_open(None, prog))
    link = kernel.link_create(prog, 0, RAW_TP_ATTACH, cookie=5)
    assert kernel.obj_get_info_by_fd(link).cookie == 5


# recursion, statistics


PRINTS_TEXT = "*(u32 *)(r10 -8) = 0x0a6968\nr1 = r10\nr1 += -8\nr2 = 4\ncall bpf_trace_printk\nr0 = 0\nexit"
PRINTS = asm(PRINTS_TEXT)


@row("Guard: `this_cpu_inc_return(*prog->active)`, per program per CPU — not per link, not global. A nested *different* program "
     "runs; a nested *same* program does not, and counts `recursion_misses`")  # fmt: skip
def _(kernel: Kernel) -> None:
    printing, other = load(kernel, PRINTS), load(kernel)
    kernel.raw_tracepoint_open(RENAME, printing)
    for fd in (printing, other):
        kernel.raw_tracepoint_open("bpf_trace_printk", fd)
    kernel.trace(RENAME)(0, 0)
    assert (prog_of(kernel, printing).runs, kernel.obj_get_info_by_fd(printing).recursion_misses) == (1, 1)
    assert (prog_of(kernel, other).runs, kernel.obj_get_info_by_fd(other).recursion_misses) == (1, 0)


@row("run_cnt and run_time_ns count only while BPF_ENABLE_STATS is held")
def _(kernel: Kernel) -> None:
    prog = load(kernel)
    kernel.raw_tracepoint_open(RENAME, prog)
    trace = kernel.trace(RENAME)
    trace(0, 0)
    stats = kernel.enable_stats()
    trace(0, 0)
    trace(0, 0)
    kernel.close(stats)
    trace(0, 0)
    info = kernel.obj_get_info_by_fd(prog)
    assert (info.run_cnt, info.run_time_ns > 0, prog_of(kernel, prog).runs) == (2, True, 4)


@row("perf_event_output / stack helpers nest at most 3 deep, then EBUSY")
def _(kernel: Kernel) -> None:
    """bpf_trace_printk fires an event itself, so programs nest through it; perf_event_output is asked with its counter set."""
    progs = [load(kernel, asm(PRINTS_TEXT.replace("r0 = 0", f"r0 <<= {number}\nr0 >>= {number}"))) for number in range(5)]
    kernel.raw_tracepoint_open(RENAME, progs[0])
    for fd in progs[1:]:
        kernel.raw_tracepoint_open("bpf_trace_printk", fd)
    kernel.trace(RENAME)(0, 0)
    depth_3 = 4 * 3 * 2  # ways to get there; those programs ran, and printed nothing
    assert sum(prog_of(kernel, fd).runs for fd in progs) == 1 + 4 + 4 * 3 + depth_3
    assert len(kernel.memory.trace_pipe()) == 1 + 4 + 4 * 3

    array = kernel.map_create(4, 4, 4, 1)
    event = kernel.perf_event_open(0)
    kernel.map_update_elem(array, bytes(4), struct.pack("<I", event))
    outputs = load(
        kernel,
        asm(f"""*(u64 *)(r10 -8) = 1
        r2 = map[fd:{array}]
        w3 = 0
        r4 = r10
        r4 += -8
        r5 = 8
        call bpf_perf_event_output
        exit"""),
    )
    results = []
    for nesting in (0, 2, 3):
        kernel.memory.env["output_nest"] = nesting
        results.append(kernel.prog_test_run(outputs))
    kernel.memory.env["output_nest"] = 0
    assert results == [0, 0, (1 << 32) - errno.EBUSY]


# other commands


@row("LINK_UPDATE / LINK_DETACH / PROG_ATTACH on a raw_tp link")
def _(kernel: Kernel) -> None:
    prog = load(kernel)
    link = kernel.raw_tracepoint_open(SWITCH, prog)
    assert bpf(kernel, "LINK_UPDATE", link_fd=link, new_prog_fd=prog)[0] == errno.EINVAL
    assert bpf(kernel, "LINK_DETACH", link_fd=link)[0] == errno.EOPNOTSUPP
    assert bpf(kernel, "PROG_ATTACH", target_fd=link, attach_bpf_fd=prog)[0] == errno.EINVAL


@row("LINK_CREATE on a raw_tp program")
def _(kernel: Kernel) -> None:
    assert bpf(kernel, "LINK_CREATE", prog_fd=load(kernel), attach_type=RAW_TP_ATTACH)[0] == errno.EINVAL


@row("OBJ_GET_INFO_BY_FD on the link")
def _(kernel: Kernel) -> None:
    link = kernel.raw_tracepoint_open(SWITCH, load(kernel), cookie=9)
    info = kernel.obj_get_info_by_fd(link)
    assert (info.type, info.id, info.prog_id, info.tp_name_len, info.cookie) == (1, 1, 1, len(SWITCH) + 1, 9)
    buffer = ctypes.create_string_buffer(32)
    at = ctypes.addressof(buffer)
    assert fails(kernel.obj_get_info_by_fd, link, tp_name=at) == errno.EINVAL
    assert fails(kernel.obj_get_info_by_fd, link, tp_name_len=5) == errno.EINVAL
    short = bpf_link_info_raw_tracepoint(tp_name=at, tp_name_len=6)
    size = ctypes.sizeof(short)
    assert bpf(kernel, "OBJ_GET_INFO_BY_FD", bpf_fd=link, info=ctypes.addressof(short), info_len=size)[0] == errno.ENOSPC
    assert buffer.raw[:7] == b"sched\0\0"


@row("| fdinfo |")
def _(kernel: Kernel) -> None:
    text = kernel.current.fdinfo(kernel.raw_tracepoint_open(SWITCH, load(kernel), cookie=9))
    names = [line.partition(":\t")[0] for line in text.splitlines()]
    assert names[-6:] == ["link_type", "link_id", "prog_tag", "prog_id", "tp_name", "cookie"]
    assert "link_type:\traw_tracepoint\n" in text
    assert text.endswith("tp_name:\tsched_switch\ncookie:\t9\n")


@row("| TASK_FD_QUERY |")
def _(kernel: Kernel) -> None:
    prog, pid = load(kernel), kernel.current.pid
    link = kernel.raw_tracepoint_open(SWITCH, prog)
    assert kernel.task_fd_query(pid, link) == (SWITCH, 1)
    buffer = ctypes.create_string_buffer(4)
    number, attr = bpf(kernel, "TASK_FD_QUERY", pid=pid, fd=link, buf=ctypes.addressof(buffer), buf_len=4)
    assert (number, attr.prog_id, attr.fd_type, attr.buf_len, buffer.raw) == (errno.ENOSPC, 1, 0, len(SWITCH), b"sch\0")
    assert bpf(kernel, "TASK_FD_QUERY", pid=pid, fd=link, flags=1)[0] == errno.EINVAL
    assert bpf(kernel, "TASK_FD_QUERY", pid=1 << 22, fd=link)[0] == errno.ENOENT
    assert bpf(kernel, "TASK_FD_QUERY", pid=pid, fd=prog)[0] == ENOTSUPP


@row("| PROG_TEST_RUN on raw_tp |")
def _(kernel: Kernel) -> None:
    prog, ctx = load(kernel, asm("r0 = *(u64 *)(r1 +8)\nexit")), struct.pack("<QQ", 1, 0x1_0000_0002)
    assert (kernel.prog_test_run(prog, ctx), prog_of(kernel, prog).runs) == (2, 1)
    data = ctypes.create_string_buffer(ctx, 128)
    good = {"prog_fd": prog, "ctx_in": ctypes.addressof(data), "ctx_size_in": 16}
    for field in ("data_in", "data_out", "repeat", "duration", "batch_size"):
        assert bpf(kernel, "PROG_TEST_RUN", **good, **{field: 1})[0] == errno.EINVAL
    assert bpf(kernel, "PROG_TEST_RUN", **good, ctx_out=1, ctx_size_out=8)[0] == errno.EINVAL
    assert bpf(kernel, "PROG_TEST_RUN", **good | {"ctx_size_in": 8})[0] == errno.EINVAL
    assert bpf(kernel, "PROG_TEST_RUN", **good | {"ctx_size_in": 104})[0] == errno.EINVAL
    assert bpf(kernel, "PROG_TEST_RUN", **good, cpu=1)[0] == errno.EINVAL
    assert bpf(kernel, "PROG_TEST_RUN", **good, cpu=99, flags=1)[0] == errno.ENXIO
    assert bpf(kernel, "PROG_TEST_RUN", **good | {"ctx_in": 8})[0] == errno.EFAULT


@row("| PROG_TEST_RUN on writable raw_tp / tp_btf |")
def _(kernel: Kernel) -> None:
    assert bpf(kernel, "PROG_TEST_RUN", prog_fd=load(kernel, RETURN_0, RAW_TP_W))[0] == ENOTSUPP
    assert bpf(kernel, "PROG_TEST_RUN", prog_fd=load_tp_btf(kernel))[0] == errno.EFAULT


@row("| *_GET_NEXT_ID, *_GET_FD_BY_ID |")
def _(kernel: Kernel) -> None:
    kernel.map_create(1, 4, 4, 1)
    kernel.raw_tracepoint_open(SWITCH, load(kernel))
    for noun in ("prog", "map", "link", "btf"):
        assert list(kernel.ids(noun)) == [1]
        assert bpf(kernel, f"{noun.upper()}_GET_NEXT_ID", id=1)[0] == errno.ENOENT
        assert kernel.obj_get_info_by_fd(kernel.fd_by_id(noun, 1)).id == 1
        assert fails(kernel.fd_by_id, noun, 2) == errno.ENOENT


# helpers, errors


@row(
    "80 of 211 (helpers.txt). Others: `program of this type cannot use helper bpf_X#N`; unknown numbers: `invalid func unknown#N`"
)
def _(kernel: Kernel) -> None:
    """And cgrp_storage_delete, where the list ends: one number before the last (test_helper_table.py)."""
    allowed = [proto for proto in HELPERS.values() if RAW_TP in proto.prog_types]
    assert (len(allowed), len(HELPERS)) == (81, 211)
    assert "program of this type cannot use helper bpf_skb_store_bytes#9" in refused(kernel, "call bpf_skb_store_bytes\nexit")[1]
    assert "invalid func unknown#1000" in refused(kernel, "call unknown#1000\nexit")[1]


@row("tp_btf adds 15 more")
def _(kernel: Kernel) -> None:
    more = [proto for proto in HELPERS.values() if TRACING in proto.prog_types and RAW_TP not in proto.prog_types]
    assert len(more) == 15
    assert "cannot use helper bpf_d_path#147" in refused(kernel, "call bpf_d_path\nexit")[1]


@row("A helper marked GPL-only needs a GPL-compatible license string")
def _(kernel: Kernel) -> None:
    code = "r1 = r10\nr1 += -8\nr2 = 4\nr3 = 0\ncall bpf_probe_read_kernel\nr0 = 0\nexit"
    assert "cannot call GPL-restricted function from non-GPL compatible program" in refused(kernel, code, license="MIT")[1]
    for text in ("GPL", "GPL v2", "Dual MIT/GPL", "Dual BSD/GPL", "GPL and additional rights", "Dual MPL/GPL"):
        load(kernel, asm(code), license=text)


@row(
    "Verdicts, errno and messages of the real 6.18 kernel for several hundred programs loaded as raw_tp are in oracle/verifier.jsonl"
)
def _(kernel: Kernel) -> None:
    """All of them: test_verifier_oracle.py. One here."""
    number, log = refused(kernel, "r0 = *(u64 *)(r2 +0)\nexit")
    assert (number, "R2 !read_ok" in log) == (errno.EACCES, True)


@row("EACCES for a safety violation, EINVAL for a malformed program, E2BIG for too many instructions or too complex, "
     "EPERM for missing rights")  # fmt: skip
def _(kernel: Kernel) -> None:
    assert fails(load, kernel, asm("r0 = *(u8 *)(r10 +0)\nexit")) == errno.EACCES
    assert fails(load, kernel, asm("r0 = 0")) == errno.EINVAL
    assert bpf(kernel, "PROG_LOAD", prog_type=RAW_TP, insn_cnt=1_000_001)[0] == errno.E2BIG
    assert fails(load, kernel.new_process(uid=1000, capable=False)) == errno.EPERM


# what was seen since


SCRIBBLES = asm("r0 = 1000\nexit")
TAIL_CALL_IN_F = """r2 = map[fd:{array}]
r3 = 0
call bpf_tail_call
r0 = 0
exit"""


def in_a_function(array: int, tail: str = "") -> str:
    """A program whose function f makes a tail call; what f returns is used as an offset into the stack, or as `tail` says."""
    use = tail or "r2 = r10\nr2 += r0\nr0 = *(u8 *)(r2 -8)\nr0 = 0\n"
    return f"*(u64 *)(r10 -8) = 0\ncall f\n{use}exit\nf:\n" + TAIL_CALL_IN_F.format(array=array)


@row("A tail call in a function has two successors in the verifier: it fails and the next instruction runs, or it succeeds and "
     "the function returns to its caller with an unknown R0 (log: `returning from callee`), having written whatever the target "
     "could. `tail_call is only allowed in functions that return 'int'` and refusal in subprograms without BTF: EINVAL.")  # fmt: skip
def _(kernel: Kernel) -> None:
    """All shapes: tests/data/verifier/tail_call.txt; what is allowed in which function: test_verifier_refusals.py."""
    array = kernel.map_create(3, 4, 4, 1)
    number, log = refused(kernel, in_a_function(array))
    assert (number, "tail_call is not allowed in subprogs without BTF" in log) == (errno.EINVAL, True)
    for kind, number, message in (
        ("void", errno.EINVAL, "tail_call is only allowed in functions that return 'int'."),
        ("int", errno.EINVAL, "math between fp pointer and register with unbounded min value is not allowed"),
    ):
        got, log = refused(kernel, in_a_function(array), **function_types(kernel, in_a_function(array), kind))
        assert (got, message in log) == (number, True), log
    *_, log = refused(kernel, in_a_function(array), log_level=2, **function_types(kernel, in_a_function(array), "int"))
    assert "returning from callee:" in log
    code = in_a_function(array, "r0 += 1\n")
    prog = load(kernel, asm(code), **function_types(kernel, code, "int"))
    assert kernel.prog_test_run(prog) == 1
    kernel.map_update_elem(array, bytes(4), struct.pack("<I", load(kernel, SCRIBBLES)))
    assert kernel.prog_test_run(prog) == 1001


@row("The x86-64 JIT counts a tail call only when the slot holds a program: an empty slot or an index out of range leaves the "
     "33 untouched.")  # fmt: skip
def _(kernel: Kernel) -> None:
    array = kernel.map_create(3, 4, 4, 2)
    fails_often = "\n".join(f"r1 = r6\nr2 = map[fd:{array}]\nr3 = {index}\ncall bpf_tail_call" for index in [1, 9] * 20)
    count = kernel.map_create(2, 4, 8, 1)
    counts = f"*(u32 *)(r10 -4) = 0\nr1 = map[fd:{count}]\nr2 = r10\nr2 += -4\ncall bpf_map_lookup_elem\nif r0 == 0 goto +3\n" \
        "r1 = *(u64 *)(r0 +0)\nr1 += 1\n*(u64 *)(r0 +0) = r1\n"  # fmt: skip
    itself = f"r1 = r6\nr2 = map[fd:{array}]\nr3 = 0\ncall bpf_tail_call\nr0 = 7\nexit"
    prog = load(kernel, asm(f"r6 = r1\n{counts}{fails_often}\n{itself}"))
    kernel.map_update_elem(array, bytes(4), struct.pack("<I", prog))
    assert kernel.prog_test_run(prog) == 7
    assert struct.unpack("<Q", kernel.map_lookup_elem(count, bytes(4))) == (34,)


@row("Formats: UTF-8 is allowed in printk and snprintf; alphanumerics that follow %pI4 %pI6 %px %ps %pK are swallowed; a width "
     "applies to %px; %p and %pK are hashed.")  # fmt: skip
def _(kernel: Kernel) -> None:
    """400 random formats beside Linux's: test_formats.py."""

    def printed(fmt: str, value: int = 0) -> str:
        text = fmt.encode() + b"\0"
        text += bytes(-len(text) % 8)
        words = struct.unpack(f"<{len(text) // 8}Q", text)
        stores = "".join(f"r1 = {word} ll\n*(u64 *)(r10 {8 * number - len(text)}) = r1\n" for number, word in enumerate(words))
        code = f"{stores}r1 = r10\nr1 += -{len(text)}\nr2 = {len(text)}\nr3 = {value} ll\ncall bpf_trace_printk\nexit"
        kernel.prog_test_run(load(kernel, asm(code)))
        return kernel.memory.trace_pipe()[-1][3].decode()

    assert printed("µs → é") == "µs → é"
    assert printed("%pxabc9 .", 1) == "0000000000000001 ."
    assert printed("[%20px]", 1) == f"[{1:20x}]"
    hidden = [printed("%p", 0xFFFF888012345678), printed("%pK", 0xFFFF888012345678)]
    assert hidden[0] == hidden[1] != f"{0xFFFF888012345678:016x}"
    assert re.fullmatch("0{8}[0-9a-f]{8}", hidden[0])


@row("LRU maps: 2,000 inserts into 1,000 entries leave 952, 17 into 16 leave 13; updating an existing key of a full map may "
     "evict another.")  # fmt: skip
def _(kernel: Kernel) -> None:
    """From one CPU of two, as Linux was asked; 400 random workloads beside Linux's: test_lru_differential.py."""
    kernel = Kernel(cpus=2)

    def filled(entries: int, inserts: int) -> int:
        fd = kernel.map_create(9, 4, 8, entries)
        for number in range(inserts):
            kernel.map_update_elem(fd, struct.pack("<I", number), bytes(8))
        return fd

    def keys(fd: int) -> set[bytes]:
        packed = (struct.pack("<I", key) for key in range(2000))
        return {key for key in packed if bpf_lookup(fd, key) == 0}

    def bpf_lookup(fd: int, key: bytes) -> int:
        room = ctypes.create_string_buffer(key, 16)
        at = ctypes.addressof(room)
        return bpf(kernel, "MAP_LOOKUP_ELEM", map_fd=fd, key=at, value=at + 8)[0]

    assert len(keys(filled(1000, 2000))) == 952
    assert len(keys(filled(16, 17))) == 13
    full = filled(16, 16)
    assert len(keys(full)) == 16
    kernel.map_update_elem(full, struct.pack("<I", 15), bytes(8))
    assert len(keys(full)) < 16


@row('libbpf goes on without BTF that the kernel refuses ("BTF is optional, ignoring"), and retries a refused map create without '
     "BTF; `___flavour` suffixes of kfuncs are stripped; a `static` map definition is refused.")  # fmt: skip
def _(kernel: Kernel) -> None:
    """More of each: test_kernel_forgives.py, test_kernel_externs.py; a static map: test_obj_build.py, with a compiler."""
    with pytest.warns(ObjectWarning, match="loaded without its BTF, which the kernel refuses"):
        obj = kernel.load(ELF / "forgiven.bpf.o")
    assert obj.btf_fd == -1
    with pytest.warns(ObjectWarning, match="map places is created without types"):
        assert kernel.load(ELF / "enum_keys.bpf.o").maps["places"].fd > 0
    assert kernel.load(ELF / "flavours.bpf.o").programs["flavour"].test_run(bytes(96)) == 7


@row("Batch lookup gives ENOSPC when a bucket does not fit. BPF_OBJ_PIN of a name over 255 characters: ENAMETOOLONG.")
def _(kernel: Kernel) -> None:
    """Batches beside Linux's: test_batch.py."""
    fd = kernel.map_create(1, 4, 8, 8)  # 8 buckets, so that 8 keys hardly have one each
    for number in range(8):
        kernel.map_update_elem(fd, struct.pack("<I", number), bytes(8))
    room, mark = ctypes.create_string_buffer(64), ctypes.create_string_buffer(4)
    seen, first = set(), True
    while True:
        number, _ = bpf(kernel, "MAP_LOOKUP_BATCH", map_fd=fd, count=1, in_batch=0 if first else ctypes.addressof(mark),
                           out_batch=ctypes.addressof(mark), keys=ctypes.addressof(room), values=ctypes.addressof(room) + 8)  # fmt: skip
        first = False
        seen.add(number)
        if number in (errno.ENOSPC, errno.ENOENT):
            break
    assert errno.ENOSPC in seen
    assert fails(kernel.obj_pin, "/sys/fs/bpf/" + "n" * 256, fd) == errno.ENAMETOOLONG
    kernel.obj_pin("/sys/fs/bpf/" + "n" * 255, fd)


@row("Module tracepoints of tp_btf unknown to the kernel: libbpf's error is ESRCH (3).")
def _(kernel: Kernel) -> None:
    obj = kernel.open(ELF / "globals.bpf.o")
    for program in obj.programs.values():
        program.type, program.attach_to = "tp_btf", "nosuch_module_event"
    with pytest.raises(ObjectError, match="the kernel has no tracepoint 'nosuch_module_event'") as caught:
        obj.load()
    assert caught.value.errno == errno.ESRCH


# the mail thread


@row("For every tracepoint __bpf_trace_##call function is prepared.")
def _(kernel: Kernel) -> None:
    """The thread's example casts `u32 act`: three arguments, the last 4 bytes wide."""
    assert kernel.tracepoints["xdp_exception"].widths == "884"
    report = kernel.shim_report()
    assert report.shims["884"] > 0
    assert report.tracepoints == len(kernel.tracepoints)


@row('Also multiple bpf_raw_tracepoint_open("foo") are permitted.')
def _(kernel: Kernel) -> None:
    processes = [kernel.new_process(comm=f"tool{number}") for number in range(3)]
    progs = [load(process) for process in processes]
    for process, prog in zip(processes, progs, strict=True):
        process.raw_tracepoint_open(RENAME, prog)
    kernel.trace(RENAME)(0, 0)
    assert [process.files.fget(prog).private_data.runs for process, prog in zip(processes, progs, strict=True)] == [1, 1, 1]
    processes[1].kill()
    assert len(kernel.tracepoints[RENAME].funcs) == 2
    for process in processes:
        process.exit()


@row("In the future bpf_raw_tracepoints can be extended with query/introspection logic.")
def _(kernel: Kernel) -> None:
    kernel.raw_tracepoint_open(SWITCH, load(kernel))
    assert kernel.task_fd_query(kernel.current.pid, kernel.current.files.get_unused_fd(False) - 1) == (SWITCH, 1)


@row("When anon_inode_getfd() fails to get you an fd, then you leak raw_tp here.")
def _(kernel: Kernel) -> None:
    """RLIMIT_NOFILE as it is, filled to the last descriptor."""
    prog = warm(kernel)
    limit = kernel.current.files.rlimit_nofile
    opened = [kernel.raw_tracepoint_open(SWITCH, prog) for _ in range(limit - prog - 1)]
    before = state(kernel)
    for _time in range(10):
        assert fails(kernel.raw_tracepoint_open, SWITCH, prog) == errno.EMFILE
    assert state(kernel) == before
    assert (limit, len(opened), len(kernel.links)) == (1024, 1020, 1020)
    kernel.current.exit()
    assert (len(kernel.links), len(kernel.progs), kernel.file_table.nr_files) == (0, 0, 0)


def _id(sentence: str) -> str:
    """The beginning of the sentence, in ASCII."""
    return sentence.encode("ascii", "replace").decode()[:100]


@pytest.mark.parametrize("sentence", list(CASES), ids=_id)
def test_linux(kernel: Kernel, sentence: str) -> None:
    """What the sentence says is so."""
    CASES[sentence](kernel)


def _normal(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("[V]", "").replace("[S]", "").replace("[L]", "")).lower()


@pytest.mark.parametrize("sentence", list(CASES), ids=_id)
def test_it_is_a_passage_of_the_reference(shared: Path, sentence: str) -> None:
    """The cases are named by what the reference says, not by what we would like it to say."""
    texts = [_normal((shared / name).read_text()) for name in ("semantics.md", "seed.txt")]

    assert any(_normal(sentence).rstrip(".") in text for text in texts)


def test_every_row_of_the_reference_has_a_case(shared: Path) -> None:
    """Each numbered line, bullet, table row and paragraph of semantics.md is covered."""
    rows: list[str] = []
    paragraph = False
    for line in (shared / "semantics.md").read_text().partition("## History")[2].splitlines()[1:]:
        if re.match(r"\d+\. |- |\| (?!command)", line):
            rows.append(line)
        elif line and not line.startswith(("#", "|")):
            if paragraph:
                rows[-1] += " " + line
            else:
                rows.append(line)
        paragraph = bool(line) and not line.startswith(("#", "|"))
    known = [_normal(sentence) for sentence in CASES]
    forgotten = [line for line in rows if not any(sentence in _normal(line) for sentence in known)]

    assert forgotten == []
