"""Records of the verifier's native core: registers, stack slots, frames, states, and the environment of a run.

A state is one block: VState, then its frames (VFrame, eleven VReg, `cap` VSlot each) at `frame_at`. The state under
way has room for eight frames of 64 slots; a saved one only for the slots that were ever written.
"""

from __future__ import annotations

from fastrtp.native.record import Array, Pointer, Record, array, i16, i32, i64, u8, u16, u32, u64

MAX_BPF_REG = 11
SLOTS_PER_FRAME = 64
BITS_PER_FRAME = MAX_BPF_REG + SLOTS_PER_FRAME
"""A frame's share of a dependency bit set: 11 registers, then 64 stack slots."""
MAX_CALL_FRAMES = 8
MASK_WORDS = 10
"""64-bit words of a bit set over all registers and slots of eight frames."""


class VReg(Record):
    """`struct bpf_reg_state`."""

    deps: u32  # number of a dependency set: 0 none, 1 + bit for one bit, beyond them the sets made so far
    type: u32
    off: i32
    id: u32
    ref_obj_id: u32
    map: u32  # index in the table of Python objects, 0 for none
    num: i64
    value: u64  # var_off
    mask: u64
    smin: i64
    smax: i64
    umin: u64
    umax: u64
    s32_min: i32
    s32_max: i32
    u32_min: u32
    u32_max: u32


class VSlot(Record):
    """`struct bpf_stack_state`."""

    slot_type: Array[u8] = array(8)
    reg: VReg


class VFrame(Record):
    """`struct bpf_func_state` without its slots."""

    callsite: i64
    frameno: i64
    subprogno: i64
    in_callback_fn: i64
    in_async_callback_fn: i64
    has_ret_range: i64
    ret_low: i64
    ret_high: i64
    callback_depth: i64
    activation: i64
    nslots: i64  # slots that may hold something
    cap: i64  # slots that there is room for
    regs: Array[VReg] = array(MAX_BPF_REG)
    slots: Array[VSlot] = array(0)  # `cap` of them follow


class VState(Record):
    """`struct bpf_verifier_state`, the kernel's list element for a checkpoint included."""

    nframes: i64
    refs: Pointer[VRefs]  # VRefs record, 0 for none
    insn_idx: i64
    first_insn_idx: i64
    branches: i64  # paths below it that are not done
    parent: Pointer[VState]
    may_goto_depth: i64
    callback_unroll_depth: i64
    history: i64  # entries that Linux has in the jump history since the last checkpoint
    next: Pointer[VState]  # older checkpoint of the same instruction
    hit_cnt: i64
    miss_cnt: i64
    users: i64  # children, back edges to it, and the list of its instruction
    equal_state: Pointer[VState]  # of a path that was pruned in a loop under way: where
    next_backedge: Pointer[VState]
    all_next: Pointer[VState]  # every block that is to be freed
    all_prev: Pointer[VState]
    size: i64
    cleaned: i64  # slots that nothing below it reads are empty
    frame_at: Array[Pointer[VFrame]] = array(MAX_CALL_FRAMES)  # addresses
    precise: Array[i64] = array(MASK_WORDS)  # bits of registers and slots that must match exactly


class VRef(Record):
    """Something that a path holds."""

    id: i64
    kind: i64
    ptr: i64
    insn_idx: i64


class VRefs(Record):
    """What a path holds: the number of VRefs that follow. Never changed once made."""

    next: Pointer[VRefs]
    count: i64
    items: Array[VRef] = array(0)  # `count` of them follow


class VInsn(Record):
    """An instruction, what is known of it beforehand, and what is learnt on the way."""

    code: u8
    regs: u8
    off: i16
    imm: i32
    live: u16  # registers that may be read from here on
    flags: u16
    memo: u32  # 1 + index of what a load or a constant gave, 0 for none
    seen: u8
    access: u8  # base type of the pointer, ACCESS_MIXED
    value_held: u16  # an update of a map, over which an address in its values may be held
    ptr_type: u32
    map: u32  # number of the one map that a helper call works on, CALL_MAPS for several
    scc: u32  # number of the loop that it is in, 0 for none
    explored: Pointer[VState]  # newest checkpoint


PRUNE_POINT, FORCE_CHECKPOINT, CALLS_CALLBACK, ITER_NEXT, CALL_ALLOWED, ITER_NEW, ITER_DESTROY, JMP_POINT = (
    1 << bit for bit in range(8)
)
"""`flags` of an instruction. CALL_ALLOWED: the program may call this helper; JMP_POINT: reached otherwise than from
the instruction before it, too."""
KFUNC_ARGS = 1 << 8
"""In `flags` of a call of a kernel function that is known: the bits behind it are the registers that it takes, R1 first."""
CALL_MAPS = (1 << 32) - 1
HELPER_ROWS = 256
HELPER_CALLS_BACK, HELPER_PRUNES = 1 << 8, 1 << 9
"""Facts on a helper beside its argument registers (bits 1 to 5)."""
ACCESS_MIXED = 0xFF


class VMemo(Record):
    """A load through `source` gave `result` (the latter alone for a constant)."""

    source: VReg
    result: VReg


class VObject(Record):
    """A Python object that registers name: what the core needs of a map."""

    kind: i64
    key_size: i64
    value_size: i64
    map_flags: i64
    inner: i64
    map_type: i64
    max_entries: i64


OBJECT_FIELDS, OBJECT_CONST, OBJECT_MAPS, OBJECT_SOCKETS, OBJECT_LOCK, OBJECT_INNER, OBJECT_UID = 1, 2, 4, 8, 16, 32, 64
OBJECT_NAMED = 128
"""`kind` of a map: its values have special fields; loads give constants; it holds maps, or sockets; a value's id is kept;
`inner` is a map; pointers to inner maps are told apart, for their timers; the program names it, so that it is no other map."""

MAX_ARGS = 5


class VHelper(Record):
    """A row of the helper table, as the core needs it."""

    args: Array[u32] = array(MAX_ARGS)  # ArgType with flags
    arg_size: Array[u32] = array(MAX_ARGS)  # bytes of memory of a fixed size
    ret: u32  # RetType with flags
    nargs: u32
    flags: u32
    pad: u32
    maps: i64  # bit t: works on maps of type t


HELPER_NATIVE, HELPER_RET_NATIVE, HELPER_WRITES_MAP, HELPER_LOOKS_UP, HELPER_SIZED, HELPER_CPU = 1, 2, 4, 8, 16, 32
HELPER_ACQUIRES, HELPER_XCHG = 64, 128
"""`flags` of a helper: the core checks all of a call; it knows what comes back; no read-only map may be given; NULL only
where there is no such element; gives no more than the size it was given; gives the number of a CPU; what it gives has
to be released; kptr_xchg."""
ARG_TYPES_MAX = 10
"""Register types that go with a type of argument, a row of the table `arg_types`; 0 behind the last."""


class VCall(Record):
    """What earlier arguments of a call said. Kernel: struct bpf_call_arg_meta."""

    map: i64  # number of the map, 0 for none
    map_uid: i64
    raw_mode: i64
    raw_regno: i64
    access_size: i64
    mem_size: i64
    msize_max_value: i64
    ref_obj_id: i64
    release_regno: i64
    subprogno: i64
    const_map_key: i64  # -1 where it is not known


class VInstance(Record):
    """A function as called through one chain of callers: which stack slots of which frame its instructions touch."""

    next: Pointer[VInstance]  # older one
    parent: Pointer[VInstance]  # of the caller, 0 for none
    callsite: i64
    subprogno: i64
    depth: i64
    start: i64
    count: i64  # instructions of the function
    dirty: i64
    marks: Array[Pointer[Array[VMarks]]] = array(MAX_CALL_FRAMES)  # VMarks[count] a frame, 0 for none


class VMarks(Record):
    """Bit sets over the slots of a frame. `written`: in whole on every visit; `live`: may be read from here on."""

    read: i64
    written: i64
    visited: i64
    live: i64


class VVisit(Record):
    """A loop (strongly connected component) as entered through one chain of callers. Kernel: struct bpf_scc_visit."""

    next: Pointer[VVisit]  # older one
    scc: i64
    depth: i64  # frames above the one that is in the loop
    callsites: Array[i64] = array(MAX_CALL_FRAMES)
    entry_state: Pointer[VState]  # first checkpoint of this visit, 0 when it is over
    backedges: Pointer[VState]  # paths that were pruned in it
    iter_floor: i64  # iterators with a greater id were made after every checkpoint that a path was pruned at
    activation_floor: i64  # the same of runs of helpers that call back


class VBranch(Record):
    """A way that is still to be gone: the state, and where it goes on."""

    state: Pointer[VState]
    insn_idx: i64
    prev_insn_idx: i64
    log_pos: i64


class VEnv(Record):
    """One per run. Kernel: struct bpf_verifier_env."""

    insns: Pointer[Array[VInsn]]
    insn_cnt: i64
    cur: Pointer[VState]  # state under way
    head: Pointer[Array[VBranch]]  # VBranch[]
    head_cnt: i64
    head_max: i64
    objects: Pointer[Array[VObject]]
    object_cnt: i64
    memos: Pointer[Array[VMemo]]
    subprog_depth: Pointer[Array[i64]]  # i64 a function: bytes of stack
    subprog_start: Pointer[Array[i64]]  # i64 a function, and the number of instructions: its first instruction
    instances: Pointer[VInstance]  # newest VInstance
    instance: Pointer[VInstance]  # the one used last
    instances_dirty: i64  # one of them has marks that `live` does not have
    all: Pointer[VState]  # every state
    all_refs: Pointer[VRefs]
    put: Pointer[VState]  # states whose last user is gone
    bytes: i64  # allocated
    max_bytes: i64
    sets: i64  # dependency sets beyond the single bits, MASK_WORDS words each
    set_cnt: i64
    set_max: i64
    unions: i64  # hash table: {a << 32 | b, result}
    union_mask: i64
    union_cnt: i64
    visits: Pointer[VVisit]  # newest VVisit
    idmap: i64  # pairs of ids
    idmap_cnt: i64
    fresh: i64
    strict_alignment: i64
    test_state_freq: i64
    max_tp_access: i64
    insn_idx: i64
    prev_insn_idx: i64
    id_gen: i64
    insn_processed: i64
    prev_insn_processed: i64
    jmps_processed: i64
    prev_jmps_processed: i64
    in_history: i64  # the instruction under way has its entry in the jump history
    insn_limit: i64
    activations: i64
    from_callback: i64
    total_states: i64
    peak_states: i64
    states: i64  # checkpoints now
    max_states_per_insn: i64
    log_pos: i64
    a: i64  # operands of what the core says to Python
    b: i64
    c: i64
    d: i64
    out_of_memory: i64
    helpers: Pointer[Array[VHelper]]  # VHelper[HELPER_ROWS]
    arg_types: i64
    nr_cpu_ids: i64
    loops_end: i64  # it was shown beforehand that every loop has an end
    logged: i64  # calls of functions and returns are to be shown
    call: VCall
    scratch: Array[VReg] = array(4)


REG_SIZE, SLOT_SIZE, FRAME_HEAD = VReg.layout.size, VSlot.layout.size, VFrame.layout.size
FULL_FRAME = FRAME_HEAD + SLOTS_PER_FRAME * SLOT_SIZE
FULL_STATE = VState.layout.size + MAX_CALL_FRAMES * FULL_FRAME

(SCALAR_SYNC, SCALAR_ALU64, SCALAR_ALU32, SCALAR_BYTE_ORDER, SCALAR_ZEXT, SCALAR_COERCE, SCALAR_COERCE_SX) = range(7)
(SCALAR_COERCE_SUBREG_SX, SCALAR_WITHIN, SCALAR_TAKEN, SCALAR_REFINE) = range(7, 11)
"""Operations of `verifier_scalar`."""

(TNUM_ADD, TNUM_SUB, TNUM_AND, TNUM_OR, TNUM_XOR, TNUM_MUL, TNUM_INTERSECT, TNUM_LSHIFT, TNUM_RSHIFT) = range(9)
TNUM_ARSHIFT64, TNUM_ARSHIFT32, TNUM_RANGE = range(9, 12)
"""Operations of `verifier_tnum`."""
