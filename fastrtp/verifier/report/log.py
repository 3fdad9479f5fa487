"""The verifier's log: lines as the kernel prints them, and the text of registers and states.

A log belongs to one run. Level 1 keeps the path that failed (a branch that was finished is cut off again), level 2
everything. Kernel: kernel/bpf/log.c.
"""

from __future__ import annotations

from typing import Any

from fastrtp.helpers.argtype import DYNPTR_TYPE_LOCAL, DYNPTR_TYPE_RINGBUF
from fastrtp.verifier.domain.bounds import S32_MAX, S32_MIN, S64_MAX, S64_MIN
from fastrtp.verifier.domain.regtype import (
    CONST_PTR_TO_DYNPTR,
    CONST_PTR_TO_MAP,
    NOT_INIT,
    PTR_TO_BTF_ID,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_STACK,
    SCALAR_VALUE,
    base_type,
    reg_type_str,
)
from fastrtp.verifier.domain.state import (
    BITS_PER_FRAME,
    BPF_ADD_CONST,
    MAX_BPF_REG,
    SLOT_CHARS,
    STACK_DYNPTR,
    STACK_ITER,
    BpfFuncState,
    BpfRegState,
    BpfStackState,
    BpfVerifierState,
    is_spilled_reg,
)
from fastrtp.verifier.domain.tnum import U32, U64, tnum_strn, unum

MAX_LOG_LINES = 200_000
"""Lines kept; the middle of a longer log is dropped, as a rotating log buffer drops its head."""


class Refusal(Exception):  # noqa: N818  not an error of ours: the program's
    """The program is not accepted: errno and the line of the log that says why."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno
        self.message = message


_LENGTH_BITS = 32


class VerifierLog:
    """Lines of one run at one level (0: nothing is kept)."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.enabled = bool(level & 3)
        self.lines: list[str] = []
        self.was_reset = False
        """A path was ended since this was last looked at."""
        self._open = False
        """What comes next goes on in the last line."""
        self.kept: list[str] = []
        """What is left of level 1 when the program is accepted."""

    def line(self, text: str) -> None:
        """Add a line."""
        if self.enabled:
            if self._open:
                self._open = False
                self.lines[-1] += f" {text}"
                return
            self.lines.append(text)
            if len(self.lines) > MAX_LOG_LINES:
                del self.lines[: MAX_LOG_LINES // 2]

    def conclude(self, text: str) -> None:
        """The one line that stays of a function that was shown safe."""
        self.reset(0)
        self.line(text)
        self.kept = [text]

    def position(self) -> int:
        """Where the log ends now."""
        return len(self.lines)

    def mark(self) -> int:
        """The place to come back to: how many lines there are, and how long the last one is."""
        return len(self.lines) << _LENGTH_BITS | (len(self.lines[-1]) if self.lines else 0)

    def reset(self, mark: int) -> None:
        """A path is done: forget what was said since `mark`.

        Where the last line was gone on with since, Linux has a space where it ended, and goes on in it. Kernel: bpf_vlog_reset.
        """
        self.was_reset = True
        if not self.level & 2:
            count, length = mark >> _LENGTH_BITS, mark & (1 << _LENGTH_BITS) - 1
            del self.lines[count:]
            self._open = bool(self.lines) and len(self.lines[-1]) > length
            if self._open:
                self.lines[-1] = self.lines[-1][:length]


def snum(value: int) -> str:
    """Signed number: decimal where short. Kernel: verbose_snum."""
    return str(value) if -(1 << 15) <= value <= (1 << 15) - 1 else hex(value & U64)


def _scalar_ranges(reg: BpfRegState) -> list[str]:
    """Kernel: print_scalar_ranges."""
    b = reg.bounds

    def narrow(value: int) -> int:
        return value if -(1 << 15) <= value <= (1 << 15) - 1 else value & U32

    rows: list[tuple[str, int, bool]] = [
        ("smin", b.smin_value, b.smin_value == S64_MIN),
        ("smax", b.smax_value, b.smax_value == S64_MAX),
        ("umin", b.umin_value, b.umin_value == 0),
        ("umax", b.umax_value, b.umax_value == U64),
        ("smin32", narrow(b.s32_min_value), b.s32_min_value == S32_MIN),
        ("smax32", narrow(b.s32_max_value), b.s32_max_value == S32_MAX),
        ("umin32", b.u32_min_value, b.u32_min_value == 0),
        ("umax32", b.u32_max_value, b.u32_max_value == U32),
    ]
    parts = []
    said: set[str] = set()
    for i, (name, value, omit) in enumerate(rows):
        if omit or name in said:
            continue
        names = f"{name}="
        for other, other_value, other_omit in rows[i + 2 :: 2]:
            if not other_omit and other not in said and other_value == value:
                said.add(other)
                names += f"{other}="
        parts.append(names + (snum(value) if name[0] == "s" else unum(value)))
    if b.var_off.mask != U64:
        parts.append(f"var_off={tnum_strn(b.var_off)}")
    return parts


def print_reg_state(reg: BpfRegState, frameno: int, precise: bool = False, btf_name: str = "") -> str:
    """One register, as after `R1=` in the log."""
    var_off = reg.bounds.var_off
    if reg.type == SCALAR_VALUE:
        mark = "P" if precise else ""
        if not var_off.mask:
            return mark + snum(var_off.value - (var_off.value >> 63 << 64))
    else:
        mark = ""
    text = mark + reg_type_str(reg.type)
    if reg.type == PTR_TO_STACK:
        if frameno != reg.num:
            text += f"[{reg.num}]"
        if not var_off.mask:
            return text + snum(reg.bounds.smin_value + reg.off)
    base = base_type(reg.type)
    if base == PTR_TO_BTF_ID:
        text += btf_name
    parts = []
    if reg.id:
        delta = f"{reg.off:+d}" if reg.id & BPF_ADD_CONST else ""
        parts.append(f"id={reg.id & ~BPF_ADD_CONST}{delta}")
    if reg.ref_obj_id:
        parts.append(f"ref_obj_id={reg.ref_obj_id}")
    if base in (CONST_PTR_TO_MAP, PTR_TO_MAP_KEY, PTR_TO_MAP_VALUE) and reg.map is not None:
        if reg.map.name:
            parts.append(f"map={reg.map.name}")
        parts.append(f"ks={reg.map.key_size},vs={reg.map.value_size}")
    if reg.type == CONST_PTR_TO_DYNPTR:
        parts.append(f"type={_dynptr_type(reg)}")
    if reg.type != SCALAR_VALUE and reg.off:
        parts.append(f"off={snum(reg.off)}")
    if base == PTR_TO_MEM:
        parts.append(f"sz={unum(reg.num)}")
    if not var_off.mask:
        if var_off.value:
            parts.append(f"imm={snum(reg.bounds.smin_value)}")
    else:
        parts += _scalar_ranges(reg)
    return f"{text}({','.join(parts)})"


_ITER_STATES = ("<invalid>", "active", "drained")


def _dynptr_type(reg: BpfRegState) -> str:
    """Kernel: dynptr_type_str."""
    return "ringbuf" if reg.num & DYNPTR_TYPE_RINGBUF else "local" if reg.num & DYNPTR_TYPE_LOCAL else "<unknown>"


def _is_second_half(slot: BpfStackState) -> bool:
    """Of a dynptr: the slot at the higher address."""
    return slot.slot_type[7] == STACK_DYNPTR and not slot.spilled_ptr.num & 1


def print_slot(slot: BpfStackState, frameno: int, precise: bool = False, btf: Any = None) -> str:
    """One stack slot, as after `fp-8=` in the log."""
    kept = slot.spilled_ptr
    if slot.slot_type[7] == STACK_DYNPTR:
        facts = (("id", kept.id), ("ref_id", kept.ref_obj_id), ("dynptr_id", 1))  # the last: that it is the first half
        parts = [f"{name}={value}" for name, value in facts if value]
        return f"dynptr_{_dynptr_type(kept)}({','.join(parts)})"
    if slot.slot_type[7] == STACK_ITER:
        return f"iter_num(ref_id={kept.ref_obj_id},state={_ITER_STATES[kept.num]},depth={kept.off})"
    kinds = "".join(SLOT_CHARS[kind] for kind in slot.slot_type)
    if not is_spilled_reg(slot):
        return kinds
    return kinds.split("r")[0] + print_reg_state(slot.spilled_ptr, frameno, precise, _btf_name(slot.spilled_ptr, btf))


def _btf_name(reg: BpfRegState, btf: Any) -> str:
    return str(btf.type(reg.num).name) if btf is not None and base_type(reg.type) == PTR_TO_BTF_ID else ""


def print_frame(
    frame: BpfFuncState, state: BpfVerifierState, regs: int = -1, slots: frozenset[int] | None = None, btf: Any = None
) -> str:
    """Registers (a mask) and stack slots (None: all) of a frame; `btf` names kernel types. Kernel: print_verifier_state."""
    parts = []
    shift = frame.frameno * BITS_PER_FRAME
    if frame.frameno:
        parts.append(f"frame{frame.frameno}:")
    for regno, reg in enumerate(frame.regs):
        if reg.type != NOT_INIT and regs >> regno & 1:
            precise = bool(state.precise >> (shift + regno) & 1)
            parts.append(f"R{regno}={print_reg_state(reg, frame.frameno, precise, _btf_name(reg, btf))}")
    for spi in sorted(frame.stack):
        slot = frame.stack[spi]
        if _is_second_half(slot):
            continue
        if any(slot.slot_type) and (slots is None or spi in slots):
            precise = bool(state.precise >> (shift + MAX_BPF_REG + spi) & 1)
            parts.append(f"fp{-8 * (spi + 1)}={print_slot(slot, frame.frameno, precise, btf)}")
    held = [str(ref.id) for ref in state.refs if ref.id]
    if held:
        parts.append("refs=" + ",".join(held))
    if frame.in_callback_fn:
        parts.append("cb")
    return " ".join(parts)
