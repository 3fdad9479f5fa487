"""Opcode table, encoder, decoder, assembler and disassembler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtp.errors import AsmError
from fastrtp.isa import OPCODES, Insn, Kind, Row, assemble, decode, disassemble, dump, encode, is_ld_imm64, lookup, print_bpf_insn

S16 = st.integers(-(1 << 15), (1 << 15) - 1)
S32 = st.integers(-(1 << 31), (1 << 31) - 1)
REGISTERS = st.integers(0, 10)


def slots_of(row: Row, dst_reg: int, src_reg: int, off: int, imm: int, upper: int) -> list[Insn]:
    """One instruction of `row` with the given values in its operand fields."""
    values = {"dst_reg": dst_reg, "src_reg": src_reg, "off": off, "imm": imm}
    fixed = {"src_reg": row.src_reg, "off": row.off, "imm": row.imm}
    fields = {name: value if name in row.operands else fixed.get(name) or 0 for name, value in values.items()}
    insn = Insn(row.code, **fields)
    return [insn, Insn(0, 0, 0, 0, upper if "next" in row.operands else 0)] if is_ld_imm64(insn) else [insn]


@pytest.mark.parametrize("row", OPCODES, ids=lambda row: row.name)
def test_row_round_trips(row: Row) -> None:
    """Each row's instruction survives bytes and text, and is found in the table again."""
    for values in ((3, 7, -8, -2, 5), (0, 1, 4, 1, -1), (10, 9, 32767, 2147483647, 0), (9, 10, -32768, -2147483648, 1)):
        insns = slots_of(row, *values)

        assert lookup(insns[0]) is row
        assert row.reserved(insns[0]) == ()
        assert decode(encode(insns)) == insns
        assert assemble(disassemble(*insns)) == insns


def test_names_and_texts_are_unique() -> None:
    """A row is identified by its name and by its text."""
    assert len({row.name for row in OPCODES}) == len({row.text for row in OPCODES}) == len(OPCODES)


@given(st.lists(st.tuples(st.sampled_from(OPCODES), REGISTERS, REGISTERS, S16, S32, S32), max_size=20))
def test_programs_round_trip(drawn: list[tuple[Row, int, int, int, int, int]]) -> None:
    """A random program's dump, prefixes included, assembles to the same bytes."""
    insns = [insn for values in drawn for insn in slots_of(*values)]

    assert assemble("\n".join(dump(insns))) == insns
    assert encode(decode(encode(insns))) == encode(insns)


@given(st.binary(max_size=64))
def test_any_bytes_disassemble(data: bytes) -> None:
    """No eight bytes make the disassembler fail, and what it calls an instruction is in the table."""
    insns = decode(data[: len(data) // 8 * 8])
    for insn in insns:
        assert (lookup(insn) is None) == disassemble(insn).startswith("BUG_")
        assert print_bpf_insn(insn, insn)


KERNEL_TEXT = [
    ("b701000005000000", "(b7) r1 = 5"),
    ("b4010000ffffffff", "(b4) w1 = -1"),
    ("7910080000000000", "(79) r0 = *(u64 *)(r1 +8)"),
    ("6100000000000000", "(61) r0 = *(u32 *)(r0 +0)"),
    ("8121fcff00000000", "(81) r1 = *(s32 *)(r2 -4)"),
    ("7a0af8ff07000000", "(7a) *(u64 *)(r10 -8) = 7"),
    ("631afcff00000000", "(63) *(u32 *)(r10 -4) = r1"),
    ("6601030005000000", "(66) if w1 s> 0x5 goto pc+3"),
    ("1501fffffeffffff", "(15) if r1 == 0xfffffffe goto pc-1"),
    ("3d21000000000000", "(3d) if r1 >= r2 goto pc+0"),
    ("0500030000000000", "(05) goto pc+3"),
    ("0600000003000000", "(06) gotol pc+3"),
    ("e500030000000000", "(e5) may_goto pc+3"),
    ("8500000001000000", "(85) call bpf_map_lookup_elem#1"),
    ("85000000ffff0000", "(85) call unknown#65535"),
    ("8510000005000000", "(85) call pc+5"),
    ("9500000000000000", "(95) exit"),
    ("db21000000000000", "(db) lock *(u64 *)(r1 +0) += r2"),
    ("c3210400a1000000", "(c3) r2 = atomic_fetch_xor((u32 *)(r1 +4), r2)"),
    ("db210000e1000000", "(db) r2 = atomic64_xchg((u64 *)(r1 +0), r2)"),
    ("db210000f1000000", "(db) r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)"),
    ("d312000000010000", "(d3) r2 = load_acquire((u8 *)(r1 +0))"),
    ("cb21000010010000", "(cb) store_release((u16 *)(r1 +0), r2)"),
    ("8701000000000000", "(87) r1 = -r1"),
    ("dc01000010000000", "(dc) r1 = be16 r1"),
    ("d401000040000000", "(d4) r1 = le64 r1"),
    ("d701000020000000", "(d7) r1 = bswap32 r1"),
    ("bf21080000000000", "(bf) r1 = (s8)r2"),
    ("bc21100000000000", "(bc) w1 = (s16)w2"),
    ("3f21010000000000", "(3f) r1 s/= r2"),
    ("9401010005000000", "(94) w1 s%= 5"),
    ("cf21000000000000", "(cf) r1 s>>= r2"),
    ("1811000004000000", "(18) r1 = 0x4"),
    ("2000000004000000", "(20) r0 = *(u32 *)skb[4]"),
    ("4810000004000000", "(48) r0 = *(u16 *)skb[r1 + 4]"),
    ("8d01000000000000", "(8d) callx r1"),
    ("0000000000000000", "BUG_ld_00"),
    ("5800000000000000", "BUG_ld_58"),
    ("ff00000000000000", None),
]  # fmt: skip


@pytest.mark.parametrize(("data", "text"), KERNEL_TEXT, ids=lambda value: value)
def test_text_is_the_verifier_log_s(data: str, text: str | None) -> None:
    """Text of an instruction is what Linux 6.18 prints."""
    (insn,) = decode(bytes.fromhex(data))
    if text is None:
        assert lookup(insn) is None
    else:
        assert print_bpf_insn(insn) == text


def test_labels_and_comments() -> None:
    """Labels reach forward and backward and count an ld_imm64 as two slots."""
    insns = assemble(
        """
        ; sum
            r1 = 0x100000000        // two slots
        loop: r0 += r1
            if r0 < 10 goto loop
            call sub
            gotol end
        sub:
        end: exit
        """
    )

    assert [disassemble(insn, insns[1]) for insn in insns if insn.code] == [
        "r1 = 0x100000000", "r0 += r1", "if r0 < 0xa goto pc-2", "call pc+1", "gotol pc+0", "exit",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("goto +3", "goto pc+3"),
        ("if r1 s> 5 goto +3", "if r1 s> 0x5 goto pc+3"),
        ("if w1 == -1 goto -1", "if w1 == 0xffffffff goto pc-1"),
        ("r0 = *(u64*)(r1 + 0x8)", "r0 = *(u64 *)(r1 +8)"),
        ("r1 += 0x10", "r1 += 16"),
        ("w1 = 0xffffffff", "w1 = -1"),
        ("r1 = 5 ll", "r1 = 0x5"),
        ("r1 = -1 ll", "r1 = 0xffffffffffffffff"),
        ("call 5", "call bpf_ktime_get_ns#5"),
        ("call bpf_ktime_get_ns", "call bpf_ktime_get_ns#5"),
        ("12: (95) exit", "exit"),
    ],
)
def test_spellings(text: str, same: str) -> None:
    """What people write is accepted beside what the kernel prints."""
    assert assemble(text) == assemble(same)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit\nr1 = foo", "line 2: 'r1 = foo' is no BPF instruction"),
        ("r11 = 0", "line 1: register r11 is beyond r10 in 'r11 = 0'"),
        ("r1 += 2147483648", "line 1: 2147483648 is outside -2147483648..2147483647 in 'r1 += 2147483648'"),
        ("r1 = *(u8 *)(r1 +32768)", "line 1: 32768 is outside -32768..32767 in 'r1 = *(u8 *)(r1 +32768)'"),
        ("r1 = 0x10000000000000000", "line 1: 18446744073709551616 is outside -9223372036854775808..18446744073709551615"),
        ("goto nowhere", "line 1: label 'nowhere' is not defined in 'goto nowhere'"),
        ("a: a: exit", "line 1: label 'a' is defined twice"),
        ("call bpf_no_such_helper", "line 1: no helper and no label is named 'bpf_no_such_helper'"),
        ("w1 = -w2", "line 1: 'w1 = -w2' is no BPF instruction"),
        ("r2 = atomic_xchg((u32 *)(r1 +0), r3)", "is no BPF instruction"),
    ],
)
def test_bad_text_says_where_and_what(text: str, message: str) -> None:
    """AsmError has the line and the offending value."""
    with pytest.raises(AsmError) as caught:
        assemble(text)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("insn", "message"),
    [
        (Insn(256), "insn 1: code 256 is outside 0..255"),
        (Insn(0xB7, 16), "insn 1: dst_reg 16 is outside 0..15"),
        (Insn(0xB7, 0, -1), "insn 1: src_reg -1 is outside 0..15"),
        (Insn(0xB7, 0, 0, 40000), "insn 1: off 40000 is outside -32768..32767"),
        (Insn(0xB7, 0, 0, 0, 1 << 31), "insn 1: imm 2147483648 is outside -2147483648..2147483647"),
    ],
)
def test_what_does_not_fit_is_refused(insn: Insn, message: str) -> None:
    """Encoding names the instruction and the field."""
    with pytest.raises(AsmError, match=message):
        encode([Insn(0x95), insn])


def test_a_broken_length_is_refused() -> None:
    """Seven bytes are no instruction."""
    with pytest.raises(AsmError, match="7 bytes are no whole number of 8-byte instructions"):
        decode(bytes(7))


def test_reserved_fields_are_named() -> None:
    """A row tells which fields must be zero."""
    insn = Insn(0x95, 1, 2, 3, 4)
    row = lookup(insn)

    assert row is not None
    assert row.kind is Kind.EXIT
    assert row.reserved(insn) == ("dst_reg", "src_reg", "off", "imm")


@pytest.mark.parametrize(
    ("insn", "name"),
    [
        (Insn(0x3F, off=2), None),
        (Insn(0xBF, off=8), "movsx8_64"),
        (Insn(0xBC, off=32), None),
        (Insn(0xDC, imm=8), None),
        (Insn(0xDB, imm=2), None),
    ],
)
def test_fixed_fields_tell_rows_apart(insn: Insn, name: str | None) -> None:
    """off and imm select among rows of one opcode, and unknown values select none."""
    row = lookup(insn)

    assert (row.name if row else None) == name
