"""Live tracepoints: structs by value, and arguments that do not fit, from Python and from compiled code."""

from __future__ import annotations

import ctypes
import struct

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel


def storing(kernel: Kernel, name: str, args: int) -> int:
    """An array into which an attached program stores its arguments."""
    array = kernel.map_create(2, 4, 8 * args, 1)
    lines = [f"r7 = *(u64 *)(r1 +{8 * n})\n*(u64 *)(r10 -{8 * (args - n)}) = r7" for n in range(args)]
    lines += ["*(u32 *)(r10 -112) = 0", f"r1 = map[fd:{array}]", "r2 = r10", "r2 += -112", "r3 = r10", f"r3 += -{8 * args}",
              "r4 = 0", "call bpf_map_update_elem", "r0 = 0", "exit"]  # fmt: skip
    kernel.raw_tracepoint_open(name, kernel.prog_load(17, encode(assemble("\n".join(lines)))))
    return array


def seen(kernel: Kernel, array: int, args: int) -> tuple[int, ...]:
    return struct.unpack(f"<{args}Q", kernel.map_lookup_elem(array, bytes(4)))


def struct_of(kernel: Kernel, size: int) -> str:
    """C name of some struct of the kernel that has so many bytes."""
    from fastrtp.btf import BtfKind

    fitting = (t for t in kernel.btf if t.kind == BtfKind.STRUCT and t.size == size and t.name)
    return f"struct {next(t.name for t in fitting if kernel.btf.find(t.name) == t.id)}"


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_structs_by_value_of_every_size(kernel: Kernel, size: int):
    kernel.trace_event("by_value", f"{struct_of(kernel, size)} s, int a")
    array = storing(kernel, "by_value", 2)
    trace = kernel.trace("by_value")
    data = bytes(range(0xF1, 0xF1 + size))
    number = int.from_bytes(data, "little")
    record = type("Record", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_uint8 * size)]})

    for value in (data, record.from_buffer_copy(data), np.frombuffer(data, f"V{size}")[0], number):
        trace(value, -1)
        assert seen(kernel, array, 2) == (number, 0xFFFFFFFF)
        trace(0, 0)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_and_from_compiled_code_as_integers(kernel: Kernel, size: int):
    kernel.trace_event("by_value", f"{struct_of(kernel, size)} s, int a")
    array = storing(kernel, "by_value", 2)
    trace = kernel.trace("by_value").njit

    @numba.njit
    def fire(value: int) -> None:
        trace(value, -1)

    fire(-2)

    assert seen(kernel, array, 2) == ((1 << 8 * size) - 2, 0xFFFFFFFF)


def test_unions_by_value_are_structs_too(kernel: Kernel):
    from fastrtp.btf import BtfKind

    union = next(t for t in kernel.btf if t.kind == BtfKind.UNION and t.size == 8 and t.name)
    kernel.trace_event("by_value", f"union {union.name} u")
    array = storing(kernel, "by_value", 1)

    kernel.trace("by_value")(b"12345678")

    assert seen(kernel, array, 1) == (int.from_bytes(b"12345678", "little"),)


@pytest.mark.parametrize(("args", "message"), [
    ((), "takes 3 arguments, not 0"),
    ((1, 2), "takes 3 arguments, not 2"),
    ((1, 2, 3, 4), "takes 3 arguments, not 4"),
    ((1.5, 2, 3), "argument 1 of trace_event(int a, const char *c, struct hlist_head h) is an integer or an address, not float"),
    (("x", 2, 3), "is an integer or an address, not str"),
    ((1, None, 3), "argument 2 of trace_event"),
    ((1, 2, b"123"), "argument 3 of trace_event(int a, const char *c, struct hlist_head h) is a struct of 8 bytes, not 3"),
    ((1, 2, "123"), "is a struct of 8 bytes, not str"),
])  # fmt: skip
def test_arguments_that_do_not_fit_are_refused_with_the_prototype(kernel: Kernel, args: tuple[object, ...], message: str):
    kernel.trace_event("event", "int a, const char *c, struct hlist_head h")
    storing(kernel, "event", 3)

    with pytest.raises(TypeError) as caught:
        kernel.trace("event")(*args)

    assert "trace_event(int a, const char *c, struct hlist_head h)" in str(caught.value)
    assert message in str(caught.value)


def test_compiled_code_is_refused_with_the_prototype_when_it_is_compiled(kernel: Kernel):
    kernel.trace_event("event", "int a, u64 b")
    trace = kernel.trace("event").njit

    @numba.njit
    def too_few() -> None:
        trace(1)

    @numba.njit
    def wrong_kind() -> None:
        trace(1, 2.5)

    for function, message in ((too_few, "takes 2 arguments, not 1"), (wrong_kind, "argument 2 of")):
        with pytest.raises(TypingError) as caught:
            function()
        assert "trace_event(int a, u64 b)" in str(caught.value)
        assert message in str(caught.value)


def test_integers_are_cut_to_the_arguments_size(kernel: Kernel):
    kernel.trace_event("event", "u8 a, short b, bool c, u64 d")
    array = storing(kernel, "event", 4)

    kernel.trace("event")(0x1FF, 0x12345, 1, 1 << 64 | 5)

    assert seen(kernel, array, 4) == (0xFF, 0x2345, 1, 5)
