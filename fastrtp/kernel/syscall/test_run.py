"""BPF_PROG_TEST_RUN of raw tracepoint programs.

Kernel counterpart: kernel/bpf/syscall.c:bpf_prog_test_run, net/bpf/test_run.c:bpf_prog_test_run_raw_tp
"""

from __future__ import annotations

import errno

from fastrtp.errors import BpfError
from fastrtp.kernel.files.uaccess import copy_from_user
from fastrtp.kernel.objects.bpf_map import not_supported
from fastrtp.kernel.objects.prog import BpfProg
from fastrtp.kernel.syscall.call import Call
from fastrtp.uapi import BPF_F_TEST_RUN_ON_CPU, MAX_BPF_FUNC_ARGS, BpfProgType

_CTX_SIZE = 8 * MAX_BPF_FUNC_ARGS


def bpf_prog_test_run(call: Call) -> int:
    """Run a program once on `ctx_in`; `retval` in the attr is its R0. BpfError EINVAL, EBADF, ENXIO, EFAULT, ENOTSUPP.

    Kernel: kernel/bpf/syscall.c:bpf_prog_test_run
    """
    attr = call.attr
    call.check_attr()
    for size, pointer in ((attr.ctx_size_in, attr.ctx_in), (attr.ctx_size_out, attr.ctx_out)):
        if bool(size) != bool(pointer):
            raise _invalid(f"context of {size} bytes at address {pointer:#x}")
    prog = call.prog_get(attr.prog_fd)
    if prog.type == BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT:
        return _test_run_raw_tp(call, prog)
    if prog.type == BpfProgType.BPF_PROG_TYPE_TRACING:
        if attr.flags or attr.cpu or attr.batch_size:
            raise _invalid("flags, cpu and batch_size are for other program types")
        raise BpfError(errno.EFAULT, "EFAULT: a tp_btf program cannot be run on its own")
    raise not_supported(f"test run of a program of type {BpfProgType(prog.type).name}")


def _test_run_raw_tp(call: Call, prog: BpfProg) -> int:
    attr = call.attr
    kernel = call.kernel
    for field in ("data_in", "data_out", "ctx_out", "duration", "repeat", "batch_size"):
        if getattr(attr, field):
            raise _invalid(f"{field} is not for raw tracepoint programs")
    if not prog.max_ctx_offset <= attr.ctx_size_in <= _CTX_SIZE:
        raise _invalid(f"context of {attr.ctx_size_in} bytes: the program reads {prog.max_ctx_offset}, {_CTX_SIZE} is the most")
    cpu = attr.cpu
    if cpu and not attr.flags & BPF_F_TEST_RUN_ON_CPU:
        raise _invalid(f"cpu {cpu} without BPF_F_TEST_RUN_ON_CPU")
    ctx = copy_from_user(attr.ctx_in, attr.ctx_size_in)
    if cpu >= kernel.cpus:
        raise BpfError(errno.ENXIO, f"ENXIO: no cpu {cpu}, there are {kernel.cpus}")
    call.put_user("retval", kernel.run_prog(prog, ctx, cpu))
    return 0


def _invalid(why: str) -> BpfError:
    return BpfError(errno.EINVAL, f"EINVAL: {why}")
