"""CO-RE: compute what each relocation's value is in the kernel at hand, and patch the instruction.

A relocation that cannot be resolved poisons its instruction: it becomes a call to a helper that does not exist
(#195896080, 0xbad2310), which the verifier refuses only if a path reaches it. Everything else that goes wrong is a `BtfError`.
Kernel: tools/lib/bpf/relo_core.c:bpf_core_calc_relo_insn, bpf_core_patch_insn
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fastrtp.errors import BtfError
from fastrtp.isa import Insn

from .core_spec import CoreRelo, CoreReloKind, CoreSpec, is_enumval_relo, is_field_relo, match_spec, parse_spec
from .core_types import essential_name, kind_core_compat
from .parse import Btf
from .types import BTF_INT_SIGNED, ENUMS, BtfKind

__all__ = ["BPF_CORE_POISON", "CoreRelo", "CoreReloKind", "CoreResult", "apply_core_relos", "calc_relo", "find_cands"]

BPF_CORE_POISON = 195896080
"""The helper number of a poisoned instruction. Kernel: relo_core.c:bpf_core_poison_insn"""

_CALL = 0x85
_LD_IMM64 = 0x18
_CLASS_LD, _CLASS_LDX, _CLASS_ST, _CLASS_STX, _CLASS_ALU, _CLASS_ALU64 = 0, 1, 2, 3, 4, 7
_SIZE_OF_CODE = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_CODE_OF_SIZE = {size: code for code, size in _SIZE_OF_CODE.items()}
_U64 = (1 << 64) - 1


@dataclass
class CoreResult:
    """What a relocation changes: the value that the compiler wrote (`orig_val`) and the one to write (`new_val`).

    `poison`: no such field in the kernel. `validate`: the instruction must hold `orig_val` now. `fail_memsz_adjust`: the
    memory access would change size in a way that changes its meaning. Sizes in bytes, 0 where a size plays no role.
    """

    orig_val: int = 0
    new_val: int = 0
    poison: bool = False
    validate: bool = True
    fail_memsz_adjust: bool = False
    orig_sz: int = 0
    new_sz: int = 0


@dataclass(slots=True)
class _Value:
    """One side of a relocation; `validate` counts on the program's side alone."""

    val: int = 0
    size: int = 0
    type_id: int = 0
    validate: bool = True


class _MissingError(Exception):
    """The kernel has nothing to read: poison the instruction (-EUCLEAN in the kernel)."""


def apply_core_relos(insns: Sequence[Insn], relos: Iterable[CoreRelo], prog_btf: Btf, kernel_btf: Btf) -> list[Insn]:
    """A copy of `insns` with the relocations applied. Raises `BtfError` naming the relocation.

    Kernel: tools/lib/bpf/libbpf.c:bpf_object__relocate_core
    """
    out = list(insns)
    cands: dict[int, list[int]] = {}
    for number, relo in enumerate(relos):
        try:
            if relo.type_id not in cands:
                cands[relo.type_id] = find_cands(prog_btf, relo.type_id, kernel_btf)
            _patch_insn(out, relo, calc_relo(relo, prog_btf, kernel_btf, cands[relo.type_id]))
        except BtfError as error:
            raise BtfError(
                f"CO-RE relocation #{number} of insn #{relo.insn_idx} ({describe(relo, prog_btf)}): {error}"
            ) from error
    return out


def describe(relo: CoreRelo, prog_btf: Btf) -> str:
    """A relocation in words: `FIELD_BYTE_OFFSET struct task_struct.comm`. Raises nothing."""
    try:
        kind = CoreReloKind(relo.kind)
        text = f"{kind.name} {prog_btf.c_type(relo.type_id)}"
        if is_field_relo(kind) or is_enumval_relo(kind):
            steps = parse_spec(prog_btf, relo).accessors
            names = "".join(f"[{step.idx}]" if step.name is None else f".{step.name}" for step in steps)
            text += names.removeprefix("[0]")
        return text
    except (BtfError, ValueError):
        return f"kind {relo.kind}, type [{relo.type_id}], access {relo.access_str!r}"


def find_cands(prog_btf: Btf, type_id: int, kernel_btf: Btf) -> list[int]:
    """The kernel's types that may be the program's type: same kind, same name but for flavours.

    Kernel: libbpf.c:bpf_core_add_cands
    """
    local = prog_btf.type(type_id)
    name = essential_name(local.name)
    if not name:
        return []
    ids = {*kernel_btf.find_all(name), *kernel_btf.find_prefix(name + "___")}
    records = (kernel_btf.type(found) for found in sorted(ids))
    return [targ.id for targ in records if kind_core_compat(local, targ) and essential_name(targ.name) == name]


def calc_relo(relo: CoreRelo, prog_btf: Btf, kernel_btf: Btf, cands: Iterable[int]) -> CoreResult:
    """Resolve one relocation against the candidates, which must agree. Raises `BtfError`.

    Kernel: relo_core.c:bpf_core_calc_relo_insn
    """
    try:
        kind = CoreReloKind(relo.kind)
    except ValueError:
        raise BtfError(f"unknown relocation kind {relo.kind}") from None
    local = prog_btf.type(relo.type_id)
    spec = parse_spec(prog_btf, relo)
    if kind == CoreReloKind.TYPE_ID_LOCAL:
        return CoreResult(relo.type_id, relo.type_id, validate=False)
    if not local.name:
        raise BtfError(f"{kind.name} of an anonymous {local.kind.name} is not supported")
    best: tuple[CoreSpec, CoreResult] | None = None
    for cand in cands:
        targ = match_spec(spec, kind, kernel_btf, cand)
        if targ is None:
            continue
        result = _calc(kind, spec, targ)
        if best is None:
            best = targ, result
        elif targ.bit_offset != best[0].bit_offset:
            raise BtfError(
                f"ambiguous: bit offset {best[0].bit_offset} in [{best[0].root_type_id}], {targ.bit_offset} in [{cand}]"
            )
        elif (result.poison, result.new_val) != (best[1].poison, best[1].new_val):
            raise BtfError(f"ambiguous: value {best[1].new_val} by [{best[0].root_type_id}], {result.new_val} by [{cand}]")
    return best[1] if best is not None else _calc(kind, spec, None)


def _calc(kind: CoreReloKind, local: CoreSpec, targ: CoreSpec | None) -> CoreResult:
    """Kernel: relo_core.c:bpf_core_calc_relo"""
    side = _field_value if is_field_relo(kind) else _enum_value if is_enumval_relo(kind) else _type_value
    result = CoreResult()
    try:
        old = side(kind, local)
        result.orig_val, result.validate = old.val, old.validate
        new = side(kind, targ)
    except _MissingError:
        result.poison = True
        return result
    result.new_val, result.orig_sz, result.new_sz = new.val, old.size, new.size
    if targ is not None and old.size != new.size:
        result.fail_memsz_adjust = not _resizable(local.btf, old.type_id, targ.btf, new.type_id)
    return result


def _resizable(local_btf: Btf, orig_id: int, targ_btf: Btf, new_id: int) -> bool:
    """Only a pointer or an unsigned integer may be loaded with another width."""
    orig, new = local_btf.type(local_btf.strip(orig_id)), targ_btf.type(targ_btf.strip(new_id))
    if orig.kind == BtfKind.PTR and new.kind == BtfKind.PTR:
        return True
    both_ints = orig.kind == BtfKind.INT and new.kind == BtfKind.INT
    return both_ints and orig.encoding != BTF_INT_SIGNED and new.encoding != BTF_INT_SIGNED


def _field_value(kind: CoreReloKind, spec: CoreSpec | None) -> _Value:
    """Kernel: relo_core.c:bpf_core_calc_field_relo"""
    if kind == CoreReloKind.FIELD_EXISTS:
        return _Value(int(spec is not None))
    if spec is None:
        raise _MissingError
    btf, step = spec.btf, spec.accessors[-1]
    if step.name is None:
        size = btf.sizeof(step.type_id)
        if kind == CoreReloKind.FIELD_BYTE_OFFSET:
            return _Value(spec.bit_offset // 8, size, step.type_id)
        if kind == CoreReloKind.FIELD_BYTE_SIZE:
            return _Value(size)
        raise BtfError(f"{kind.name} cannot be applied to an array element")
    member = btf.type(step.type_id).members[step.idx]
    field_id = btf.strip(member.type_id)
    record = btf.type(field_id)
    bit_off, bit_sz = spec.bit_offset, member.bitfield_size
    bitfield = bit_sz > 0
    if bitfield:
        byte_sz = record.size
        if byte_sz <= 0:
            raise BtfError(f"type [{step.type_id}]: bitfield {member.name!r} of a type without size")
        byte_off = bit_off // 8 // byte_sz * byte_sz
        while bit_off + bit_sz > (byte_off + byte_sz) * 8:
            if byte_sz >= 8:
                raise BtfError(f"type [{step.type_id}]: bitfield {member.name!r} needs more than 8 bytes")
            byte_sz *= 2
            byte_off = bit_off // 8 // byte_sz * byte_sz
    else:
        byte_sz = btf.sizeof(field_id)
        byte_off = bit_off // 8
        bit_sz = byte_sz * 8
    # what a compiler loads for a bitfield is its own choice, so only signedness and the right shift can be checked
    if kind == CoreReloKind.FIELD_BYTE_OFFSET:
        element_id = _element(btf, field_id)
        return _Value(byte_off, 0 if bitfield else btf.sizeof(element_id), element_id, not bitfield)
    if kind == CoreReloKind.FIELD_BYTE_SIZE:
        return _Value(byte_sz, validate=not bitfield)
    if kind == CoreReloKind.FIELD_SIGNED:
        return _Value(int(record.signed))
    if kind == CoreReloKind.FIELD_LSHIFT_U64:
        return _Value(64 - (bit_off + bit_sz - byte_off * 8), validate=not bitfield)
    return _Value(64 - bit_sz)


def _element(btf: Btf, type_id: int) -> int:
    """The innermost element type of an array: an access to an array's start is one to its first element."""
    for _ in range(32):
        record = btf.type(btf.strip(type_id))
        if record.kind != BtfKind.ARRAY:
            break
        type_id = record.type
    return type_id


def _type_value(kind: CoreReloKind, spec: CoreSpec | None) -> _Value:
    """Kernel: relo_core.c:bpf_core_calc_type_relo"""
    if spec is None:
        return _Value(0)
    if kind == CoreReloKind.TYPE_ID_TARGET:
        return _Value(spec.root_type_id, validate=False)
    if kind == CoreReloKind.TYPE_SIZE:
        return _Value(spec.btf.sizeof(spec.root_type_id))
    return _Value(1)


def _enum_value(kind: CoreReloKind, spec: CoreSpec | None) -> _Value:
    """Kernel: relo_core.c:bpf_core_calc_enumval_relo"""
    if kind == CoreReloKind.ENUMVAL_EXISTS:
        return _Value(int(spec is not None))
    if spec is None:
        raise _MissingError
    step = spec.accessors[0]
    record = spec.btf.type(step.type_id)
    assert record.kind in ENUMS
    return _Value(record.values[step.idx].value & _U64)


def _patch_insn(insns: list[Insn], relo: CoreRelo, result: CoreResult) -> None:
    """Kernel: relo_core.c:bpf_core_patch_insn"""
    idx = relo.insn_idx
    if not 0 <= idx < len(insns):
        raise BtfError(f"no such instruction, the program has {len(insns)}")
    insn = insns[idx]
    if result.poison:
        _poison(insns, idx)
        return
    insn_class = insn.code & 7
    if insn_class in (_CLASS_ALU, _CLASS_ALU64):
        if insn.code & 0x08:
            raise BtfError(f"the instruction {insn.code:#x} has no immediate")
        _expect(result, insn.imm & 0xFFFFFFFF, result.orig_val & 0xFFFFFFFF)
        insns[idx] = insn._replace(imm=_s32(result.new_val))
    elif insn_class in (_CLASS_LDX, _CLASS_ST, _CLASS_STX):
        _expect(result, insn.off, result.orig_val)
        if result.new_val > 0x7FFF:
            raise BtfError(f"value {result.new_val} does not fit into the instruction's offset")
        if result.fail_memsz_adjust:
            _poison(insns, idx)
            return
        insn = insn._replace(off=result.new_val)
        if result.orig_sz != result.new_sz:
            size = _SIZE_OF_CODE[insn.code & 0x18]
            if size != result.orig_sz:
                raise BtfError(f"the instruction accesses {size} bytes, expected {result.orig_sz}")
            if result.new_sz not in _CODE_OF_SIZE:
                raise BtfError(f"no instruction accesses {result.new_sz} bytes")
            insn = insn._replace(code=insn.code & ~0x18 | _CODE_OF_SIZE[result.new_sz])
        insns[idx] = insn
    elif insn.code == _LD_IMM64:
        second = insns[idx + 1] if idx + 1 < len(insns) else None
        if second is None or insn.src_reg or insn.off or second[:4] != (0, 0, 0, 0):
            raise BtfError("malformed ld_imm64")
        _expect(result, insn.imm & 0xFFFFFFFF | (second.imm & 0xFFFFFFFF) << 32, result.orig_val & _U64)
        insns[idx] = insn._replace(imm=_s32(result.new_val))
        insns[idx + 1] = second._replace(imm=_s32(result.new_val >> 32))
    else:
        raise BtfError(f"an instruction {insn.code:#x} cannot be relocated")


def _poison(insns: list[Insn], idx: int) -> None:
    insns_to_kill = (idx + 1, idx) if insns[idx].code == _LD_IMM64 and idx + 1 < len(insns) else (idx,)
    for at in insns_to_kill:
        insns[at] = Insn(_CALL, 0, 0, 0, BPF_CORE_POISON)


def _expect(result: CoreResult, found: int, expected: int) -> None:
    if result.validate and found != expected:
        raise BtfError(f"the instruction holds {found}, the compiler meant {expected}")


def _s32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (value >> 31 << 32)
