"""The log of instructions: where a path goes on, source lines, each instruction and the registers that it read or wrote.

As in the kernel, what an instruction did is printed when the next one is, so that a path that ends there shows nothing.
Kernel: kernel/bpf/verifier.c:do_check, print_insn_state; kernel/bpf/log.c.
"""

from __future__ import annotations

from fastrtp.isa import (
    BPF_ATOMIC,
    BPF_CALL,
    BPF_CLASS,
    BPF_JMP,
    BPF_JMP32,
    BPF_LDX,
    BPF_MODE,
    BPF_PSEUDO_CALL,
    BPF_ST,
    BPF_STX,
    Insn,
    disassemble,
)
from fastrtp.verifier.domain.regtype import PTR_TO_STACK
from fastrtp.verifier.domain.state import BPF_REG_SIZE, BpfFuncState, FrameImage
from fastrtp.verifier.report.log import print_frame
from fastrtp.verifier.report.source import Source
from fastrtp.verifier.rules.cfg import use_def
from fastrtp.verifier.rules.env import BpfVerifierEnv

_ALIGNMENT, _MIN_ALIGNMENT = 40, 8
_ALL_REGS = (1 << 11) - 1
_NO_LINE = -2


class InsnLog:
    """What was printed last, and what has changed since."""

    def __init__(self, env: BpfVerifierEnv) -> None:
        self._env = env
        self._log = env.log
        self._source = Source(env.attr)
        self._kernel_btf = env.attr.kernel_btf
        self._place: tuple[str, int] | None = None
        self._regs = _ALL_REGS
        self._slots: frozenset[int] | None = None
        """Slots to print, None: all."""
        self._insn_line = _NO_LINE
        self._called = self._jumped = False
        self._before: FrameImage = env.frame.copy()

    def begin(self) -> None:
        """A function is verified from its start."""
        self._place = None
        self.scratch_all()

    def scratch_all(self) -> None:
        """Every register counts as changed, on a line of its own."""
        self.scratch_state()
        self._insn_line = _NO_LINE

    def scratch_state(self) -> None:
        """Every register and slot counts as changed. Kernel: mark_verifier_state_scratched."""
        self._regs, self._slots = _ALL_REGS, None

    def live_registers(self) -> None:
        """The table of registers that may be read before each instruction (level 2). Kernel: compute_live_registers."""
        env, log = self._env, self._log
        log.line("Live regs before insn:")
        skip = False
        live = env.insn_table["live"].tolist()
        for idx, insn in enumerate(env.insns):
            if skip:
                skip = False
                continue
            mask = live[idx]
            shown = "".join(str(regno) if mask >> regno & 1 else "." for regno in range(10))
            log.line(f"{idx:>7}: {shown} {self._text(idx, insn)}")
            skip = insn.code == 0x18

    def _text(self, idx: int, insn: Insn) -> str:
        following = self._env.insns[idx + 1] if idx + 1 < self._env.insn_cnt else None
        return f"({insn.code:02x}) {disassemble(insn, following)}"

    def insn(self, idx: int, insn: Insn) -> None:
        """What the instruction before did, and this one."""
        env, log = self._env, self._log
        if log.was_reset:
            log.was_reset = False
            self.scratch_all()
        if env.print_state and env.prev_insn_idx >= 0 and log.level & 2:
            log.line(f"\nfrom {env.prev_insn_idx} to {idx}: {self._frame(env.frame)}")
        env.print_state = False
        self._print_changes(idx)
        place = self._source.place(idx)
        if place is not None and place[:2] != self._place:
            self._place = place[:2]
            log.line(f"; {place[2]} @ {place[0]}:{place[1]}")
        self._insn_line = log.position()
        log.line(f"{idx}: {self._text(idx, insn)}")
        self._before = env.frame.copy()
        is_call = insn.code == BPF_JMP | BPF_CALL
        self._called = is_call and insn.src_reg == BPF_PSEUDO_CALL
        self._jumped = BPF_CLASS(insn.code) in (BPF_JMP, BPF_JMP32) and not is_call
        self._note(idx, insn)

    def safe(self, idx: int) -> None:
        """The path ends: it is like one that was followed. Kernel: is_state_visited's caller."""
        env = self._env
        if env.print_state and env.prev_insn_idx >= 0:
            self._log.line(f"\nfrom {env.prev_insn_idx} to {idx}: safe")
        else:
            self._log.line(f"{idx}: safe")

    def _print_changes(self, idx: int) -> None:
        env, log = self._env, self._log
        regs, slots = self._regs, self._slots
        # what a comparison says of a number that was spilled is known of the slot, too, but not shown
        if slots is not None and not self._called and not self._jumped and env.frame.frameno == self._before.frameno:
            slots |= {spi for spi, slot in env.frame.stack.items() if self._before.stack.get(spi) is not slot}
        self._regs, self._slots = 0, frozenset()
        if not regs and slots is not None and not slots:
            return
        text = print_frame(env.frame, env.cur_state, regs, slots, self._kernel_btf)
        if log.position() - 1 == self._insn_line:
            line = log.lines[-1]
            width = max(len(line) + 1 + _MIN_ALIGNMENT // 2, _ALIGNMENT)
            width = -(-width // _MIN_ALIGNMENT) * _MIN_ALIGNMENT - 2
            log.lines[-1] = f"{line:<{width}}; {text}".rstrip()
        else:
            log.line(f"{idx}: {text}".rstrip())

    def _note(self, idx: int, insn: Insn) -> None:
        """Registers and slots that the instruction reads."""
        use, define = use_def(self._env, idx)
        self._regs, self._slots = (use | define) & _ALL_REGS, frozenset()
        cls, regs = BPF_CLASS(insn.code), self._env.regs
        if cls not in (BPF_LDX, BPF_ST, BPF_STX):
            return
        address = regs[min(insn.src_reg if cls == BPF_LDX else insn.dst_reg, 10)]
        if cls == BPF_STX and BPF_MODE(insn.code) == BPF_ATOMIC:
            address = regs[min(insn.dst_reg, 10)]
        own = address.type == PTR_TO_STACK and address.num == self._env.frame.frameno and not address.bounds.var_off.mask
        if own and insn.off + address.off + address.bounds.smin_value < 0:
            self._slots = frozenset({(-(insn.off + address.off + address.bounds.smin_value) - 1) // BPF_REG_SIZE})

    def _frame(self, frame: BpfFuncState) -> str:
        return print_frame(frame, self._env.cur_state, btf=self._kernel_btf)

    def call(self, caller: BpfFuncState, callee: BpfFuncState) -> None:
        """A function of the program is entered."""
        for title, frame in (("caller:", caller), ("callee:", callee)):
            self._log.line(title)
            self._log.line(f" {self._frame(frame)}")
        self.scratch_all()

    def back(self, callee: BpfFuncState, caller: BpfFuncState, target: int) -> None:
        """A function is left."""
        self._log.line("returning from callee:")
        self._log.line(f" {self._frame(callee)}")
        self._log.line(f"to caller at {target}:")
        self._log.line(f" {self._frame(caller)}")
        self._regs, self._slots = 0, frozenset()
        self._before = caller.copy()

    def scratch_slot(self, spi: int) -> None:
        """A slot of the frame that runs counts as changed. Kernel: mark_stack_slot_scratched."""
        if self._slots is not None:
            self._slots |= {spi}

    def scratch_r0(self) -> None:
        """R0 counts as changed: a tail call in a function that is left by it."""
        self._regs |= 1
