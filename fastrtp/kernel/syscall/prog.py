"""BPF_PROG_LOAD and BPF_PROG_BIND_MAP.

Order: attr, rights, attach target, instructions, license, program type, name; then the verifier; then the compiler; last
the id and the descriptor.

Kernel counterpart: kernel/bpf/syscall.c:bpf_prog_load, kernel/bpf/verifier.c:bpf_check (its frame).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError
from fastrtp.helpers.table import HELPER_IDS
from fastrtp.kernel.files.uaccess import copy_from_user, strncpy_from_user
from fastrtp.kernel.objects.bpf_map import BpfMap, not_supported
from fastrtp.kernel.objects.btf_object import BtfObject
from fastrtp.kernel.objects.jited import profile
from fastrtp.kernel.objects.names import GPL_COMPATIBLE, bpf_obj_name_cpy
from fastrtp.kernel.objects.prog import BpfProg, ProgAux, bpf_prog_calc_tag
from fastrtp.kernel.syscall.attach_target import check_attach_btf_id
from fastrtp.kernel.syscall.call import Call
from fastrtp.kernel.syscall.core_relo import check_core_relo
from fastrtp.kernel.syscall.func_info import read_func_info, read_line_info
from fastrtp.kernel.syscall.vlog import BPF_LOG_STATS, VerifierLog, with_stats
from fastrtp.uapi import (
    BPF_COMPLEXITY_LIMIT_INSNS,
    BPF_F_ANY_ALIGNMENT,
    BPF_F_SLEEPABLE,
    BPF_F_STRICT_ALIGNMENT,
    BPF_F_TEST_REG_INVARIANTS,
    BPF_F_TEST_RND_HI32,
    BPF_F_TEST_STATE_FREQ,
    BPF_F_TOKEN_FD,
    BPF_F_XDP_DEV_BOUND_ONLY,
    BPF_F_XDP_HAS_FRAGS,
    BpfMapType,
    BpfProgType,
)

if TYPE_CHECKING:
    from fastrtp.isa import Insn
    from fastrtp.verifier import VerifiedProgram

_FLAGS = (
    BPF_F_STRICT_ALIGNMENT | BPF_F_ANY_ALIGNMENT | BPF_F_TEST_RND_HI32 | BPF_F_TEST_STATE_FREQ | BPF_F_SLEEPABLE
    | BPF_F_XDP_HAS_FRAGS | BPF_F_XDP_DEV_BOUND_ONLY | BPF_F_TEST_REG_INVARIANTS | BPF_F_TOKEN_FD
)  # fmt: skip
_LICENSE_SIZE = 128
_CALL, _SNPRINTF_BTF = 0x85, HELPER_IDS["snprintf_btf"]
_LOG_TRUE_SIZE_END = 144
_BTF_MAX_TYPE = 0x000FFFFF
_BY_BTF_ID = frozenset({
    BpfProgType.BPF_PROG_TYPE_TRACING, BpfProgType.BPF_PROG_TYPE_LSM,
    BpfProgType.BPF_PROG_TYPE_STRUCT_OPS, BpfProgType.BPF_PROG_TYPE_EXT,
})  # fmt: skip
_TRACEPOINT_ARGS = frozenset({
    BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE,
    BpfProgType.BPF_PROG_TYPE_TRACING,
})  # fmt: skip
"""Program types whose context is a tracepoint's arguments."""
LOADABLE = frozenset({
    BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE,
    BpfProgType.BPF_PROG_TYPE_TRACING, BpfProgType.BPF_PROG_TYPE_TRACEPOINT,
})  # fmt: skip
"""Program types that there are. The others are EINVAL, as on a kernel that is configured without them."""


class FdArray(Sequence[int]):
    """`attr.fd_array`, read as it is used: its length is not known to the kernel. BpfError EFAULT."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __getitem__(self, index: Any) -> Any:
        return int.from_bytes(copy_from_user(self.address + 4 * int(index), 4), "little", signed=True)

    def __len__(self) -> int:
        return 1 << 30 if self.address else 0

    def __iter__(self) -> Iterator[int]:
        raise TypeError("fd_array has no known end")


def bpf_prog_load(call: Call) -> int:
    """BPF_PROG_LOAD: a descriptor. VerifierError, with the log; BpfError EINVAL, E2BIG, EFAULT, EPERM, EBADF, ENOSPC, EMFILE.

    Kernel: kernel/bpf/syscall.c:bpf_prog_load
    """
    attr = call.attr
    call.check_attr()
    if attr.prog_flags & ~_FLAGS:
        raise _invalid(f"prog_flags {attr.prog_flags:#x}, {_FLAGS:#x} are known")
    if attr.prog_flags & BPF_F_TOKEN_FD:
        call.token_get(attr.prog_token_fd)
    call.require_capable("BPF_PROG_LOAD")
    if not 0 < attr.insn_cnt <= BPF_COMPLEXITY_LIMIT_INSNS:
        raise BpfError(errno.E2BIG, f"E2BIG: {attr.insn_cnt} instructions, 1 to {BPF_COMPLEXITY_LIMIT_INSNS} are allowed")
    attach_btf = _attach_btf(call)
    code = copy_from_user(attr.insns, 8 * attr.insn_cnt)
    license_text = strncpy_from_user(attr.license, _LICENSE_SIZE - 1).decode("latin-1")
    if attr.prog_ifindex:
        raise _invalid(f"prog_ifindex {attr.prog_ifindex} is for XDP programs")
    if attr.prog_type not in LOADABLE:
        raise _invalid(f"program type {attr.prog_type} is not supported")
    name = bpf_obj_name_cpy(bytes(attr.prog_name))
    aux = ProgAux(
        load_time=boottime_ns(),
        created_by_uid=call.current.uid,
        gpl_compatible=license_text in GPL_COMPATIBLE,
        expected_attach_type=attr.expected_attach_type,
        prog_flags=attr.prog_flags,
        attach_btf=attach_btf,
        attach_btf_id=attr.attach_btf_id,
    )
    prog = _load(call, code, license_text, name, aux)
    try:
        return call.prog_new_fd(prog)
    except BpfError:
        prog.put()
        raise


def _attach_btf(call: Call) -> BtfObject | None:
    """The BTF that attach_btf_id is in. Kernel: bpf_prog_load, bpf_prog_load_check_attach"""
    attr = call.attr
    attach_btf = None
    if attr.attach_btf_obj_fd:
        try:
            call.prog_get(attr.attach_btf_obj_fd)
        except BpfError:
            pass
        else:
            raise _invalid("attach_prog_fd: programs cannot be attached to programs here")
        try:
            attach_btf = call.btf_get(attr.attach_btf_obj_fd)
        except BpfError as error:
            raise _invalid(f"attach_btf_obj_fd {attr.attach_btf_obj_fd} is no BTF") from error
        if not attach_btf.kernel_btf:
            raise not_supported("attaching by the BTF of a program")
    elif attr.attach_btf_id:
        attach_btf = call.kernel.vmlinux
    if attr.attach_btf_id:
        if attr.attach_btf_id > _BTF_MAX_TYPE:
            raise _invalid(f"attach_btf_id {attr.attach_btf_id} is past the last possible one, {_BTF_MAX_TYPE}")
        if attr.prog_type not in _BY_BTF_ID:
            raise _invalid(f"attach_btf_id on a program of type {attr.prog_type}")
    elif attach_btf is not None:
        raise _invalid("attach_btf_obj_fd without attach_btf_id")
    return attach_btf


def _load(call: Call, code: bytes, license_text: str, name: str, aux: ProgAux) -> BpfProg:
    """Verify, compile, register. Kernel: kernel/bpf/verifier.c:bpf_check, kernel/bpf/core.c:bpf_prog_select_runtime"""
    from fastrtp.isa import decode
    from fastrtp.jit import compile_program

    attr = call.attr
    log = VerifierLog(attr.log_level, attr.log_buf, attr.log_size)
    log.check()
    insns = decode(code)
    found: dict[int, BpfMap] = {}
    failure: BpfError | None = None
    verified = None
    start = time.monotonic_ns()
    try:
        verified = _check(call, insns, license_text, aux, found)
        text = verified.log
    except BpfError as error:
        failure, text = error, error.log
    if log.level & BPF_LOG_STATS:
        text = with_stats(text, (time.monotonic_ns() - start) // 1000, verified)
    true_size, cut = log.finalize(text)
    if call.size >= _LOG_TRUE_SIZE_END:
        call.put_user("log_true_size", true_size)
    if cut:
        raise log.error(true_size, cut, text) from failure
    if failure is not None:
        raise failure
    assert verified is not None
    if any(insn.code == _CALL and not insn.src_reg and insn.imm == _SNPRINTF_BTF for insn in insns):
        words, offsets = call.kernel.btf.records
        call.kernel.memory.publish_types(words, call.kernel.btf.strings, offsets)
    used_maps = [found[contents.id] for contents in verified.used_maps]
    wait = not call.kernel.compiles_later
    maps = [bpf_map.map for bpf_map in used_maps]
    widths = _expected_widths(call, aux)
    native = compile_program(verified, maps, name or "prog", call.kernel.memory, wait=wait, widths=widths)
    tag = bpf_prog_calc_tag(insns)
    prog = BpfProg(call.kernel.progs, attr.prog_type, name, tag, aux, verified, used_maps, native, call.kernel.memory)
    profile(prog, call.kernel.memory.perf_map)
    for bpf_map in used_maps:
        if bpf_map.map_type != BpfMapType.BPF_MAP_TYPE_PROG_ARRAY:
            continue
        if not bpf_map.compatible(prog):
            prog.put()
            raise _invalid(f"program array {bpf_map.id} holds programs of another kind")
        if not bpf_map.admit_caller(prog):
            prog.put()
            raise _invalid(
                f"program array {bpf_map.id} holds a program that accesses more of its tracepoint's buffer than this one"
            )
    return prog


def _expected_widths(call: Call, aux: ProgAux) -> str:
    """Argument widths of the tracepoint that the program will be attached to, "" where nobody has said."""
    name = aux.attach_func_name or call.current.expected
    tracepoints = call.kernel.tracepoints
    return tracepoints.widths(name) if call.attr.prog_type in _TRACEPOINT_ARGS and name in tracepoints else ""


def _check(call: Call, insns: list[Insn], license_text: str, aux: ProgAux, found: dict[int, BpfMap]) -> VerifiedProgram:
    """Call the verifier with descriptors turned into objects; maps that it asks for are put into `found`.

    CO-RE relocations of the attr are applied to `insns` in place, before the program's tag is taken.
    """
    from fastrtp.entry_cache import cache_folder
    from fastrtp.native.compiler import server
    from fastrtp.verifier import AttachTarget, LoadAttr, VerifiedCache

    attr = call.attr

    def fd_to_map(fd: int) -> Any:
        bpf_map = call.map_get(fd & 0xFFFFFFFF)
        found[bpf_map.id] = bpf_map
        return bpf_map.map

    attach = None
    kernel_btf = call.kernel.btf
    aux.attach_func_name = check_attach_btf_id(attr.prog_type, aux)
    if aux.attach_btf is not None:
        kernel_btf = aux.attach_btf.btf
        attach = AttachTarget(aux.attach_func_name, aux.attach_btf_id)
    if attr.func_info_cnt or attr.line_info_cnt:
        aux.btf = call.btf_get(attr.prog_btf_fd)
        if aux.btf.kernel_btf:
            raise BpfError(errno.EACCES, f"EACCES: BTF {aux.btf.id} describes the kernel, not a program")
        aux.func_info = read_func_info(call)
        aux.line_info = read_line_info(call)
        insns[:] = check_core_relo(call, insns, aux.btf.btf)
    return VerifiedCache(cache_folder(), missed=server().start).bpf_check(
        LoadAttr(
            prog_type=attr.prog_type,
            insns=insns,
            license=license_text,
            prog_flags=attr.prog_flags,
            expected_attach_type=attr.expected_attach_type,
            attach=attach,
            fd_to_map=fd_to_map,
            fd_array=FdArray(attr.fd_array),
            btf=aux.btf.btf if aux.btf is not None else None,
            func_info=aux.func_info,
            line_info=aux.line_info,
            kernel_btf=kernel_btf,
            log_level=attr.log_level,
            capable=call.current.capable,
            nr_cpu_ids=call.kernel.cpus,
        )
    )


def bpf_prog_bind_map(call: Call) -> int:
    """BPF_PROG_BIND_MAP: let a program hold a map that its code does not name. BpfError EINVAL, EBADF.

    Kernel: kernel/bpf/syscall.c:bpf_prog_bind_map
    """
    attr = call.attr
    call.check_attr()
    if attr.flags:
        raise _invalid(f"flags {attr.flags:#x}, none are allowed")
    prog = call.prog_get(attr.prog_fd)
    prog.bind_map(call.map_get(attr.map_fd))
    return 0


def boottime_ns() -> int:
    """Now, in ns since boot. Kernel: kernel/time/timekeeping.c:ktime_get_boottime_ns"""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime_ns(clock) if clock is not None else time.monotonic_ns()


def _invalid(why: str) -> BpfError:
    return BpfError(errno.EINVAL, f"EINVAL: {why}")
