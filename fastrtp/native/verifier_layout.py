"""Records of the verifier's native core: registers, stack slots, frames, states, and the environment of a run.

A state is one block: VSTATE, then its frames (VFRAME, eleven VREG, `cap` VSLOT each) at `frame_at`. The state under
way has room for eight frames of 64 slots; a saved one only for the slots that were ever written.
"""

from __future__ import annotations

import numpy as np

from fastrtp.native.layout import I4, I8, at

U4 = "<u4"

MAX_BPF_REG = 11
SLOTS_PER_FRAME = 64
BITS_PER_FRAME = MAX_BPF_REG + SLOTS_PER_FRAME
"""A frame's share of a dependency bit set: 11 registers, then 64 stack slots."""
MAX_CALL_FRAMES = 8
MASK_WORDS = 10
"""64-bit words of a bit set over all registers and slots of eight frames."""

VREG = np.dtype(
    [
        ("deps", U4),  # number of a dependency set: 0 none, 1 + bit for one bit, beyond them the sets made so far
        ("type", U4),
        ("off", I4),
        ("id", U4),
        ("ref_obj_id", U4),
        ("map", U4),  # index in the table of Python objects, 0 for none
        ("num", I8),
        ("value", I8),  # var_off
        ("mask", I8),
        ("smin", I8),
        ("smax", I8),
        ("umin", I8),  # unsigned, as everything named u
        ("umax", I8),
        ("s32_min", I4),
        ("s32_max", I4),
        ("u32_min", U4),
        ("u32_max", U4),
    ]
)
"""`struct bpf_reg_state`."""

VSLOT = np.dtype([("slot_type", "u1", 8), ("reg", VREG)])
"""`struct bpf_stack_state`."""

VFRAME = np.dtype(
    [
        ("callsite", I8),
        ("frameno", I8),
        ("subprogno", I8),
        ("in_callback_fn", I8),
        ("in_async_callback_fn", I8),
        ("has_ret_range", I8),
        ("ret_low", I8),
        ("ret_high", I8),
        ("callback_depth", I8),
        ("activation", I8),
        ("nslots", I8),  # slots that may hold something
        ("cap", I8),  # slots that there is room for
        ("regs", VREG, MAX_BPF_REG),
    ]
)
"""`struct bpf_func_state` without its slots."""

VSTATE = np.dtype(
    [
        ("nframes", I8),
        ("refs", I8),  # VREFS record, 0 for none
        ("insn_idx", I8),
        ("first_insn_idx", I8),
        ("branches", I8),  # paths below it that are not done
        ("parent", I8),
        ("may_goto_depth", I8),
        ("callback_unroll_depth", I8),
        ("history", I8),  # entries that Linux has in the jump history since the last checkpoint
        ("next", I8),  # older checkpoint of the same instruction
        ("hit_cnt", I8),
        ("miss_cnt", I8),
        ("users", I8),  # children, back edges to it, and the list of its instruction
        ("equal_state", I8),  # of a path that was pruned in a loop under way: where
        ("next_backedge", I8),
        ("all_next", I8),  # every block that is to be freed
        ("all_prev", I8),
        ("size", I8),
        ("cleaned", I8),  # slots that nothing below it reads are empty
        ("frame_at", I8, MAX_CALL_FRAMES),  # addresses
        ("precise", I8, MASK_WORDS),  # bits of registers and slots that must match exactly
    ]
)
"""`struct bpf_verifier_state`, the kernel's list element for a checkpoint included."""

VREF = np.dtype([("id", I8), ("kind", I8), ("ptr", I8), ("insn_idx", I8)])
VREFS = np.dtype([("next", I8), ("count", I8)])
"""What a path holds: the number of VREFs that follow. Never changed once made."""

VINSN = np.dtype(
    [
        ("code", "u1"),
        ("regs", "u1"),
        ("off", "<i2"),
        ("imm", I4),
        ("live", "<u2"),  # registers that may be read from here on
        ("flags", "<u2"),
        ("memo", U4),  # 1 + index of what a load or a constant gave, 0 for none
        ("seen", "u1"),
        ("access", "u1"),  # base type of the pointer, ACCESS_MIXED
        ("value_held", "<u2"),  # an update of a map, over which an address in its values may be held
        ("ptr_type", U4),
        ("map", U4),  # number of the one map that a helper call works on, CALL_MAPS for several
        ("scc", U4),  # number of the loop that it is in, 0 for none
        ("explored", I8),  # newest checkpoint
    ]
)
"""An instruction, what is known of it beforehand, and what is learnt on the way."""

PRUNE_POINT, FORCE_CHECKPOINT, CALLS_CALLBACK, ITER_NEXT, CALL_ALLOWED, ITER_NEW, ITER_DESTROY, JMP_POINT = (
    1 << bit for bit in range(8)
)
"""`flags` of an instruction. CALL_ALLOWED: the program may call this helper; JMP_POINT: reached otherwise than from
the instruction before it, too."""
CALL_MAPS = (1 << 32) - 1
HELPER_ROWS = 256
HELPER_CALLS_BACK, HELPER_PRUNES = 1 << 8, 1 << 9
"""Facts on a helper beside its argument registers (bits 1 to 5)."""
ACCESS_MIXED = 0xFF

VMEMO = np.dtype([("source", VREG), ("result", VREG)])
"""A load through `source` gave `result` (the latter alone for a constant)."""

VOBJECT = np.dtype(
    [
        ("kind", I8),
        ("key_size", I8),
        ("value_size", I8),
        ("map_flags", I8),
        ("inner", I8),
        ("map_type", I8),
        ("max_entries", I8),
    ]
)
"""A Python object that registers name: what the core needs of a map."""

OBJECT_FIELDS, OBJECT_CONST, OBJECT_MAPS, OBJECT_SOCKETS, OBJECT_LOCK, OBJECT_INNER, OBJECT_UID = 1, 2, 4, 8, 16, 32, 64
OBJECT_NAMED = 128
"""`kind` of a map: its values have special fields; loads give constants; it holds maps, or sockets; a value's id is kept;
`inner` is a map; pointers to inner maps are told apart, for their timers; the program names it, so that it is no other map."""

MAX_ARGS = 5
VHELPER = np.dtype(
    [
        ("args", U4, MAX_ARGS),  # ArgType with flags
        ("arg_size", U4, MAX_ARGS),  # bytes of memory of a fixed size
        ("ret", U4),  # RetType with flags
        ("nargs", U4),
        ("flags", U4),
        ("pad", U4),
        ("maps", I8),  # bit t: works on maps of type t
    ]
)
"""A row of the helper table, as the core needs it."""

HELPER_NATIVE, HELPER_RET_NATIVE, HELPER_WRITES_MAP, HELPER_LOOKS_UP, HELPER_SIZED, HELPER_CPU = 1, 2, 4, 8, 16, 32
HELPER_ACQUIRES, HELPER_XCHG = 64, 128
"""`flags` of a helper: the core checks all of a call; it knows what comes back; no read-only map may be given; NULL only
where there is no such element; gives no more than the size it was given; gives the number of a CPU; what it gives has
to be released; kptr_xchg."""
ARG_TYPES_MAX = 10
"""Register types that go with a type of argument, a row of the table `arg_types`; 0 behind the last."""

VCALL = np.dtype(
    [
        ("map", I8),  # number of the map, 0 for none
        ("map_uid", I8),
        ("raw_mode", I8),
        ("raw_regno", I8),
        ("access_size", I8),
        ("mem_size", I8),
        ("msize_max_value", I8),
        ("ref_obj_id", I8),
        ("release_regno", I8),
        ("subprogno", I8),
        ("const_map_key", I8),  # -1 where it is not known
    ]
)
"""What earlier arguments of a call said. Kernel: struct bpf_call_arg_meta."""

VINSTANCE = np.dtype(
    [
        ("next", I8),  # older one
        ("parent", I8),  # of the caller, 0 for none
        ("callsite", I8),
        ("subprogno", I8),
        ("depth", I8),
        ("start", I8),
        ("count", I8),  # instructions of the function
        ("dirty", I8),
        ("marks", I8, MAX_CALL_FRAMES),  # VMARKS[count] a frame, 0 for none
    ]
)
"""A function as called through one chain of callers: which stack slots of which frame its instructions touch."""

VMARKS = np.dtype([("read", I8), ("written", I8), ("visited", I8), ("live", I8)])
"""Bit sets over the slots of a frame. `written`: in whole on every visit; `live`: may be read from here on."""

VVISIT = np.dtype(
    [
        ("next", I8),  # older one
        ("scc", I8),
        ("depth", I8),  # frames above the one that is in the loop
        ("callsites", I8, MAX_CALL_FRAMES),
        ("entry_state", I8),  # first checkpoint of this visit, 0 when it is over
        ("backedges", I8),  # paths that were pruned in it
        ("iter_floor", I8),  # iterators with a greater id were made after every checkpoint that a path was pruned at
        ("activation_floor", I8),  # the same of runs of helpers that call back
    ]
)
"""A loop (strongly connected component) as entered through one chain of callers. Kernel: struct bpf_scc_visit."""

VBRANCH = np.dtype([("state", I8), ("insn_idx", I8), ("prev_insn_idx", I8), ("log_pos", I8)])

VENV = np.dtype(
    [
        ("insns", I8),
        ("insn_cnt", I8),
        ("cur", I8),  # state under way
        ("head", I8),  # VBRANCH[]
        ("head_cnt", I8),
        ("head_max", I8),
        ("objects", I8),
        ("object_cnt", I8),
        ("memos", I8),
        ("subprog_depth", I8),  # i64 a function: bytes of stack
        ("subprog_start", I8),  # i64 a function, and the number of instructions: its first instruction
        ("instances", I8),  # newest VINSTANCE
        ("instance", I8),  # the one used last
        ("instances_dirty", I8),  # one of them has marks that `live` does not have
        ("all", I8),  # every state
        ("all_refs", I8),
        ("put", I8),  # states whose last user is gone
        ("bytes", I8),  # allocated
        ("max_bytes", I8),
        ("sets", I8),  # dependency sets beyond the single bits, MASK_WORDS words each
        ("set_cnt", I8),
        ("set_max", I8),
        ("unions", I8),  # hash table: {a << 32 | b, result}
        ("union_mask", I8),
        ("union_cnt", I8),
        ("visits", I8),  # newest VVISIT
        ("idmap", I8),  # pairs of ids
        ("idmap_cnt", I8),
        ("fresh", I8),
        ("strict_alignment", I8),
        ("test_state_freq", I8),
        ("max_tp_access", I8),
        ("insn_idx", I8),
        ("prev_insn_idx", I8),
        ("id_gen", I8),
        ("insn_processed", I8),
        ("prev_insn_processed", I8),
        ("jmps_processed", I8),
        ("prev_jmps_processed", I8),
        ("in_history", I8),  # the instruction under way has its entry in the jump history
        ("insn_limit", I8),
        ("activations", I8),
        ("from_callback", I8),
        ("total_states", I8),
        ("peak_states", I8),
        ("states", I8),  # checkpoints now
        ("max_states_per_insn", I8),
        ("log_pos", I8),
        ("a", I8),  # operands of what the core says to Python
        ("b", I8),
        ("c", I8),
        ("d", I8),
        ("out_of_memory", I8),
        ("helpers", I8),  # VHELPER[HELPER_ROWS]
        ("arg_types", I8),
        ("nr_cpu_ids", I8),
        ("logged", I8),  # calls of functions and returns are to be shown
        ("call", VCALL),
        ("scratch", VREG, 4),
    ]
)
"""One per run. Kernel: struct bpf_verifier_env."""

REG_SIZE, SLOT_SIZE = VREG.itemsize, VSLOT.itemsize
FRAME_REGS = at(VFRAME, "regs")
FRAME_HEAD = VFRAME.itemsize
FULL_FRAME = FRAME_HEAD + SLOTS_PER_FRAME * SLOT_SIZE
FULL_STATE = VSTATE.itemsize + MAX_CALL_FRAMES * FULL_FRAME

(SCALAR_SYNC, SCALAR_ALU64, SCALAR_ALU32, SCALAR_BYTE_ORDER, SCALAR_ZEXT, SCALAR_COERCE, SCALAR_COERCE_SX) = range(7)
(SCALAR_COERCE_SUBREG_SX, SCALAR_WITHIN, SCALAR_TAKEN, SCALAR_REFINE) = range(7, 11)
"""Operations of `verifier_scalar`."""

(TNUM_ADD, TNUM_SUB, TNUM_AND, TNUM_OR, TNUM_XOR, TNUM_MUL, TNUM_INTERSECT, TNUM_LSHIFT, TNUM_RSHIFT) = range(9)
TNUM_ARSHIFT64, TNUM_ARSHIFT32, TNUM_RANGE = range(9, 12)
"""Operations of `verifier_tnum`."""
