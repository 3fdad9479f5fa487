"""Loads, stores and areas given to helpers: the core's rules (mem_native.py), and those that depend on types and names.

Kernel: kernel/bpf/verifier.c:check_mem_access, check_helper_mem_access, check_ptr_off_reg.
"""

from __future__ import annotations

from typing import Any

from fastrtp.isa import (
    BPF_ATOMIC,
    BPF_CMPXCHG,
    BPF_FETCH,
    BPF_LDX,
    BPF_LOAD_ACQ,
    BPF_MEMSX,
    BPF_MODE,
    BPF_SIZE,
    BPF_STORE_REL,
    BPF_STX,
    Insn,
)
from fastrtp.verifier.core import reason as why
from fastrtp.verifier.domain.regtype import (
    CONST_PTR_TO_MAP,
    NOT_INIT,
    PTR_TO_CTX,
    PTR_TO_MAP_VALUE,
)
from fastrtp.verifier.domain.state import BPF_REG_FP, REG_UNKNOWN, BpfRegState, const_scalar
from fastrtp.verifier.report.refuse import refuse
from fastrtp.verifier.rules.btf_access import check_helper_btf_access, check_map_ptr_access, check_ptr_to_btf_access
from fastrtp.verifier.rules.ctx import check_ctx_access
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.fields import check_map_fields
from fastrtp.verifier.rules.kptr import check_map_kptr_access, kptr_at
from fastrtp.verifier.rules.objects import is_constant
from fastrtp.verifier.rules.slots import destroy_if_dynptr, unmark_iter
from fastrtp.verifier.rules.stack import READ, WRITE

SIZE_BYTES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_NO_VALUE = -1
"""A store of unknown data; a load that goes nowhere."""


def check_reg_read(env: BpfVerifierEnv, regno: int) -> BpfRegState:
    """A register used as a source. Errors: EACCES never written."""
    reg = env.regs[regno]
    if reg.type == NOT_INIT:
        env.a = regno
        refuse(env, why.R_NOT_READ_OK)
    return reg


def check_ptr_off_reg(env: BpfVerifierEnv, regno: int, fixed_off_ok: bool = False) -> None:
    """A pointer that must be as it was given (or, `fixed_off_ok`, plus a known non-negative offset)."""
    env.check(env.lib.verifier_ptr_off_reg(env.address, regno, fixed_off_ok))


def check_ptr_alignment(env: BpfVerifierEnv, regno: int, off: int, size: int) -> None:
    """Memory that has to be aligned whatever the program asked for."""
    env.check(env.lib.verifier_alignment(env.address, regno, off, size))


def check_map_access(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, zero_ok: bool, direct: bool) -> None:
    """Within the value, and not on a field that only helpers may touch."""
    env.check(env.lib.verifier_mem_region(env.address, regno, off, size, reg.map.value_size, zero_ok))
    check_map_fields(env, reg, off, size, direct)


def check_mem_access(env: BpfVerifierEnv, regno: int, off: int, size: int, access: int) -> None:
    """A helper's access of `size` bytes at `regno + off`: nothing is loaded, what is stored is unknown."""
    while True:
        reason = env.lib.verifier_mem_access(env.address, regno, off, size, access, _NO_VALUE, 0, 0, 0)
        if reason != why.DO_SLOTS:
            break
        end_special_slots(env)
    if reason == why.DO_ACCESS:
        check_typed_access(env, regno, off, size, access)
    else:
        env.check(reason)


def end_special_slots(env: BpfVerifierEnv) -> None:
    """The core is about to store over dynptrs or iterators: what that does to them. Errors: EINVAL."""
    frame, first, last = env.cur_state.frame(env.a), env.b, env.c
    for spi in range(first, last + 1):
        destroy_if_dynptr(env, frame, spi)
        unmark_iter(frame, spi)


def check_typed_access(
    env: BpfVerifierEnv, regno: int, off: int, size: int, access: int, value_regno: int = _NO_VALUE, is_ldsx: bool = False
) -> BpfRegState:
    """An access that depends on the context, C types, fields or constants of a map; what a load gives."""
    reg = env.regs[regno]
    off += reg.off
    kind = reg.type
    loaded = REG_UNKNOWN
    if kind == PTR_TO_MAP_VALUE:
        check_map_fields(env, reg, off, size, True)
        kptr = kptr_at(env, reg, off)
        if kptr is not None:
            loaded = check_map_kptr_access(env, reg, kptr, access == WRITE, value_regno) or REG_UNKNOWN
        elif access == READ:
            loaded = _read_const_map_value(reg, off, size, is_ldsx)
    elif kind == PTR_TO_CTX:
        check_ptr_off_reg(env, regno)
        loaded = check_ctx_access(env, off, size, access)
    elif kind == CONST_PTR_TO_MAP:
        loaded = check_map_ptr_access(env, regno, reg, off, size, access)
    else:
        loaded = check_ptr_to_btf_access(env, regno, reg, off, size, access)
    env.lib.verifier_note_access(env.address, kind)
    return loaded


def _read_const_map_value(reg: BpfRegState, off: int, size: int, is_ldsx: bool) -> BpfRegState:
    """A load from a frozen read-only array has one result. Kernel: bpf_map_direct_read."""
    found: Any = reg.map
    if reg.bounds.var_off.mask or not is_constant(found):
        return REG_UNKNOWN
    data = found.read_value(off + reg.bounds.smin_value, size)
    return const_scalar(int.from_bytes(data, "little", signed=is_ldsx)) if len(data) == size else REG_UNKNOWN


def do_typed_access(env: BpfVerifierEnv, insn: Insn, idx: int) -> None:
    """A load or store that the core left: check it, and let the core remember a load's result where it is always the same."""
    if insn.code & 7 == BPF_STX and BPF_MODE(insn.code) == BPF_ATOMIC and insn.imm != BPF_STORE_REL:
        _do_typed_atomic(env, insn)
        return
    is_load = insn.code & 7 == BPF_LDX
    size = SIZE_BYTES[BPF_SIZE(insn.code)]
    if not is_load:
        kind = env.regs[insn.dst_reg].type
        value = insn.src_reg if insn.code & 7 == BPF_STX else _NO_VALUE
        check_typed_access(env, insn.dst_reg, insn.off, size, WRITE, value)
        env.check(env.lib.verifier_save_ptr_type(env.address, kind))
        return
    source = env.regs[insn.src_reg]
    is_ldsx = BPF_MODE(insn.code) == BPF_MEMSX
    loaded = check_typed_access(env, insn.src_reg, insn.off, size, READ, insn.dst_reg, is_ldsx)
    env.regs[insn.dst_reg] = loaded
    env.frame.deps[insn.dst_reg] = 0
    env.lib.verifier_finish_load(env.address, insn.dst_reg, size, is_ldsx)
    env.check(env.lib.verifier_save_ptr_type(env.address, source.type))
    if not loaded.id and not source.id:
        env.remember(idx, env.space.raw(source), insn.dst_reg)


def _do_typed_atomic(env: BpfVerifierEnv, insn: Insn) -> None:
    """As the core's check_atomic, for memory that Python knows: read, put the old value where it goes, write."""
    size = SIZE_BYTES[BPF_SIZE(insn.code)]
    is_load = insn.imm == BPF_LOAD_ACQ
    regno = insn.src_reg if is_load else insn.dst_reg
    kind = env.regs[regno].type
    load_reg = insn.dst_reg if is_load else _NO_VALUE
    if not is_load and insn.imm & BPF_FETCH:
        load_reg = 0 if insn.imm == BPF_CMPXCHG else insn.src_reg
    loaded = check_typed_access(env, regno, insn.off, size, READ, load_reg)
    if load_reg >= 0:
        env.regs[load_reg] = loaded
        env.frame.deps[load_reg] = 0
        env.lib.verifier_finish_load(env.address, load_reg, size, 0)
    if not is_load:
        # where the old value replaced the pointer itself there is none left, and this is refused
        check_mem_access(env, regno, insn.off, size, WRITE)
    env.check(env.lib.verifier_save_ptr_type(env.address, kind))


def check_typed_area(env: BpfVerifierEnv, regno: int, size: int, access: int) -> None:
    """An area given to a helper that depends on C types or fields: of a map's value, or of a kernel object.

    What the code generator has to know of the latter, whose address it must not trust, goes to the instruction's aux.
    """
    reg = env.regs[regno]
    if reg.type == PTR_TO_MAP_VALUE:
        check_map_fields(env, reg, reg.off, size, False)
        return
    check_helper_btf_access(env, regno, reg, size, access)
    aux = env.aux[env.insn_idx]
    aux.kernel_mem |= 1 << regno
    aux.kernel_mem_size = max(aux.kernel_mem_size, size)


def check_helper_mem_access(
    env: BpfVerifierEnv, regno: int, size: int, access: int, zero_ok: bool, raw_mode: bool = False
) -> bool:
    """An area of `size` bytes given to a helper. True: stack that the helper will fill (raw mode)."""
    reason = env.lib.verifier_helper_mem(env.address, regno, size, access, zero_ok, raw_mode)
    if reason == why.DO_ACCESS:
        check_typed_area(env, regno, size, access)
        return False
    env.check(reason)
    return reason < 0


__all__ = ["BPF_REG_FP", "check_helper_mem_access", "check_mem_access", "check_reg_read"]
