"""The kernel: registries, processes and their descriptors, programs, maps, links, and bpf(2).

This layer joins what the ones below keep apart: the verifier, the JIT, the maps and the tracepoints.

History. In the first version of the patch that brought raw tracepoints to Linux (March 2018) `bpf_raw_tracepoint_open(name)`
gave a file descriptor of an object "bpf-raw-tracepoint", and `bpf_prog_attach(prog_fd, raw_tp_fd)` put a program on it. The
review found that the object leaked when anon_inode_getfd() had no descriptor to give, and asked why there are two commands.
So open and attach became one, BPF_RAW_TRACEPOINT_OPEN {name, prog_fd}: no race between the two, and one program still serves
many tracepoints. That is what is here, as Linux 6.18 has it: the descriptor is of a bpf_link, and there is a cookie.

What a process does, and what happens:

    kernel.prog_load(...)             bpf(BPF_PROG_LOAD)            verify, compile, a descriptor of the program
    kernel.raw_tracepoint_open(...)   bpf(BPF_RAW_TRACEPOINT_OPEN)  find the tracepoint by name (127 characters of it), make a
                                                                    link, a descriptor, a file; last, register the probe
    kernel.trace(name)(args...)       trace_<name>(args...)         __bpf_trace_<class>: arguments to u64; bpf_trace_run<N>:
                                                                    recursion guard, u64 args[N], the program
    kernel.close(fd), or exit         close(2), do_exit             the last reference to the link unregisters the probe, waits
                                                                    for runs under way, lets the program go

Where it is:

    kernel.py, process.py     registries; processes, fork, exit
    files/                    open files and descriptor tables, reference counts and ids, the caller's memory
    objects/                  what descriptors stand for: programs, maps, links, BTF, perf events; pins (bpffs.py), fdinfo
    tracing/                  every tracepoint of the BTF, and one's own; who listens to them, ftrace, perf
    syscall/                  bpf(2): the command table, checks of attrs, one module for each family of commands
    loader/                   an ELF object as libbpf opens, sets up and loads it
    verbs.py                  the system calls as methods, with Python's bytes for C's buffers

Each package knows those above it in this list, and what it names of Kernel and Process it names in annotations alone.

Rules. Every error is a BpfError with Linux's errno, raised where Linux returns it, and nothing is left behind. All changes
are made under `Kernel.lock`; what running programs read is replaced as a whole and freed after a grace period, so a replay or
a live tracepoint in another thread never sees it half done. Two kernels share nothing but compiled code.

Differs from Linux: a program is one native function (its subprograms are inside), so the jited dump has one; the cast shims
have bpf_trace_run<N> inside instead of jumping to it; program types other than raw_tp, raw_tp.w and tp_btf are EINVAL at load.
"""

from __future__ import annotations

from fastrtp.kernel.kernel import Kernel
from fastrtp.kernel.process import Process

__all__ = ["Kernel", "Process"]
