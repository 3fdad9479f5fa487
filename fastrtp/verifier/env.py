"""The environment of one run: program, maps, functions, tables per instruction, the current state and its stack.

Kernel: include/linux/bpf_verifier.h:struct bpf_verifier_env.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from fastrtp.isa import Insn
from fastrtp.uapi import BPF_F_ANY_ALIGNMENT, BPF_F_STRICT_ALIGNMENT, BPF_F_TEST_STATE_FREQ, BpfProgType
from fastrtp.verifier.api import InsnAux, LoadAttr, SubprogInfo, VerifierStats
from fastrtp.verifier.log import Refusal, VerifierLog
from fastrtp.verifier.state import BpfFuncState, BpfReferenceState, BpfRegState, BpfVerifierState

BPF_COMPLEXITY_LIMIT_INSNS = 1_000_000
BPF_COMPLEXITY_LIMIT_JMP_SEQ = 8192
BPF_MAX_SUBPROGS = 256

_GPL_LICENSES = frozenset({"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"})


class StackElem(NamedTuple):
    """A path to take later."""

    state: BpfVerifierState
    insn_idx: int
    prev_insn_idx: int
    log_pos: int


class BpfVerifierEnv:
    """Everything that one verification knows."""

    def __init__(self, attr: LoadAttr, log: VerifierLog) -> None:
        self.attr = attr
        self.log = log
        self.insns: list[Insn] = list(attr.insns)
        self.insn_cnt = len(self.insns)
        self.prog_type = attr.prog_type
        self.is_tracing = attr.prog_type == BpfProgType.BPF_PROG_TYPE_TRACING
        self.is_tracepoint = attr.prog_type == BpfProgType.BPF_PROG_TYPE_TRACEPOINT
        self.is_writable_tp = attr.prog_type == BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE
        self.gpl_compatible = attr.license in _GPL_LICENSES
        self.strict_alignment = bool(attr.prog_flags & BPF_F_STRICT_ALIGNMENT) and not attr.prog_flags & BPF_F_ANY_ALIGNMENT
        self.test_state_freq = bool(attr.prog_flags & BPF_F_TEST_STATE_FREQ)
        self.aux = [InsnAux() for _ in self.insns]
        self.used_maps: list[Any] = []
        self.subprogs: list[SubprogInfo] = []
        self.subprog_at: dict[int, int] = {}
        self.stats = VerifierStats()
        self.max_ctx_offset = 0
        self.max_tp_access = 0
        # cfg.py
        self.prune_point = bytearray(self.insn_cnt)
        self.force_checkpoint = bytearray(self.insn_cnt)
        self.calls_callback = bytearray(self.insn_cnt)
        self.live_regs: list[int] = []
        self.kfuncs: dict[int, Any] = {}
        # do_check
        self.cur_state: BpfVerifierState = BpfVerifierState([])
        self.frame: BpfFuncState = BpfFuncState(-1, 0, 0)
        self.regs: list[BpfRegState] = self.frame.regs
        self.insn_idx = 0
        self.prev_insn_idx = -1
        self.head: list[StackElem] = []
        self.id_gen = 0
        self.explored_states: dict[int, list[Any]] = {}
        self.insn_processed = 0
        self.prev_insn_processed = 0
        self.prev_jmps_processed = 0
        self.jmps_processed = 0
        self.print_state = True
        self.activations = 0
        self.from_callback = False
        self.open_loops: list[BpfVerifierState] = []
        self.state_seq = 0
        # global_func.py
        self.subprog_args: dict[int, Any] = {}
        self.called_globals: set[int] = set()
        self.map_fields: dict[int, list[tuple[int, int, str]]] = {}

    def set_state(self, state: BpfVerifierState) -> None:
        """Make `state` the current one."""
        self.cur_state = state
        self.frame = state.frames[-1]
        self.regs = self.frame.regs

    def new_id(self) -> int:
        """A number not used before in this run."""
        self.id_gen += 1
        return self.id_gen

    def reject(self, errno: int, message: str) -> NoReturn:
        """Refuse the program with an errno and the last line of the log."""
        raise Refusal(errno, message)

    def subprog_of(self, insn_idx: int) -> int:
        """Number of the function that holds an instruction. Kernel: bpf_find_containing_subprog."""
        low, high = 0, len(self.subprogs) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.subprogs[middle].start <= insn_idx:
                low = middle
            else:
                high = middle - 1
        return low

    def push_stack(self, insn_idx: int) -> BpfVerifierState:
        """A copy of the current state, to be continued at `insn_idx` later. Kernel: push_stack."""
        state = self.cur_state.copy()
        if state.parent is not None:
            state.parent.branches += 1
        self.head.append(StackElem(state, insn_idx, self.insn_idx, self.log.position()))
        if len(self.head) > BPF_COMPLEXITY_LIMIT_JMP_SEQ:
            self.reject(7, f"The sequence of {len(self.head)} jumps is too complex.")
        return state

    def acquire_reference(self, insn_idx: int) -> int:
        """A new resource that has to be released. Kernel: acquire_reference."""
        ref = BpfReferenceState(self.new_id(), insn_idx)
        self.cur_state.refs = (*self.cur_state.refs, ref)
        return ref.id

    def release_reference_nomark(self, ref_obj_id: int) -> bool:
        """Forget a resource; whether it was held."""
        kept = tuple(ref for ref in self.cur_state.refs if ref.id != ref_obj_id)
        found = len(kept) != len(self.cur_state.refs)
        self.cur_state.refs = kept
        return found

    def used_map_of(self, insn: Insn) -> Any:
        """The map of a resolved ld_imm64."""
        return self.used_maps[insn.imm]

    def live_regs_before(self, frame: BpfFuncState, next_frame: BpfFuncState | None, insn_idx: int) -> int:
        """Registers of `frame` that may still be read: a mask of 11 bits."""
        return self.live_regs[insn_idx if next_frame is None else next_frame.callsite]
