"""BTF that BPF_BTF_LOAD refuses: loops, depth, members and references of the wrong kind, in the kernel's words and errno."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from fastrtp import Kernel
from fastrtp.btf import Btf, BtfKind
from fastrtp.btf.write import BtfWriter
from fastrtp.errors import BpfError, BtfError

Build = Callable[[BtfWriter], object]


def _chain(w: BtfWriter, length: int) -> None:
    w.add_int("int", 4, 1)
    for i in range(length):
        w.add(BtfKind.CONST, "", i + 3 if i < length - 1 else 1)


def _array(w: BtfWriter, *arrays: tuple[int, int]) -> None:
    w.add_int("int", 4, 1)
    for element, index in arrays:
        w.add_array(element, 1, index)


def _struct(w: BtfWriter, size: int, *members: tuple[str, int, int]) -> None:
    w.add_int("int", 4, 1)
    w.add_struct("s", size, members)


def _func(w: BtfWriter, kind: BtfKind) -> None:
    w.add_func_proto(0, [])
    w.add(BtfKind.FUNC, "f", 1)
    w.add(kind, "x", 2, extra=[0] if kind == BtfKind.VAR else [])


def _section(w: BtfWriter, offset: int, size: int, target: int = 2) -> None:
    w.add_int("int", 4, 1)
    w.add(BtfKind.VAR, "v", 1, extra=[1])
    w.add(BtfKind.DATASEC, ".data", 4, vlen=1, extra=[target, offset, size])


LOOPS: tuple[tuple[Build, str], ...] = (
    (lambda w: w.add_struct("s", 4, [("a", 1, 0)]), "[1] STRUCT s size=4 vlen=1"),
    (lambda w: (w.add_struct("s", 4, [("a", 2, 0)]), w.add(BtfKind.TYPEDEF, "t", 1)), "[1] STRUCT s size=4 vlen=1"),
    (lambda w: w.add(BtfKind.TYPEDEF, "t", 1), "[1] TYPEDEF t type_id=1"),
    (lambda w: (w.add(BtfKind.CONST, "", 2), w.add(BtfKind.VOLATILE, "", 1)), "[1] CONST (anon) type_id=2"),
    (lambda w: (w.add_pointer(2), w.add(BtfKind.TYPEDEF, "t", 1)), "[1] PTR (anon) type_id=2"),
    (lambda w: _array(w, (2, 1)), "[2] ARRAY (anon) type_id=2 index_type_id=1 nr_elems=1"),
    (lambda w: _array(w, (1, 2)), "[2] ARRAY (anon) type_id=1 index_type_id=2 nr_elems=1"),
)
REFUSED: tuple[tuple[Build, str], ...] = (
    (lambda w: _struct(w, 4, ("a", 0, 0)), "\ta type_id=0 bits_offset=0 Invalid type_id"),
    (lambda w: _struct(w, 4, ("a", 9, 0)), "\ta type_id=9 bits_offset=0 Invalid member"),
    (lambda w: _struct(w, 2, ("a", 1, 0)), "\ta type_id=1 bits_offset=0 Member exceeds struct_size"),
    (lambda w: _struct(w, 8, ("a", 1, 32), ("b", 1, 0)), "\tb type_id=1 bits_offset=0 Invalid member bits_offset"),
    (lambda w: _array(w, (0, 1)), "[2] ARRAY (anon) type_id=0 index_type_id=1 nr_elems=1 Invalid elem"),
    (lambda w: (w.add_int("int", 4, 1), w.add_array(1, 1 << 30, 1)), "Array size overflows U32_MAX"),
    (lambda w: _func(w, BtfKind.VAR), "[3] VAR x type_id=2 linkage=0 Invalid type_id"),
    (lambda w: (w.add_int("int", 4, 1), w.add(BtfKind.FUNC, "f", 1)), "[2] FUNC f type_id=1 Invalid type_id"),
    (lambda w: (w.add_int("int", 4, 1), w.add(BtfKind.TYPEDEF, "", 1)), "[2] TYPEDEF (anon) type_id=1 Invalid name"),
    (lambda w: w.add_func_proto(1, []), "[1] FUNC_PROTO (anon) return=1 args=(void) Invalid return type"),
    (lambda w: _section(w, 4, 4), "\t type_id=2 offset=4 size=4 Invalid offset"),
    (lambda w: _section(w, 0, 2), "\t type_id=2 offset=0 size=2 Invalid size"),
    (lambda w: _section(w, 0, 4, 1), "\t type_id=1 offset=0 size=4 Not a VAR kind member"),
    (lambda w: (_struct(w, 4), w.add(BtfKind.DECL_TAG, "t", 2, extra=[0])), "component_idx=0 Invalid component_idx"),
)
FINE: tuple[Build, ...] = (
    lambda w: (w.add_struct("s", 8, [("a", 2, 0)]), w.add_pointer(1)),
    lambda w: (w.add_int("int", 4, 1), w.add_struct("s", 8, [("a", 3, 0)]), w.add_array(4, 1, 1), w.add_pointer(2)),
    lambda w: _func(w, BtfKind.TYPEDEF),
    lambda w: _chain(w, 32),
    lambda w: _section(w, 0, 4),
)


def _error(build: Build) -> BtfError | None:
    w = BtfWriter()
    build(w)
    try:
        Btf.parse(w.dump()).check()
    except BtfError as error:
        return error
    return None


@pytest.mark.parametrize(("build", "text"), LOOPS, ids=[text for _, text in LOOPS])
def test_a_type_that_contains_itself(build: Build, text: str) -> None:
    """EEXIST, as Linux."""
    error = _error(build)

    assert error is not None
    assert (error.errno, str(error)) == (errno.EEXIST, f"{text} Loop detected")


@pytest.mark.parametrize(("build", "text"), REFUSED, ids=[text.strip() for _, text in REFUSED])
def test_what_does_not_fit(build: Build, text: str) -> None:
    """EINVAL and the kernel's line."""
    error = _error(build)

    assert error is not None
    assert error.errno == errno.EINVAL
    assert str(error).endswith(text)


def test_too_deep() -> None:
    """32 references are followed."""
    error = _error(lambda w: _chain(w, 40))

    assert error is not None
    assert (error.errno, str(error)) == (errno.E2BIG, "[2] CONST (anon) type_id=3 Exceeded max resolving depth:32")


@pytest.mark.parametrize("build", FINE)
def test_what_linux_takes(build: Build) -> None:
    """Pointers end a walk, and so do functions."""
    assert _error(build) is None


def test_btf_load_says_so() -> None:
    """The errno of the syscall."""
    w = BtfWriter()
    w.add_struct("s", 4, [("a", 1, 0)])
    with Kernel() as kernel, pytest.raises(BpfError, match="Loop detected") as caught:
        kernel.btf_load(w.dump())

    assert caught.value.errno == errno.EEXIST
