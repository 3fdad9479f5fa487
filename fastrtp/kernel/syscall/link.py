"""BPF_RAW_TRACEPOINT_OPEN and the BPF_LINK_* commands.

Kernel counterpart: kernel/bpf/syscall.c (bpf_raw_tracepoint_open, bpf_raw_tp_link_attach, link_create, link_update, link_detach).
"""

from __future__ import annotations

import errno

from fastrtp.errors import BpfError
from fastrtp.kernel.files.uaccess import strncpy_from_user
from fastrtp.kernel.objects.link import BpfRawTpLink
from fastrtp.kernel.objects.prog import BpfProg
from fastrtp.kernel.syscall.call import Call
from fastrtp.kernel.tracing.tracepoint_prog import bpf_perf_link_attach
from fastrtp.trace.probe import BpfRawEventMap, LinkRecord
from fastrtp.uapi import BPF_F_REPLACE, BpfAttachType, BpfProgType

_TP_NAME_SIZE = 128
_BY_BTF_ID = frozenset({BpfProgType.BPF_PROG_TYPE_TRACING, BpfProgType.BPF_PROG_TYPE_EXT, BpfProgType.BPF_PROG_TYPE_LSM})
_BY_NAME = frozenset({BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE})


def bpf_raw_tracepoint_open(call: Call) -> int:
    """BPF_RAW_TRACEPOINT_OPEN: descriptor of a link. BpfError, in the order of the checks: EINVAL (attr), EBADF or EINVAL
    (prog_fd), EINVAL (program type, tp_btf with a name), EFAULT (name), ENOENT, ENOMEM, EMFILE, ENFILE, EINVAL (the program
    reads past the tracepoint's arguments), and what registering the probe gives.

    Kernel: kernel/bpf/syscall.c:bpf_raw_tracepoint_open
    """
    attr = call.attr
    call.check_attr()
    prog = call.prog_get(attr.prog_fd)
    return bpf_raw_tp_link_attach(call, prog, attr.name, attr.cookie, prog.expected_attach_type)


def bpf_raw_tp_link_attach(call: Call, prog: BpfProg, user_tp_name: int, cookie: int, attach_type: int) -> int:
    """Open and attach in one. The link takes its own reference to the program.

    Kernel: kernel/bpf/syscall.c:bpf_raw_tp_link_attach
    """
    kernel = call.kernel
    if prog.type in _BY_BTF_ID:
        if user_tp_name:
            raise BpfError(errno.EINVAL, "EINVAL: a tp_btf program has its tracepoint from load, name must be NULL")
        if prog.expected_attach_type != BpfAttachType.BPF_TRACE_RAW_TP:
            raise BpfError(errno.EINVAL, f"EINVAL: attach type {prog.expected_attach_type} is not BPF_TRACE_RAW_TP")
        name = prog.aux.attach_func_name
    elif prog.type in _BY_NAME:
        name = strncpy_from_user(user_tp_name, _TP_NAME_SIZE - 1).decode("latin-1")
    else:
        raise BpfError(errno.EINVAL, f"EINVAL: programs of type {prog.type} cannot be attached to a raw tracepoint")
    btp = kernel.tracepoints.bpf_get_raw_tracepoint(name)
    if btp is None:
        raise BpfError(errno.ENOENT, f"ENOENT: no tracepoint {name!r}")
    try:
        return _prime_and_register(call, prog, btp, cookie, attach_type)
    except BaseException:
        kernel.tracepoints.bpf_put_raw_tracepoint(btp)
        raise


def _prime_and_register(call: Call, prog: BpfProg, btp: BpfRawEventMap, cookie: int, attach_type: int) -> int:
    """The link's memory comes first: without it it is ENOMEM, whether or not a descriptor is free."""
    kernel = call.kernel
    record = LinkRecord(kernel.memory, prog.record, cookie, ctx_size=8 * btp.num_args)

    def prime() -> BpfRawTpLink:
        return BpfRawTpLink(kernel.links, prog, attach_type, kernel.tracepoints, btp, record)

    try:
        return call.link_attach(prime, BpfRawTpLink.bpf_probe_register)
    except BaseException:
        record.close()
        raise


def link_create(call: Call) -> int:
    """BPF_LINK_CREATE: of the programs here tp_btf takes it, and tracepoint with a perf event. BpfError EINVAL, EBADF, and what
    attaching gives. Kernel: link_create
    """
    attr = call.attr
    call.check_attr()
    prog = call.prog_get(attr.prog_fd)
    if prog.type == BpfProgType.BPF_PROG_TYPE_TRACEPOINT:
        return bpf_perf_link_attach(call, prog)
    if attr.attach_type != BpfAttachType.BPF_TRACE_RAW_TP or prog.type != BpfProgType.BPF_PROG_TYPE_TRACING:
        raise BpfError(errno.EINVAL, f"EINVAL: attach type {attr.attach_type} is not for programs of type {prog.type}")
    if attr.attach_type != prog.expected_attach_type:
        raise BpfError(errno.EINVAL, f"EINVAL: attach type {attr.attach_type}, loaded for {prog.expected_attach_type}")
    return bpf_raw_tp_link_attach(call, prog, 0, attr.cookie, attr.attach_type)


def link_update(call: Call) -> int:
    """BPF_LINK_UPDATE: no link here can change its program. BpfError EINVAL, EBADF. Kernel: link_update"""
    attr = call.attr
    call.check_attr()
    if attr.flags & ~BPF_F_REPLACE:
        raise BpfError(errno.EINVAL, f"EINVAL: flags {attr.flags:#x}, only BPF_F_REPLACE is allowed")
    link = call.link_get(attr.link_fd)
    call.prog_get(attr.new_prog_fd)
    if attr.flags & BPF_F_REPLACE:
        call.prog_get(attr.old_prog_fd)
    raise BpfError(errno.EINVAL, f"EINVAL: the program of link {link.id} cannot be replaced")


def link_detach(call: Call) -> int:
    """BPF_LINK_DETACH: raw tracepoint links go with their last descriptor only. BpfError EINVAL, EBADF, EOPNOTSUPP."""
    call.check_attr()
    link = call.link_get(call.attr.link_fd)
    raise BpfError(errno.EOPNOTSUPP, f"EOPNOTSUPP: link {link.id} is detached by closing it")
