"""Calls of helpers: every argument against its row of the helper table, what comes back.

Of a call that Python has a part in (DO_CALL) it takes each step itself, and asks the core for what is here.
Kernel: kernel/bpf/verifier.c:check_helper_call, check_func_arg, check_reg_type, check_func_arg_reg_off,
check_mem_size_reg, record_func_map, check_map_func_compatibility.
"""

from __future__ import annotations

from fastrtp.helpers.argtype import (
    MEM_ALIGNED,
    MEM_ALLOC,
    MEM_FIXED_SIZE,
    MEM_RDONLY,
    MEM_UNINIT,
    MEM_WRITE,
    OBJ_RELEASE,
    PTR_MAYBE_NULL,
    ArgType,
    RetType,
)
from fastrtp.native.intrinsics import device, load32, lshr, memset, native, ule
from fastrtp.uapi import BPF_F_INNER_MAP, BPF_F_RDONLY_PROG, BpfMapType
from fastrtp.verifier.core.held_native import value_held
from fastrtp.verifier.core.mem_native import (
    check_helper_mem_access,
    check_ptr_alignment,
    check_ptr_off_reg,
    check_reg_read,
    current_reg,
    insn_at,
)
from fastrtp.verifier.core.precision_native import mark_reg_precise
from fastrtp.verifier.core.reason import (
    DO_ACCESS,
    DO_ARG,
    DO_CALL,
    OK,
    R_ALLOC_TOO_LARGE,
    R_ALLOC_UNKNOWN,
    R_ARG_KEY_MAP,
    R_ARG_MAY_WRITE,
    R_ARG_NULL,
    R_ARG_NULL_OBJECT,
    R_ARG_RELEASE_OFF,
    R_ARG_TIMER_MAP,
    R_ARG_TWO_REFS,
    R_ARG_TYPE,
    R_ARG_UNREFERENCED,
    R_ARG_VALUE_MAP,
    R_CALL_MAP_TYPE,
    R_CALL_NOT_ACQUIRED,
    R_CALL_RDONLY_MAP,
    R_SIZE_NEGATIVE,
    R_SIZE_UNBOUNDED,
    R_SIZE_ZERO,
)
from fastrtp.verifier.core.refs_native import KIND_PTR, acquire_reference, in_section, release_reference
from fastrtp.verifier.core.stack_native import READ, WRITE, constant_map_key, mark_stack_written, register_is_null, say
from fastrtp.verifier.core.state_native import (
    mark_not_init,
    mark_unknown,
    new_id,
    reg_clear,
    reg_of,
    top_frame,
)
from fastrtp.verifier.domain.bounds_native import (
    S32_MAX,
    S32_MIN,
    bounds_const,
    reg_bounds_sync,
    set_ranges32,
    set_ranges64,
)
from fastrtp.verifier.domain.records import (
    ARG_TYPES_MAX,
    CALL_ALLOWED,
    CALL_MAPS,
    HELPER_ACQUIRES,
    HELPER_CPU,
    HELPER_LOOKS_UP,
    HELPER_NATIVE,
    HELPER_RET_NATIVE,
    HELPER_ROWS,
    HELPER_SIZED,
    HELPER_WRITES_MAP,
    HELPER_XCHG,
    OBJECT_LOCK,
    VCall,
    VEnv,
    VFrame,
    VHelper,
    VInsn,
    VObject,
    VReg,
)
from fastrtp.verifier.domain.regtype import (
    PTR_TO_BTF_ID,
    PTR_TO_BUF,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_PACKET,
    PTR_TO_PACKET_META,
    PTR_TO_STACK,
    SCALAR_VALUE,
)

CALL_SIZE = VCall.layout.size

ARG_DONTCARE, ARG_ANYTHING = int(ArgType.ARG_DONTCARE), int(ArgType.ARG_ANYTHING)
ARG_CONST_MAP_PTR = int(ArgType.ARG_CONST_MAP_PTR)
ARG_PTR_TO_MAP_KEY, ARG_PTR_TO_MAP_VALUE = int(ArgType.ARG_PTR_TO_MAP_KEY), int(ArgType.ARG_PTR_TO_MAP_VALUE)
ARG_PTR_TO_MEM, ARG_CONST_SIZE = int(ArgType.ARG_PTR_TO_MEM), int(ArgType.ARG_CONST_SIZE)
ARG_CONST_SIZE_OR_ZERO, ARG_ALLOC_SIZE = int(ArgType.ARG_CONST_SIZE_OR_ZERO), int(ArgType.ARG_CONST_ALLOC_SIZE_OR_ZERO)
ARG_PTR_TO_CTX, ARG_PTR_TO_RINGBUF_MEM = int(ArgType.ARG_PTR_TO_CTX), int(ArgType.ARG_PTR_TO_RINGBUF_MEM)
ARG_PTR_TO_STACK, ARG_PTR_TO_FUNC = int(ArgType.ARG_PTR_TO_STACK), int(ArgType.ARG_PTR_TO_FUNC)
ARG_SOCK_COMMON = int(ArgType.ARG_PTR_TO_BTF_ID_SOCK_COMMON)
ARG_PTR_TO_DYNPTR, ARG_KPTR_XCHG_DEST = int(ArgType.ARG_PTR_TO_DYNPTR), int(ArgType.ARG_KPTR_XCHG_DEST)
RET_INTEGER, RET_VOID, RET_MAP_VALUE = int(RetType.RET_INTEGER), int(RetType.RET_VOID), int(RetType.RET_PTR_TO_MAP_VALUE)
MAP_ARRAY, MAP_PERCPU_ARRAY = int(BpfMapType.BPF_MAP_TYPE_ARRAY), int(BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY)
MAP_BLOOM_FILTER = int(BpfMapType.BPF_MAP_TYPE_BLOOM_FILTER)
BPF_MAX_VAR_SIZ = 1 << 29
MAX_ERRNO = 4095
U32 = 0xFFFFFFFF
CALLER_SAVED = 6
ANY_OFFSET = (
    (1 << PTR_TO_STACK) | (1 << PTR_TO_PACKET) | (1 << PTR_TO_PACKET_META) | (1 << PTR_TO_MAP_KEY) | (1 << PTR_TO_MAP_VALUE)
    | (1 << PTR_TO_MEM) | (1 << PTR_TO_BUF) | (1 << SCALAR_VALUE)
)  # fmt: skip


@device
def helper_row(env: VEnv, func_id: int) -> VHelper:
    """The row of a helper that exists."""
    return env.helpers[func_id]


@device
def _map_at(env: VEnv) -> VObject:
    """The record of the map that the call works on."""
    return env.objects[env.call.map]


@device
def begin_call(env: VEnv) -> None:
    """Nothing is known of the arguments yet."""
    memset(int(env.call), 0, CALL_SIZE)
    env.call.subprogno = -1
    env.call.const_map_key = -1


@device
def clear_caller_saved_regs(frame: VFrame) -> None:
    """R0 to R5 are gone after a call."""
    for regno in range(CALLER_SAVED):
        mark_not_init(reg_of(frame, regno))


@device
def _check_btf_arg(env: VEnv, regno: int, kind: int, arg_type: int) -> int:
    """A pointer to a kernel object: as memory for helpers that only read it; one that may be NULL for arguments that may be,
    and that do not give the object away.
    """
    if kind & 0xFF != PTR_TO_BTF_ID:
        return OK
    base = arg_type & 0xFF
    if base == ARG_PTR_TO_MEM or base == ARG_PTR_TO_MAP_KEY or base == ARG_PTR_TO_MAP_VALUE:
        return OK if arg_type & MEM_RDONLY else say(env, R_ARG_MAY_WRITE, regno, 0, 0, 0)
    if kind & PTR_MAYBE_NULL == 0:
        return OK
    if kind & MEM_ALLOC:
        return say(env, R_ARG_NULL_OBJECT, regno, 0, 0, 0)  # Linux's switch over the types has forgotten it
    return OK if arg_type & (PTR_MAYBE_NULL | OBJ_RELEASE) == PTR_MAYBE_NULL else say(env, R_ARG_NULL, regno, 0, 0, 0)


@device
def check_reg_type(env: VEnv, row: VHelper, arg: int) -> int:
    """The register is read, and is of a type that goes with the argument's."""
    regno = arg + 1
    arg_type = row.args[arg]
    base = arg_type & 0xFF
    if base == ARG_DONTCARE:
        return OK
    reason = check_reg_read(env, regno)
    if reason != OK or base == ARG_ANYTHING:
        return reason
    reg = current_reg(env, regno)
    if (arg_type & PTR_MAYBE_NULL) != 0 and register_is_null(reg) != 0:
        mark_reg_precise(env, regno)  # Linux does not: another path could then come by with any number for a pointer
        return OK
    kind = reg.type
    if arg_type & MEM_RDONLY:
        kind &= ~MEM_RDONLY
    if arg_type & PTR_MAYBE_NULL:
        kind &= ~PTR_MAYBE_NULL
    if row.flags & HELPER_XCHG and arg == 1:
        kind &= ~MEM_ALLOC
    types = env.arg_types + 4 * ARG_TYPES_MAX * base
    for index in range(ARG_TYPES_MAX):
        if load32(types + 4 * index) == kind:
            return _check_btf_arg(env, regno, reg.type, arg_type)
    return say(env, R_ARG_TYPE, regno, base, 0, 0)


@device
def _check_func_arg_reg_off(env: VEnv, regno: int, reg: VReg, arg_type: int) -> int:
    if (arg_type & OBJ_RELEASE) != 0 and (arg_type & 0xFF) != ARG_PTR_TO_DYNPTR:
        if reg.off != 0:
            return say(env, R_ARG_RELEASE_OFF, regno, 0, 0, 0)
        return check_ptr_off_reg(env, regno, reg, 0)
    base = reg.type & 0xFF
    if (ANY_OFFSET >> base) & 1:
        return OK
    return check_ptr_off_reg(env, regno, reg, 1 if base == PTR_TO_BTF_ID else 0)


@device
def _note_filled(env: VEnv, reason: int, regno: int, size: int) -> int:
    """An area of -1 is stack that the helper will fill."""
    if reason != -1:
        return reason
    env.call.raw_regno = regno
    env.call.access_size = size
    return OK


@device
def _check_map_ptr(env: VEnv, reg: VReg) -> int:
    number = reg.map
    known = env.call.map
    uid = env.call.map_uid
    if known != 0 and (known != number or uid != reg.num):
        return say(env, R_ARG_TIMER_MAP, 0, uid, reg.num, 0)
    env.call.map = number
    env.call.map_uid = reg.num
    return OK


@device
def _elides_key(map: VObject) -> int:
    """Whether every index below max_entries has an element."""
    kind = map.map_type
    return 1 if kind == MAP_ARRAY or kind == MAP_PERCPU_ARRAY else 0


@device
def _check_map_key(env: VEnv, regno: int, reg: VReg) -> int:
    if env.call.map == 0:
        return say(env, R_ARG_KEY_MAP, 0, 0, 0, 0)
    map = _map_at(env)
    reason = check_helper_mem_access(env, regno, map.key_size, READ, 0, 0)
    if reason == OK and _elides_key(map):
        env.call.const_map_key = constant_map_key(env, reg, map.key_size)
    return reason


@device
def _check_map_value(env: VEnv, regno: int, reg: VReg, arg_type: int) -> int:
    if register_is_null(reg) != 0 and (arg_type & PTR_MAYBE_NULL) != 0:
        return OK
    if env.call.map == 0:
        return say(env, R_ARG_VALUE_MAP, 0, 0, 0, 0)
    size = _map_at(env).value_size
    if _map_at(env).map_type == MAP_BLOOM_FILTER:
        arg_type &= ~(MEM_UNINIT | MEM_WRITE)  # a peek reads what it asks about: resolve_map_arg_type
    access = WRITE if arg_type & MEM_WRITE else READ
    reason = check_helper_mem_access(env, regno, size, access, 0, 1 if arg_type & MEM_UNINIT else 0)
    return _note_filled(env, reason, regno, size)


@device
def _check_mem(env: VEnv, regno: int, reg: VReg, arg_type: int, size: int) -> int:
    raw_mode = 1 if arg_type & MEM_UNINIT else 0
    env.call.raw_mode = raw_mode
    if (arg_type & MEM_FIXED_SIZE) == 0:
        return OK
    access = WRITE if arg_type & MEM_WRITE else READ
    reason = _note_filled(env, check_helper_mem_access(env, regno, size, access, 0, raw_mode), regno, size)
    if reason == OK and (arg_type & MEM_ALIGNED) != 0:
        return check_ptr_alignment(env, regno, reg, 0, size, 1)
    return reason


@device
def _check_mem_size(env: VEnv, regno: int, reg: VReg, access: int, zero_ok: int) -> int:
    """The size of the area in the register before it, whatever value it has."""
    raw_mode = env.call.raw_mode
    umax = reg.umax
    env.call.msize_max_value = umax
    if reg.mask != 0:
        raw_mode = 0
    if reg.smin < 0:
        return say(env, R_SIZE_NEGATIVE, regno, 0, 0, 0)
    if reg.umin == 0 and not zero_ok:
        return say(env, R_SIZE_ZERO, regno, 0, 0, 0)
    if not ule(umax, BPF_MAX_VAR_SIZ - 1):
        return say(env, R_SIZE_UNBOUNDED, regno, 0, 0, 0)
    reason = check_helper_mem_access(env, regno - 1, umax, access, zero_ok, raw_mode)
    if reason == OK or reason == -1 or reason == DO_ACCESS:
        mark_reg_precise(env, regno)
    return _note_filled(env, reason, regno - 1, umax)


@device
def _check_alloc_size(env: VEnv, regno: int, reg: VReg) -> int:
    if reg.mask != 0:
        return say(env, R_ALLOC_UNKNOWN, regno, 0, 0, 0)
    size = reg.umin
    env.call.mem_size = size & U32
    if not ule(size, U32):
        # the helper takes 64 bits: a truncated size would promise less memory than it checks, never more
        return say(env, R_ALLOC_TOO_LARGE, regno, 0, 0, 0)
    mark_reg_precise(env, regno)
    return OK


@device
def check_func_arg(env: VEnv, row: VHelper, arg: int) -> int:
    """An argument of the right type: what its value must be, and what it says of others. DO_ARG, DO_ACCESS: see reason.py."""
    regno = arg + 1
    arg_type = row.args[arg]
    base = arg_type & 0xFF
    if base == ARG_DONTCARE or base == ARG_ANYTHING:
        return OK
    reg = current_reg(env, regno)
    null = register_is_null(reg)
    if not null or (arg_type & PTR_MAYBE_NULL) == 0:
        reason = _check_func_arg_reg_off(env, regno, reg, arg_type)
        if reason != OK:
            return reason
    ref = reg.ref_obj_id
    if arg_type & OBJ_RELEASE:
        if base != ARG_PTR_TO_DYNPTR and ref == 0 and not null:
            return say(env, R_ARG_UNREFERENCED, regno, 0, 0, 0)
        env.call.release_regno = regno
    if ref != 0 and base != ARG_KPTR_XCHG_DEST:
        if env.call.ref_obj_id != 0:
            return say(env, R_ARG_TWO_REFS, regno, ref, env.call.ref_obj_id, 0)
        env.call.ref_obj_id = ref
    if base == ARG_CONST_MAP_PTR:
        return _check_map_ptr(env, reg)
    if base == ARG_PTR_TO_MAP_KEY:
        return _check_map_key(env, regno, reg)
    if base == ARG_PTR_TO_MAP_VALUE:
        return _check_map_value(env, regno, reg, arg_type)
    if base == ARG_PTR_TO_MEM:
        return _check_mem(env, regno, reg, arg_type, row.arg_size[arg])
    if base == ARG_CONST_SIZE or base == ARG_CONST_SIZE_OR_ZERO:
        access = WRITE if row.args[arg - 1] & MEM_WRITE else READ
        return _check_mem_size(env, regno, reg, access, 1 if base == ARG_CONST_SIZE_OR_ZERO else 0)
    if base == ARG_ALLOC_SIZE:
        return _check_alloc_size(env, regno, reg)
    if base == ARG_PTR_TO_FUNC:
        env.call.subprogno = reg.num
        return OK
    plain = base == ARG_PTR_TO_CTX or base == ARG_PTR_TO_RINGBUF_MEM or base == ARG_PTR_TO_STACK or base == ARG_SOCK_COMMON
    return OK if plain else DO_ARG


@device
def finish_args(env: VEnv, row: VHelper) -> int:
    """For the code generator the one map that the call works on; the area that the helper fills is data."""
    number = env.call.map
    if number != 0:
        if (row.flags & HELPER_WRITES_MAP) != 0 and (_map_at(env).map_flags & BPF_F_RDONLY_PROG) != 0:
            return say(env, R_CALL_RDONLY_MAP, 0, 0, 0, 0)
        insn = insn_at(env)
        known = insn.map
        if known != number:
            insn.map = number if known == 0 else CALL_MAPS
        if (row.flags & HELPER_WRITES_MAP) != 0 and value_held(env, insn, number):
            insn.value_held = 1
    size = env.call.access_size
    if size != 0:
        mark_stack_written(env, current_reg(env, env.call.raw_regno), size)
    return OK


@device
def _release(env: VEnv) -> int:
    """What a helper gives back was acquired, or is NULL."""
    regno = env.call.release_regno
    if regno == 0:
        return OK
    null = register_is_null(current_reg(env, regno))
    ref = env.call.ref_obj_id
    if (ref == 0 or release_reference(env, env.cur, ref) == 0) and not null:
        return say(env, R_CALL_NOT_ACQUIRED, 0, 0, 0, 0)
    return OK


@device
def _is_known_element(env: VEnv, flags: int) -> int:
    """A lookup in an array with a constant key below max_entries never gives NULL."""
    if (flags & HELPER_LOOKS_UP) == 0 or env.call.map == 0:
        return 0
    map = _map_at(env)
    if not _elides_key(map) or (map.map_flags & BPF_F_INNER_MAP) != 0:
        return 0  # an inner map's max_entries is the template's, not the map's
    key = env.call.const_map_key
    return 1 if key >= 0 and key < map.max_entries else 0


@device
def _set_integer(env: VEnv, r0: VReg, flags: int) -> None:
    """A number; what is known of it beforehand."""
    mark_unknown(r0)
    top = env.call.msize_max_value
    if (flags & HELPER_SIZED) != 0 and ule(top, S32_MAX):
        set_ranges64(r0, -MAX_ERRNO, top, 0, -1)
        set_ranges32(r0, max(S32_MIN, -MAX_ERRNO), top, 0, U32)
        reg_bounds_sync(r0)
    elif flags & HELPER_CPU:
        top = env.nr_cpu_ids - 1
        set_ranges64(r0, 0, top, 0, top)
        set_ranges32(r0, 0, top, 0, top)
        reg_bounds_sync(r0)


@device
def _set_return_value(env: VEnv, r0: VReg, row: VHelper) -> None:
    """What comes back. Kernel: check_helper_call."""
    ret = row.ret
    flags = row.flags
    base = ret & 0xFF
    if (flags & HELPER_RET_NATIVE) == 0 or base == RET_VOID:
        return
    if base == RET_INTEGER:
        _set_integer(env, r0, flags)
        return
    kind = PTR_TO_MEM | (ret & ~0xFF)
    ref = 0
    if base == RET_MAP_VALUE:
        kind = PTR_TO_MAP_VALUE | (ret & ~0xFF)
        if _is_known_element(env, flags):
            kind &= ~PTR_MAYBE_NULL
    locked = base == RET_MAP_VALUE and (_map_at(env).kind & OBJECT_LOCK) != 0
    ident = new_id(env) if kind & PTR_MAYBE_NULL or locked else 0
    if base != RET_MAP_VALUE and flags & HELPER_ACQUIRES:
        ref = acquire_reference(env, env.cur, env.insn_idx, KIND_PTR)
        ident = ref
    reg_clear(r0, kind)
    bounds_const(r0, 0)
    r0.id = ident
    r0.ref_obj_id = ref
    if base == RET_MAP_VALUE:
        r0.map = env.call.map
        r0.num = env.call.map_uid
    else:
        r0.num = env.call.mem_size


@device
def finish_call(env: VEnv, row: VHelper) -> int:
    """R1 to R5 are gone, R0 is what comes back where the core knows it; the map's type goes with the helper."""
    frame = top_frame(env.cur)
    clear_caller_saved_regs(frame)
    _set_return_value(env, reg_of(frame, 0), row)
    if env.call.map != 0:
        kind = _map_at(env).map_type
        if (lshr(row.maps, kind) & 1) == 0:
            return say(env, R_CALL_MAP_TYPE, kind, 0, 0, 0)
    return OK


@device
def check_helper_call(env: VEnv, insn: VInsn) -> int:
    """A call that the program may make and that is all the core's; DO_CALL where Python has a part in it."""
    func_id = insn.imm
    if func_id < 0 or func_id >= HELPER_ROWS or (insn.flags & CALL_ALLOWED) == 0:
        return DO_CALL
    row = helper_row(env, func_id)
    if (row.flags & HELPER_NATIVE) == 0 or in_section(env.cur):
        return DO_CALL
    begin_call(env)
    for arg in range(row.nargs):
        reason = check_reg_type(env, row, arg)
        if reason == OK:
            reason = check_func_arg(env, row, arg)
        if reason == DO_ACCESS:
            return DO_CALL  # Python begins anew: what was done so far does not hurt
        if reason != OK:
            return reason
    reason = finish_args(env, row)
    if reason == OK:
        reason = _release(env)
    if reason == OK:
        reason = finish_call(env, row)
    if reason == OK:
        env.insn_idx += 1
    return reason


@native()
def verifier_begin_call(venv: VEnv) -> int:
    """`begin_call` for Python."""
    begin_call(venv)
    return 0


@native()
def verifier_arg_type(venv: VEnv, func_id: int, arg: int) -> int:
    """`check_reg_type` for Python."""
    return check_reg_type(venv, helper_row(venv, func_id), arg)


@native()
def verifier_func_arg(venv: VEnv, func_id: int, arg: int) -> int:
    """`check_func_arg` for Python."""
    return check_func_arg(venv, helper_row(venv, func_id), arg)


@native()
def verifier_finish_args(venv: VEnv, func_id: int) -> int:
    """`finish_args` for Python."""
    return finish_args(venv, helper_row(venv, func_id))


@native()
def verifier_release(venv: VEnv) -> int:
    """`_release` for Python."""
    return _release(venv)


@native()
def verifier_finish_call(venv: VEnv, func_id: int) -> int:
    """`finish_call` for Python."""
    return finish_call(venv, helper_row(venv, func_id))
