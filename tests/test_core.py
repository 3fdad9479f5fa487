"""CO-RE: one test per rule of the kernel's matching, on types written for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastrtp.btf import Btf, BtfKind, BtfWriter
from fastrtp.btf.core import BPF_CORE_POISON, CoreRelo, CoreReloKind, apply_core_relos, calc_relo, find_cands
from fastrtp.btf.core_types import essential_name, types_are_compat, types_match
from fastrtp.btf.types import BTF_INT_SIGNED
from fastrtp.errors import BtfError
from fastrtp.isa import Insn

K = CoreReloKind
Builder = Callable[[BtfWriter], object]


class Base:
    """Writes the integers that most tests need, with fixed ids."""

    INT, U32, U64, CHAR, PTR, S64 = 1, 2, 3, 4, 5, 6

    @staticmethod
    def btf(build: Builder) -> Btf:
        w = BtfWriter()
        w.add_int("int", 4, BTF_INT_SIGNED)
        w.add_int("unsigned int", 4)
        w.add_int("unsigned long", 8)
        w.add_int("char", 1, BTF_INT_SIGNED)
        w.add_pointer(1)
        w.add_int("long", 8, BTF_INT_SIGNED)
        build(w)
        return Btf.parse(w.dump())


FIRST = 7
"""The id of the first type that a test adds."""


def value(local: Builder, target: Builder, access: str, kind: CoreReloKind, type_id: int = FIRST) -> int | None:
    """What a relocation resolves to, None for a poisoned instruction."""
    prog, kernel = Base.btf(local), Base.btf(target)
    relo = CoreRelo(0, type_id, access, kind)
    result = calc_relo(relo, prog, kernel, find_cands(prog, type_id, kernel))
    return None if result.poison else result.new_val


def local_struct(w: BtfWriter) -> None:
    """struct s { int a; int b; } as the program sees it."""
    w.add_struct("s", 8, [("a", Base.INT, 0), ("b", Base.INT, 32)])


def test_a_field_is_found_by_name_at_its_offset_in_the_kernel() -> None:
    """Order and other members play no role."""

    def target(w: BtfWriter) -> None:
        w.add_struct("s", 24, [("b", Base.INT, 128), ("x", Base.U64, 0), ("a", Base.INT, 64)])

    assert value(local_struct, target, "0:1", K.FIELD_BYTE_OFFSET) == 16
    assert value(local_struct, target, "0:0", K.FIELD_BYTE_OFFSET) == 8
    assert value(local_struct, target, "0:0", K.FIELD_EXISTS) == 1


def test_an_index_before_the_first_member_steps_over_whole_structs() -> None:
    """`p[2].b` is two structs further on, by the kernel's size."""

    def target(w: BtfWriter) -> None:
        w.add_struct("s", 40, [("b", Base.INT, 64)])

    assert value(local_struct, target, "2:1", K.FIELD_BYTE_OFFSET) == 88


def test_a_missing_field_poisons_offsets_and_does_not_exist() -> None:
    """Only FIELD_EXISTS has an answer."""

    def target(w: BtfWriter) -> None:
        w.add_struct("s", 8, [("a", Base.INT, 0)])

    assert value(local_struct, target, "0:1", K.FIELD_EXISTS) == 0
    for kind in (K.FIELD_BYTE_OFFSET, K.FIELD_BYTE_SIZE, K.FIELD_SIGNED, K.FIELD_LSHIFT_U64, K.FIELD_RSHIFT_U64):
        assert value(local_struct, target, "0:1", kind) is None


@pytest.mark.parametrize(
    ("name", "essential"),
    [
        ("task", "task"),
        ("task___old", "task"),
        ("task___old___v2", "task___old"),
        ("task__old", "task__old"),
        ("task____old", "task____old"),
        ("___old", "___old"),
        ("task___", "task___"),
        ("a___b", "a"),
        ("", ""),
    ],
)
def test_flavours(name: str, essential: str) -> None:
    """Three underscores between other characters, the last such place. (`task____old` has four.)"""
    assert essential_name(name) == essential


def test_flavours_are_ignored_on_both_sides() -> None:
    """The program's `s___mine` is the kernel's `s` and the kernel's `s___2`."""

    def local(w: BtfWriter) -> None:
        w.add_struct("s___mine", 8, [("a", Base.INT, 0)])

    def target(w: BtfWriter) -> None:
        w.add_struct("other", 4, [("a", Base.INT, 0)])
        w.add_struct("s___2", 8, [("a", Base.INT, 32)])
        w.add_struct("sx", 8, [("a", Base.INT, 0)])

    assert value(local, target, "0:0", K.FIELD_BYTE_OFFSET) == 4


def test_a_candidate_has_the_same_kind() -> None:
    """A union, a typedef or a forward declaration of the name is none."""

    def target(w: BtfWriter) -> None:
        w.add_struct("s", 8, [("a", Base.INT, 0)], union=True)
        w.add(BtfKind.TYPEDEF, "s", Base.INT)
        w.add(BtfKind.FWD, "s")

    assert value(local_struct, target, "0:0", K.FIELD_EXISTS) == 0


def test_members_are_found_inside_anonymous_members() -> None:
    """Nested anonymous structs and unions, on either side."""

    def target(w: BtfWriter) -> None:
        inner = w.add_struct("", 8, [("x", Base.INT, 0), ("b", Base.INT, 32)])
        union = w.add_struct("", 8, [("y", Base.U64, 0), ("", inner, 0)], union=True)
        w.add_struct("s", 24, [("z", Base.U64, 0), ("", union, 128)])

    assert value(local_struct, target, "0:1", K.FIELD_BYTE_OFFSET) == 20

    def local(w: BtfWriter) -> None:
        w.add_struct("", 8, [("pad", Base.INT, 0), ("b", Base.INT, 32)])
        w.add_struct("s", 16, [("p", Base.U64, 0), ("", FIRST, 64)])

    assert value(local, target, "0:1:1", K.FIELD_BYTE_OFFSET, FIRST + 1) == 20


def test_named_members_must_be_in_the_same_place_of_the_path() -> None:
    """`s.in.b` is not `s.b`."""

    def local(w: BtfWriter) -> None:
        w.add_struct("in", 4, [("b", Base.INT, 0)])
        w.add_struct("s", 4, [("in", FIRST, 0)])

    def nested(w: BtfWriter) -> None:
        w.add_struct("whatever", 8, [("b", Base.INT, 32)])
        w.add_struct("s", 16, [("in", FIRST, 64)])

    assert value(local, nested, "0:0:0", K.FIELD_BYTE_OFFSET, FIRST + 1) == 12
    assert value(local, local_struct, "0:0:0", K.FIELD_EXISTS, FIRST + 1) == 0


def test_array_elements_and_flexible_arrays() -> None:
    """An index must exist in the kernel's array, unless that is a struct's last member without length."""

    def array(count: int, *, last: bool = True) -> Builder:
        def build(w: BtfWriter) -> None:
            w.add_array(Base.U64, count, Base.INT)
            members = [("n", Base.U64, 0), ("a", FIRST, 64)]
            w.add_struct("s", 16, members if last else members[::-1])

        return build

    offset = K.FIELD_BYTE_OFFSET
    assert value(array(4), array(8), "0:1:3", offset, FIRST + 1) == 8 + 24
    assert value(array(4), array(3), "0:1:3", offset, FIRST + 1) is None
    assert value(array(4), array(0), "0:1:3", offset, FIRST + 1) == 8 + 24
    assert value(array(4), array(0, last=False), "0:1:3", offset, FIRST + 1) is None
    assert value(array(0), array(0), "0:1:9", offset, FIRST + 1) == 8 + 72
    assert value(array(4), array(8), "0:1:3", K.FIELD_BYTE_SIZE, FIRST + 1) == 8
    with pytest.raises(BtfError, match="bad access string '0:1:4'"):
        value(array(4), array(8), "0:1:4", offset, FIRST + 1)
    with pytest.raises(BtfError, match="FIELD_SIGNED cannot be applied to an array element"):
        value(array(4), array(8), "0:1:3", K.FIELD_SIGNED, FIRST + 1)


def member_of(build_type: Callable[[BtfWriter], int]) -> Builder:
    """struct s { <type> a; }."""

    def build(w: BtfWriter) -> None:
        type_id = build_type(w)
        w.add_struct("s", 64, [("a", type_id, 0)])

    return build


def exists(local: Callable[[BtfWriter], int], target: Callable[[BtfWriter], int]) -> bool:
    """Whether a member of one type is accepted for one of another."""
    prog, kernel = Base.btf(member_of(local)), Base.btf(member_of(target))
    type_id = prog.find("s") or 0
    result = calc_relo(CoreRelo(0, type_id, "0:0", K.FIELD_EXISTS), prog, kernel, find_cands(prog, type_id, kernel))
    return bool(result.new_val)


def test_members_are_compatible_by_kind() -> None:
    """Any integer for any integer, pointer for pointer, composite for composite; modifiers and typedefs are looked through."""
    u64 = lambda w: Base.U64  # noqa: E731
    pointer = lambda w: Base.PTR  # noqa: E731
    typedef = lambda w: w.add(BtfKind.TYPEDEF, "t", w.add(BtfKind.CONST, "", Base.INT))  # noqa: E731
    struct = lambda w: w.add_struct("x", 4, [])  # noqa: E731
    union = lambda w: w.add_struct("y", 8, [], union=True)  # noqa: E731
    float_ = lambda w: w.add(BtfKind.FLOAT, "double", 8)  # noqa: E731

    assert exists(u64, typedef)
    assert exists(pointer, lambda w: w.add_pointer(0))
    assert exists(struct, union)
    assert exists(float_, lambda w: w.add(BtfKind.FLOAT, "float", 4))
    assert not exists(u64, pointer)
    assert not exists(struct, u64)
    assert not exists(float_, u64)


def test_enum_members_are_compatible_by_name() -> None:
    """The same name but for its flavour, or none; 32 and 64 bits alike."""

    def enum(name: str, size: int = 4) -> Callable[[BtfWriter], int]:
        return lambda w: w.add_enum(name, size, [("A", 1)])

    assert exists(enum("e___mine"), enum("e", 8))
    assert exists(enum(""), enum("e"))
    assert not exists(enum("e"), enum("f"))
    assert not exists(enum("e"), lambda w: Base.INT)


def test_array_members_are_compatible_by_element() -> None:
    """Lengths may differ, elements are compared."""

    def array(type_id: int, count: int) -> Callable[[BtfWriter], int]:
        return lambda w: w.add_array(type_id, count, Base.INT)

    assert exists(array(Base.INT, 4), array(Base.U64, 9))
    assert not exists(array(Base.INT, 4), array(Base.PTR, 4))


def test_old_bitfield_integers_are_not_compatible() -> None:
    """An INT with an offset of its own is of another age."""
    odd = lambda w: w.add(BtfKind.INT, "odd", 4, extra=[3 << 16 | 5])  # noqa: E731

    assert not exists(odd, lambda w: Base.INT)
    assert not exists(lambda w: Base.INT, odd)


def test_size_and_sign_of_a_field() -> None:
    """The kernel's, whatever the program thinks."""

    def target(type_id: int) -> Builder:
        return lambda w: w.add_struct("s", 16, [("a", type_id, 64)])

    assert value(local_struct, target(Base.U64), "0:0", K.FIELD_BYTE_SIZE) == 8
    assert value(local_struct, target(Base.U64), "0:0", K.FIELD_SIGNED) == 0
    assert value(local_struct, target(Base.CHAR), "0:0", K.FIELD_SIGNED) == 1
    assert value(local_struct, target(Base.CHAR), "0:0", K.FIELD_LSHIFT_U64) == 56
    assert value(local_struct, target(Base.CHAR), "0:0", K.FIELD_RSHIFT_U64) == 56
    assert value(local_struct, target(Base.U64), "0:0", K.FIELD_LSHIFT_U64) == 0


def test_bitfields() -> None:
    """The aligned unit that holds the bits, widened when they cross it."""

    def local(w: BtfWriter) -> None:
        w.add_bitfields("s", 4, [("f", Base.U32, 0, 4)])

    def target(w: BtfWriter) -> None:
        w.add_bitfields("s", 16, [("g", Base.U64, 0, 0), ("f", Base.INT, 64 + 28, 9)])

    expected = {
        K.FIELD_BYTE_OFFSET: 8,
        K.FIELD_BYTE_SIZE: 8,
        K.FIELD_EXISTS: 1,
        K.FIELD_SIGNED: 1,
        K.FIELD_LSHIFT_U64: 64 - 37,
        K.FIELD_RSHIFT_U64: 64 - 9,
    }
    assert {kind: value(local, target, "0:0", kind) for kind in expected} == expected


def test_a_bitfield_across_eight_bytes_cannot_be_loaded() -> None:
    """There is no wider load."""

    def target(w: BtfWriter) -> None:
        w.add_bitfields("s", 16, [("f", Base.U64, 60, 8)])

    with pytest.raises(BtfError, match="needs more than 8 bytes"):
        value(lambda w: w.add_bitfields("s", 4, [("f", Base.U32, 0, 4)]), target, "0:0", K.FIELD_BYTE_OFFSET)


def test_candidates_must_agree() -> None:
    """Two structs of the name with the field elsewhere are ambiguous, in the same place they are not."""

    def target(offset: int) -> Builder:
        def build(w: BtfWriter) -> None:
            w.add_struct("s", 8, [("a", Base.INT, 0)])
            w.add_struct("s___2", 16, [("a", Base.INT, offset)])

        return build

    assert value(local_struct, target(0), "0:0", K.FIELD_BYTE_OFFSET) == 0
    with pytest.raises(BtfError, match=r"ambiguous: bit offset 0 in \[7\], 32 in \[8\]"):
        value(local_struct, target(32), "0:0", K.FIELD_BYTE_OFFSET)
    with pytest.raises(BtfError, match=r"ambiguous: value 8 by \[7\], 16 by \[8\]"):
        value(local_struct, target(0), "0", K.TYPE_SIZE)


def test_a_candidate_without_the_field_is_passed_over() -> None:
    """Only candidates that match count."""

    def target(w: BtfWriter) -> None:
        w.add_struct("s", 8, [("other", Base.INT, 0)])
        w.add_struct("s___2", 16, [("a", Base.INT, 64)])

    assert value(local_struct, target, "0:0", K.FIELD_BYTE_OFFSET) == 8


def test_types_ids_sizes_and_existence() -> None:
    """A type that is not there is 0, without poisoning."""

    def target(w: BtfWriter) -> None:
        w.add(BtfKind.FWD, "s")
        w.add_struct("s", 24, [])

    def missing(w: BtfWriter) -> None:
        w.add_struct("t", 24, [])

    assert value(local_struct, target, "0", K.TYPE_ID_LOCAL) == FIRST
    assert value(local_struct, target, "0", K.TYPE_ID_TARGET) == FIRST + 1
    assert value(local_struct, target, "0", K.TYPE_EXISTS) == 1
    assert value(local_struct, target, "0", K.TYPE_SIZE) == 24
    for kind in (K.TYPE_ID_TARGET, K.TYPE_EXISTS, K.TYPE_SIZE, K.TYPE_MATCHES):
        assert value(local_struct, missing, "0", kind) == 0


def test_anonymous_types_have_no_candidates() -> None:
    """Only their local id can be asked for."""
    anonymous: Builder = lambda w: w.add_struct("", 4, [("a", Base.INT, 0)])  # noqa: E731

    assert value(anonymous, anonymous, "0", K.TYPE_ID_LOCAL) == FIRST
    with pytest.raises(BtfError, match="anonymous STRUCT is not supported"):
        value(anonymous, anonymous, "0:0", K.FIELD_EXISTS)


def test_compatible_types() -> None:
    """Kinds all the way down; names, sizes and array lengths do not count."""

    def build(w: BtfWriter) -> None:
        w.add_struct("a", 4, [])  # 7
        w.add_struct("b", 8, [])  # 8
        w.add_pointer(7)  # 9
        w.add_pointer(8)  # 10
        w.add_func_proto(Base.INT, [("x", 9)])  # 11
        w.add_func_proto(Base.U64, [("y", 10)])  # 12
        w.add_func_proto(Base.U64, [("y", 10), ("z", 10)])  # 13
        w.add(BtfKind.TYPEDEF, "t", 7)  # 14
        w.add_enum("e", 4, [])  # 15
        w.add_enum("e", 8, [])  # 16
        w.add_func_proto(9, [("x", 9)])  # 17

    btf = Base.btf(build)

    def compat(a: int, b: int) -> bool:
        return types_are_compat(btf, a, btf, b)

    assert compat(7, 8)
    assert compat(9, 10)
    assert compat(11, 12)
    assert compat(15, 16)
    assert not compat(12, 13)
    assert not compat(11, 17)
    assert not compat(7, 9)
    assert not compat(14, 7)


def test_matching_types() -> None:
    """TYPE_MATCHES compares members by name and type; behind a pointer a struct's name is enough."""

    def build(w: BtfWriter) -> None:
        w.add_struct("s", 8, [("a", Base.INT, 0), ("b", Base.INT, 32)])  # 7
        w.add_struct("s___subset", 4, [("b", Base.INT, 0)])  # 8
        w.add_struct("s___typed", 8, [("b", Base.U32, 0)])  # 9
        w.add_struct("s___extra", 8, [("c", Base.INT, 0)])  # 10
        w.add_struct("other", 8, [("b", Base.INT, 0)])  # 11
        w.add_pointer(10)  # 12
        w.add_pointer(7)  # 13
        w.add_pointer(11)  # 14
        w.add(BtfKind.FWD, "s")  # 15
        w.add_pointer(15)  # 16
        w.add(BtfKind.FWD, "s", kind_flag=True)  # 17
        w.add_pointer(17)  # 18
        w.add_array(Base.INT, 2)  # 19
        w.add_array(Base.INT, 3)  # 20
        w.add_enum("e", 4, [("A", 1), ("B", 2)])  # 21
        w.add_enum("e___x", 4, [("B___y", 7)])  # 22
        w.add_enum("e___z", 4, [("C", 1)])  # 23
        w.add_enum("e", 8, [("B", 2)])  # 24
        w.add_func_proto(Base.INT, [("p", 12)])  # 25
        w.add_func_proto(Base.INT, [("q", 13)])  # 26
        w.add_struct("s", 8, [("a", Base.INT, 0)], union=True)  # 27

    btf = Base.btf(build)

    def match(a: int, b: int) -> bool:
        return types_match(btf, a, btf, b)

    assert match(8, 7)
    assert not match(7, 8)
    assert not match(9, 7)
    assert not match(10, 7)
    assert not match(11, 7)
    assert match(12, 13)
    assert not match(14, 13)
    assert match(16, 13)
    assert match(13, 16)
    assert not match(18, 13)
    assert not match(15, 7)
    assert not match(19, 20)
    assert match(22, 21)
    assert not match(23, 21)
    assert not match(24, 21)
    assert match(25, 26)
    assert not match(27, 7)
    assert not match(Base.INT, Base.U32)


def test_endless_types_end_in_an_error() -> None:
    """A pointer to itself, a function taking itself four times."""

    def build(w: BtfWriter) -> None:
        w.add_pointer(7)
        w.add_func_proto(8, [(name, 8) for name in "abcd"])

    btf = Base.btf(build)
    for compare in (types_are_compat, types_match):
        for type_id in (7, 8):
            with pytest.raises(BtfError):
                compare(btf, type_id, btf, type_id)


def enum_builder(*values: tuple[str, int], size: int = 4, signed: bool = False) -> Builder:
    """enum e of the values."""
    return lambda w: w.add_enum("e", size, values, signed=signed)


def test_enumerators() -> None:
    """By name without flavour, of the same enum; the value is the kernel's, 64 bits wide if it must be."""
    local = enum_builder(("A", 1), ("B___mine", 2))

    assert value(local, enum_builder(("B", 7)), "1", K.ENUMVAL_VALUE) == 7
    assert value(local, enum_builder(("B", 7)), "1", K.ENUMVAL_EXISTS) == 1
    assert value(local, enum_builder(("B", 7)), "0", K.ENUMVAL_EXISTS) == 0
    assert value(local, enum_builder(("B", 7)), "0", K.ENUMVAL_VALUE) is None
    assert value(local, enum_builder(("A", 1 << 40), size=8), "0", K.ENUMVAL_VALUE) == 1 << 40
    assert value(local, enum_builder(("A", -3), signed=True), "0", K.ENUMVAL_VALUE) == 2**64 - 3
    for access in ("2", "0:0", ""):
        with pytest.raises(BtfError, match="bad access string"):
            value(local, local, access, K.ENUMVAL_EXISTS)


@pytest.mark.parametrize(
    ("access", "kind"),
    [
        ("", 0),
        (":", 0),
        ("0:", 0),
        ("0:x", 0),
        ("0:9", 0),
        ("0:-1", 0),
        ("1", 8),
        ("0:0:0", 0),
        ("0" + ":0" * 64, 0),
        ("99999999999", 0),
    ],
)
def test_bad_access_strings(access: str, kind: int) -> None:
    """Each is an error, none a poisoned instruction."""
    with pytest.raises(BtfError):
        value(local_struct, local_struct, access, K(kind))


def patched(insns: list[Insn], relo: CoreRelo, target: Builder, local: Builder = local_struct) -> list[Insn]:
    """The instructions after one relocation."""
    return apply_core_relos(insns, [relo], Base.btf(local), Base.btf(target))


def shifted(type_id: int = 1, offset: int = 64) -> Builder:
    """struct s { ...; <type> b at offset; }."""
    return lambda w: w.add_struct("s", 64, [("b", type_id, offset)])


B_OFFSET = CoreRelo(0, FIRST, "0:1", K.FIELD_BYTE_OFFSET)
LDX_W = Insn(0x61, 0, 1, 4, 0)
MOV = Insn(0xB7, 1, 0, 0, 4)
POISON = Insn(0x85, 0, 0, 0, BPF_CORE_POISON)


def test_loads_stores_and_immediates_are_patched() -> None:
    """The offset of LDX, ST, STX; the immediate of ALU; both halves of ld_imm64."""
    assert patched([LDX_W], B_OFFSET, shifted()) == [LDX_W._replace(off=8)]
    assert patched([Insn(0x63, 1, 2, 4, 0)], B_OFFSET, shifted()) == [Insn(0x63, 1, 2, 8, 0)]
    assert patched([Insn(0x62, 1, 0, 4, 9)], B_OFFSET, shifted()) == [Insn(0x62, 1, 0, 8, 9)]
    assert patched([MOV], B_OFFSET, shifted()) == [MOV._replace(imm=8)]
    big = enum_builder(("A", 5 << 32 | 0xFFFFFFFE), size=8)
    relo = CoreRelo(0, FIRST, "0", K.ENUMVAL_VALUE)
    before = [Insn(0x18, 2, 0, 0, 1), Insn(0, 0, 0, 0, 0)]
    assert patched(before, relo, big, enum_builder(("A", 1))) == [Insn(0x18, 2, 0, 0, -2), Insn(0, 0, 0, 0, 5)]


def test_a_missing_field_poisons_the_instruction() -> None:
    """The call of a helper that does not exist, as libbpf writes it; both slots of an ld_imm64."""
    empty: Builder = lambda w: w.add_struct("s", 8, [])  # noqa: E731

    assert BPF_CORE_POISON == 0xBAD2310
    assert patched([LDX_W], B_OFFSET, empty) == [POISON]
    before = [Insn(0x18, 2, 0, 0, 4), Insn(0, 0, 0, 0, 0)]
    assert patched(before, B_OFFSET, empty) == [POISON, POISON]


def test_the_width_of_a_load_follows_an_unsigned_integer_or_pointer() -> None:
    """u32 to u64 changes the opcode; a signed field poisons a load and leaves an immediate alone."""

    def local(type_id: int) -> Builder:
        return lambda w: w.add_struct("s", 64, [("a", Base.INT, 0), ("b", type_id, 32)])

    assert patched([LDX_W], B_OFFSET, shifted(Base.U64), local(Base.U32)) == [Insn(0x79, 0, 1, 8, 0)]
    assert patched([LDX_W], B_OFFSET, shifted(Base.U64), local(Base.INT)) == [POISON]
    assert patched([LDX_W], B_OFFSET, shifted(Base.S64), local(Base.U32)) == [POISON]
    assert patched([MOV], B_OFFSET, shifted(Base.U64), local(Base.INT)) == [MOV._replace(imm=8)]
    with pytest.raises(BtfError, match="accesses 1 bytes, expected 4"):
        patched([Insn(0x71, 0, 1, 4, 0)], B_OFFSET, shifted(Base.U64), local(Base.U32))


def test_what_the_compiler_meant_is_checked() -> None:
    """An instruction that holds another value than the relocation says is not touched."""
    for insn in (LDX_W._replace(off=6), MOV._replace(imm=5)):
        with pytest.raises(BtfError, match="the compiler meant 4"):
            patched([insn], B_OFFSET, shifted())
    with pytest.raises(BtfError, match="the compiler meant 4"):
        patched([Insn(0x18, 2, 0, 0, 5), Insn(0, 0, 0, 0, 0)], B_OFFSET, shifted())


@pytest.mark.parametrize(
    ("insns", "message"),
    [
        ([Insn(0x95, 0, 0, 0, 0)], "cannot be relocated"),
        ([Insn(0xBF, 1, 2, 0, 4)], "has no immediate"),
        ([Insn(0x18, 1, 0, 0, 4)], "malformed ld_imm64"),
        ([Insn(0x18, 1, 1, 0, 4), Insn(0, 0, 0, 0, 0)], "malformed ld_imm64"),
        ([], "no such instruction"),
    ],
)
def test_instructions_that_cannot_be_patched(insns: list[Insn], message: str) -> None:
    """The message names the relocation, the field and the reason."""
    with pytest.raises(BtfError, match=rf"CO-RE relocation #0 of insn #0 \(FIELD_BYTE_OFFSET struct s.b\): .*{message}"):
        patched(insns, B_OFFSET, shifted())


def test_offsets_beyond_the_instruction() -> None:
    """An offset has 15 bits."""

    def far(w: BtfWriter) -> None:
        w.add_struct("s", 1 << 17, [("b", Base.INT, 8 << 16)])

    with pytest.raises(BtfError, match="65536 does not fit"):
        patched([LDX_W], B_OFFSET, far)
    assert patched([MOV], B_OFFSET, far) == [MOV._replace(imm=1 << 16)]


def test_unknown_kinds() -> None:
    """A relocation of the future."""
    with pytest.raises(BtfError, match="unknown relocation kind 13"):
        patched([MOV], CoreRelo(0, FIRST, "0", 13), shifted())
