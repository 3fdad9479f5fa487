"""The vocabulary of the `*_native.py` modules: raw memory, unsigned arithmetic, calls by address.

Every value is an int64: an address, a number, a flag. Nothing here can raise, so that the compiled functions need
neither Python nor an error path. `native` registers a function for the library; its parameter named `env` is the
pointer to the running CPU's ENV record.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrtp.native import SMP
from fastrtp.native.ir_pipeline import IrCompiler
from fastrtp.native.record import Record
from fastrtp.native.record_numba import parameter_type, pointer_type

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_PTR = ir.IntType(8).as_pointer()
_i8 = types.int64

_intrinsic: Callable[[Any], Any] = intrinsic  # numba's own type says that an intrinsic cannot be called
_njit: Any = numba.njit

F = TypeVar("F", bound=Callable[..., Any])
Unary = Callable[[int], int]
Binary = Callable[[int, int], int]
Predicate = Callable[[int, int], bool]


@dataclass(frozen=True)
class NativeFunction:
    """One exported function: all parameters and the result are int64 to its callers. `inline` keeps its bitcode for programs."""

    name: str
    function: Any
    parameters: tuple[str, ...]
    inline: bool

    @property
    def types(self) -> tuple[Any, ...]:
        """numba's types of the parameters: to the caller all are i64."""
        return parameter_types(self.function.py_func)


REGISTRY: dict[str, NativeFunction] = {}


def native(*, inline: bool = False) -> Callable[[F], F]:
    """Register a function for the native library and give its njit form, for use by its neighbours.

    `inline`: the body is also linked into the programs that call it, so that constants fold into it.
    """

    def register(function: F) -> F:
        name = function.__name__
        if name in REGISTRY:
            raise ValueError(f"native function {name} is defined twice")
        parameters = inspect.signature(function).parameters
        if all(parameter.annotation in ("int", inspect.Parameter.empty) for parameter in parameters.values()):
            compiled: F = _njit(**_OPTIONS)(function)  # compiled only where a neighbour calls it
        else:
            compiled = device(function)
        REGISTRY[name] = NativeFunction(name, compiled, tuple(parameters), inline)
        return compiled

    return register


_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False, "_nrt": False, "pipeline_class": IrCompiler}


def parameter_types(function: Any) -> tuple[Any, ...]:
    """numba's types of a native function's parameters. TypeError for an annotation that has none.

    The records that its body names are made known to numba, too.
    """
    for name in function.__code__.co_names:
        named = function.__globals__.get(name)
        if isinstance(named, type) and issubclass(named, Record):
            pointer_type(named)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        try:
            found.append(parameter_type(parameter.annotation, function.__globals__))
        except KeyError:
            raise TypeError(f"{function.__qualname__}: {parameter} is no parameter of a native function") from None
    return tuple(found)


def device(function: F) -> F:
    """A function that only other native functions call, defined above them; its parameters are int, bool, or records.

    The signature is given, or numba would compile the function anew for every literal that a caller passes.
    """
    compiled: F = _njit(parameter_types(function), **_OPTIONS)(function)
    return compiled


FIRES: list[Any] = []
"""Intrinsics that call the probes of a tracepoint."""
OUTLINED: list[tuple[Any, str]] = []
"""Intrinsics that call a registered function by name."""


ALWAYS_INLINE: set[str] = set()
"""Names of the device functions that LLVM must put into every caller."""


def device_inline(function: F) -> F:
    """A device function on the path of every event: never a call."""
    ALWAYS_INLINE.add(function.__name__)
    return device(function)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _PTR)


def _loader(bits: int) -> Any:
    def typed(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            item = ir.IntType(bits)
            value = builder.load(builder.inttoptr(args[0], item.as_pointer()), align=1)
            if bits == 64:
                return value
            return builder.zext(value, _I64)

        return _i8(_i8), codegen

    return _intrinsic(typed)


def _storer(bits: int) -> Any:
    def typed(typingctx: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            item = ir.IntType(bits)
            value = args[1] if bits == 64 else builder.trunc(args[1], item)
            builder.store(value, builder.inttoptr(args[0], item.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(_i8, _i8), codegen

    return _intrinsic(typed)


load8: Unary = _loader(8)
load16: Unary = _loader(16)
load32: Unary = _loader(32)
load64: Unary = _loader(64)
store8: Callable[[int, int], None] = _storer(8)
store16: Callable[[int, int], None] = _storer(16)
store32: Callable[[int, int], None] = _storer(32)
store64: Callable[[int, int], None] = _storer(64)


def _binary(emit: Callable[[Any, Any, Any], Any]) -> Any:
    def typed(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(builder, args[0], args[1])

        return _i8(_i8, _i8), codegen

    return _intrinsic(typed)


def _predicate(name: str) -> Any:
    def typed(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.icmp_unsigned(name, args[0], args[1])

        return types.boolean(_i8, _i8), codegen

    return _intrinsic(typed)


def _mix(builder: Any, a: Any, b: Any) -> Any:
    wide = ir.IntType(128)
    product = builder.mul(builder.zext(a, wide), builder.zext(b, wide))
    return builder.xor(builder.trunc(product, _I64), builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _I64))


lshr: Binary = _binary(lambda builder, a, b: builder.lshr(a, b))
udiv: Binary = _binary(lambda builder, a, b: builder.udiv(a, b))
urem: Binary = _binary(lambda builder, a, b: builder.urem(a, b))
mix: Binary = _binary(_mix)
"""The two halves of the 128-bit product of two unsigned numbers, xored: one multiplication in which every bit counts."""
ult: Predicate = _predicate("<")
ule: Predicate = _predicate("<=")


@_intrinsic
def _nonnull(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.assume")
        builder.call(function, [builder.icmp_unsigned("!=", args[0], ir.Constant(_I64, 0))])
        return args[0]

    return _i8(_i8), codegen


nonnull: Unary = _nonnull
"""The address, promised not to be 0: what a lookup found, so that a program's own null check is the lookup's condition."""


@_intrinsic
def _opaque(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.asm(ir.FunctionType(_I64, [_I64]), "", "=r,0", [args[0]], True)

    return _i8(_i8), codegen


opaque: Unary = _opaque
"""The same value, of which the compiler knows nothing any more, nor where it comes from."""


@_intrinsic
def _memcpy(typingctx: Any, dst: Any, src: Any, size: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.memcpy", [_PTR, _PTR, _I64])
        builder.call(function, [_pointer(builder, args[0]), _pointer(builder, args[1]), args[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(_i8, _i8, _i8), codegen


memcpy: Callable[[int, int, int], None] = _memcpy
"""Copy `size` bytes between areas that do not overlap."""


@_intrinsic
def _memset(typingctx: Any, dst: Any, value: Any, size: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.memset", [_PTR, _I64])
        byte = builder.trunc(args[1], ir.IntType(8))
        builder.call(function, [_pointer(builder, args[0]), byte, args[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(_i8, _i8, _i8), codegen


memset: Callable[[int, int, int], None] = _memset
"""Set `size` bytes to the low byte of `value`."""


@_intrinsic
def _stack_bytes(typingctx: Any, size: Any) -> Any:
    if not isinstance(size, types.IntegerLiteral):
        return None
    count = size.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.goto_entry_block():
            area = builder.alloca(ir.ArrayType(ir.IntType(8), count))
            area.align = 16
        return builder.ptrtoint(area, _I64)

    return _i8(size), codegen


stack_bytes: Unary = _stack_bytes
"""Address of `size` (a literal) bytes of this function's stack frame, 16-aligned, not initialised."""


def _cmpxchg(bits: int) -> Any:
    kind = ir.IntType(bits)

    def typed(typingctx: Any, address: Any, expected: Any, desired: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], kind.as_pointer())
            narrow = [value if bits == 64 else builder.trunc(value, kind) for value in args[1:]]
            pair = builder.cmpxchg(pointer, *narrow, "acq_rel", "acquire")
            old = builder.extract_value(pair, 0)
            return old if bits == 64 else builder.zext(old, _I64)

        return _i8(_i8, _i8, _i8), codegen

    return _intrinsic(typed)


cmpxchg64: Callable[[int, int, int], int] = _cmpxchg(64)
"""Atomic compare and exchange; gives what was there."""
cmpxchg32: Callable[[int, int, int], int] = _cmpxchg(32)
"""The same of four bytes."""


@_intrinsic
def _fetch_add64(typingctx: Any, address: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _I64.as_pointer()), args[1], "acq_rel")

    return _i8(_i8, _i8), codegen


fetch_add64: Binary = _fetch_add64
"""Atomic addition; gives what was there."""


def _atomic_storer(bits: int, order: str) -> Any:
    kind = ir.IntType(bits)

    def typed(typingctx: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = args[1] if bits == 64 else builder.trunc(args[1], kind)
            builder.store_atomic(value, builder.inttoptr(args[0], kind.as_pointer()), order, bits // 8)
            return context.get_dummy_value()

        return types.void(_i8, _i8), codegen

    return _intrinsic(typed)


store_release: Callable[[int, int], None] = _atomic_storer(64, "release")
"""Store that publishes everything written before it."""
store_release32: Callable[[int, int], None] = _atomic_storer(32, "release")
"""The same of four bytes."""
store_relaxed: Callable[[int, int], None] = _atomic_storer(64, "monotonic")
"""Store of eight aligned bytes that nobody sees half of; it orders nothing."""


def _atomic_loader(bits: int) -> Any:
    kind = ir.IntType(bits)

    def typed(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load_atomic(builder.inttoptr(args[0], kind.as_pointer()), "acquire", bits // 8)
            return value if bits == 64 else builder.zext(value, _I64)

        return _i8(_i8), codegen

    return _intrinsic(typed)


load_acquire: Unary = _atomic_loader(64)
"""Load that sees everything written before the store_release it reads from; never hoisted out of a loop."""
load_acquire32: Unary = _atomic_loader(32)
"""The same of four bytes."""

llvm.add_symbol(SMP, 1)  # numba wants an address when it compiles; the library defines the real one


@_intrinsic
def _smp(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        module = builder.module
        flag = module.globals.get(SMP) or ir.GlobalVariable(module, _I64, SMP)
        return builder.load(flag)

    return _i8(), codegen


smp: Callable[[], int] = _smp
"""Whether other CPUs may run programs at this moment: 0 where one thread at a time does. Not 0 is right in any case."""

_X86 = platform.machine() in ("x86_64", "AMD64")


@_intrinsic
def _cpu_relax(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = "llvm.x86.sse2.pause"
        if _X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


cpu_relax: Callable[[], None] = _cpu_relax
"""What a loop that waits for another CPU does between two looks: an instruction for that, where the processor has one."""


def _caller(integers: int, pointers: int) -> Any:
    """Call by address: `integers` i64 arguments, then `pointers` ptr arguments, i64 result."""
    arity = integers + pointers

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64] * integers + [_PTR] * pointers)
        values = [*args[1 : 1 + integers], *(_pointer(builder, value) for value in args[1 + integers :])]
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), values)

    names = ", ".join(f"a{index}" for index in range(arity))
    scope: dict[str, Any] = {"answer": (_i8(*[_i8] * (arity + 1)), codegen)}
    exec(f"def typed(typingctx, address, {names}):\n    return answer", scope)
    return _intrinsic(scope["typed"])


call_prog: Callable[[int, int, int], int] = _caller(0, 2)
"""call_prog(entry, ctx, env): u64 prog(u64 *ctx, Env *env)."""
call_subprog: Callable[[int, int, int, int, int, int, int], int] = _caller(5, 1)
"""call_subprog(function, r1..r5, env): a callback, with the ABI of a bpf-to-bpf call."""
call_trace: Callable[[int, int, int, int], int] = _caller(2, 1)
"""call_trace(function, tracepoint, args, env): fire one tracepoint from u64 args[]."""
call_materialize: Callable[[int, int, int, int], int] = _caller(1, 2)
"""call_materialize(function, row, args, sources): build one recorded event's arguments."""
call_loop: Callable[[int, int, int], int] = _caller(2, 0)
"""call_loop(function, state, limit): fused_run or replay_run by address."""
call_fire: Callable[[int, int, int, int, int, int], int] = _caller(5, 0)
"""call_fire(function, machine, tracepoint, trace_call, args, cpu): trace_fire by address."""


def call_probe(arity: int) -> Any:
    """Caller of __bpf_trace_<class>(data, a1..aN, env)."""
    caller = _caller(arity + 1, 1)
    FIRES.append(caller)
    return caller


FIRES.append(call_trace)


def _external(name: str, result_bits: int, parameters: list[Any]) -> Any:
    """A function over integers and pointers that is called by name: the C library's, or one of our own that stays a call."""
    arity = len(parameters)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(result_bits), parameters)
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        values = []
        for value, parameter in zip(args, parameters, strict=True):
            if isinstance(parameter, ir.PointerType):
                values.append(builder.inttoptr(value, parameter))
            else:
                values.append(value if parameter.width == 64 else builder.trunc(value, parameter))
        result = builder.call(function, values)
        return result if result_bits == 64 else builder.sext(result, _I64)

    names = "".join(f", a{index}" for index in range(arity))
    scope: dict[str, Any] = {"answer": (_i8(*[_i8] * arity), codegen)}
    exec(f"def typed(typingctx{names}):\n    return answer", scope)
    return _intrinsic(scope["typed"])


def outline(name: str, arity: int) -> Callable[..., int]:
    """Caller of a registered native function that must stay out of line: its slow paths do not bloat the programs."""
    llvm.add_symbol(name, 1)  # numba wants an address when it compiles; the library binds the real one
    caller: Callable[..., int] = _external(name, 64, [_I64] * (arity - 1) + [_PTR])
    OUTLINED.append((caller, name))
    return caller


clock_gettime: Binary = _external("clock_gettime", 32, [_I32, _PTR])
pthread_self: Callable[[], int] = _external("pthread_self", 64, [])
sched_yield: Callable[[], int] = _external("sched_yield", 32, [])
malloc: Unary = _external("malloc", 64, [_I64])
free: Unary = _external("free", 64, [_I64])
EXTERNALS = frozenset(
    {"clock_gettime", "pthread_self", "sched_yield", "malloc", "free", "memcpy", "memset", "memmove", "memcmp", "bcmp"}
)
"""Everything that the finished library may ask of the process."""
