"""What the commonest refusals usually mean, and what to write instead: one table, matched against the log's last lines.

A hint is advice: it never changes a verdict or the log. It must not know more than the text and the LoadAttr.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from fastrtp.btf import tracepoints
from fastrtp.verifier.api import LoadAttr

Advice = str | Callable[[LoadAttr, "re.Match[str]"], str]


def prototype(kernel_btf: Any, tracepoint: str) -> str:
    """The arguments of a tracepoint, "" for an unknown one."""
    proto = tracepoints(kernel_btf).get(tracepoint.removeprefix("btf_trace_")) if kernel_btf is not None else None
    if proto is None:
        return ""
    args = ", ".join(f"{kernel_btf.c_type(arg.type_id)} {arg.name}".strip() for arg in proto.args)
    return f"the tracepoint is {proto.name}({args}): {len(proto.args)} arguments, 8 bytes of context each"


def _ctx(attr: LoadAttr, _match: re.Match[str]) -> str:
    """The arguments that there are, where the target is known."""
    if attr.attach is not None and (known := prototype(attr.kernel_btf, attr.attach.name)):
        return known
    return "the context is up to 12 arguments of 8 bytes: read at a multiple of the size, below offset 96, and never write"


CONTEXT_ACCESS = "context access"

HINTS: tuple[tuple[str, str, Advice], ...] = (
    ("null check missing", r"invalid mem access '\w*_or_null'",
     "the pointer may be NULL: compare it with NULL, and leave, before it is used"),
    ("null check missing before arithmetic", r"pointer arithmetic on \S+_or_null prohibited",
     "the pointer may be NULL: compare it with NULL before an index is added"),
    ("nullable argument", r"Possibly NULL pointer passed to|type=\S+_or_null expected",
     "the pointer may be NULL: compare it with NULL before it is passed on"),
    ("scalar dereference", r"invalid mem access 'scalar'",
     "a number, not a pointer that the verifier knows: read kernel memory with BPF_CORE_READ() or bpf_probe_read_kernel()"),
    ("negative index", r"min value is negative",
     "the number may be negative: make it unsigned, or check `>= 0` before it is used"),
    ("unbounded index", r"unbounded memory access|unbounded min value|max value is outside of the allowed memory range",
     "the number has no sufficient upper bound here: compare it with the size, or mask it, right before it is used"),
    ("zero size", r"invalid zero-sized read",
     "the size may be 0: check that it is not"),
    ("beyond the value", r"invalid access to (map value|memory|map key)|min value is outside of the allowed memory range",
     "the access ends behind the memory that the pointer is for: compare offset and size with it"),
    (CONTEXT_ACCESS, r"invalid bpf_context access|doesn't have \d+-th argument", _ctx),
    ("modified context pointer", r"dereference of modified ctx ptr|variable ctx access",
     "the context pointer has to be used as it was given: no arithmetic on it, constant offsets only"),
    ("no return value", r"R0 !read_ok",
     "a value is used, or returned at the end, that no way to here has set: every path has to end in `return`"),
    ("uninitialised register", r"R\d+ !read_ok",
     "the register was not written on this path (a call leaves nothing in R1 to R5)"),
    ("stack at a variable place", r"invalid (unbounded )?variable-offset|variable stack access",
     "the index into the array on the stack has no sufficient bound here: compare it, or mask it, right before it is used"),
    ("uninitialised stack", r"invalid (indirect )?read from stack",
     "these bytes are no data: nobody wrote them on this path, or they are a dynptr or an iterator; what is passed has to be "
     "initialised, its padding too (`= {}`), and as long as the map's key or value"),
    ("too much stack", r"invalid .*stack.* off=|combined stack size|tail_calls are not allowed when call stack",
     "the stack of a function is 512 bytes: keep large buffers in a per-CPU array map"),
    ("lock held", r"while holding a lock|use static function instead|inside bpf_spin_lock-ed|bpf_spin_(un)?lock",
     "between bpf_spin_lock() and bpf_spin_unlock() on the same value, on every path, nothing else is called or locked"),
    ("section left open", r"inside bpf_(rcu|preempt)_\w+-ed region|unmatched (rcu|attempt)|nested rcu",
     "a section that is opened is closed once on every path, in the same program"),
    ("dynptr", r"dynptr",
     "a dynptr is made by one helper, on the stack, used through helpers alone; a ring's is given back on every path"),
    ("iterator", r"iter_\w+ as arg|iterator on stack",
     "an iterator is made, asked and destroyed through its own functions, on every path: use bpf_for()"),
    ("missing submit", r"Unreleased reference|would lead to reference leak",
     "what was reserved or acquired has to be given back on every path: bpf_ringbuf_submit() or bpf_ringbuf_discard()"),
    ("recursion", r"frames is too deep",
     "a function calls itself, or calls go more than eight deep: recursion is not for BPF"),
    ("infinite loop", r"infinite loop detected|back-edge",
     "nothing that decides the loop changes from one round to the next: count it, or use bpf_loop()"),
    ("too complex", r"too large\. Processed|jumps is too complex|too many subprograms|^program has \d+ instructions",
     "too many paths: bound the loop more tightly, or move its body into bpf_loop()'s callback"),
    ("helper of other programs", r"program of this type cannot use helper",
     "programs on raw tracepoints do not have this helper, nor has Linux it for them"),
    ("licence", r"cannot call GPL-restricted function",
     'the helper is for GPL-compatible programs: `char LICENSE[] SEC("license") = "GPL";`'),
    ("poisoned relocation", r"invalid func unknown#195896080",
     "a CO-RE relocation found no such field or type in the kernel's BTF: guard it with bpf_core_field_exists()"),
    ("unknown helper", r"invalid func unknown#",
     "there is no helper of this number: was the program built for a newer kernel?"),
    ("wrong map", r"cannot pass map_type \d+ into func|invalid map_ptr to access",
     "the helper does not work on maps of this type"),
    ("unaligned", r"misaligned .*access",
     "the address has to be a multiple of the size of the access: align the member, or read byte by byte"),
    ("read-only data", r"write into map forbidden|cannot write into rdonly",
     "the memory is read-only for programs (.rodata, a const variable): put the variable into .data or .bss"),
    ("division by zero", r"div by zero",
     "the divisor is the constant 0"),
    ("pointer arithmetic", r"pointer prohibited|operator on pointer|arithmetic prohibited|pointer arithmetic|"
     r"math between|tried to subtract pointer|pointer offset -?\d+ is not allowed|pointer be out of bounds",
     "only adding and subtracting bounded 64-bit numbers is allowed on a pointer: keep index computations in integers"),
    ("no constant format", r"does not point to a readonly map|is not a constant address|not zero-terminated",
     "the text has to be a constant: `static const char fmt[] = ...`, or a literal"),
    ("value that is no constant", r"R\d+ is not a known constant",
     "the verifier has to know this number: make it a compile-time constant"),
    ("a record changed before it is given back", r"must have zero offset when passed to release|unacquired reference|"
     r"must be referenced when passed|reference has not been acquired",
     "what is released is the very pointer that was acquired, unchanged, and only once"),
    ("kernel function", r"calling kernel function \S+ is not allowed|not eliminated in verifier pass|is not a function$",
     "this kernel function is not for programs of this type, or not in this kernel: guard it with bpf_ksym_exists()"),
    ("two kinds of pointer", r"same insn cannot be used with different pointers",
     "one load is reached with pointers of different kinds: use the pointer in each branch by itself"),
    ("stack pointer that leaves its function", r"cannot return stack pointer|cannot spill pointers to stack into",
     "a callee's variables end with it: let the caller pass a pointer to its own"),
    ("tail call in a function", r"tail_call is (only|not) allowed in",
     "where the tail call succeeds the function returns what the other program did: it has to return an int, and to be built "
     "with BTF (-g)"),
    ("callback", r"callback function not|missing btf func_info",
     "a callback is a static function of the program, built with BTF (-g)"),
    ("argument of a global function", r"is not a scalar|expected to be non-NULL|expects pointer to ctx|size cannot be determined|"
     r"unsupported set of tags|combination of tags|doesn't return scalar|At subprogram exit",
     "a global function is verified by its prototype alone: numbers, the context (__arg_ctx), pointers to memory of a known "
     "size, and a number as result; make the function static otherwise"),
    ("expected memory", r"R\d+ type=(\S+) expected=(\S+)",
     lambda _attr, match: f"the helper takes {match[2]} in this argument, it was given {match[1]}"),
    ("bad return of a callback", r"At (async )?callback return the register R0|R0 not a scalar value",
     "a callback returns 0 (go on) or 1 (stop)"),
)  # fmt: skip
"""(mistake, pattern, advice): the first row that fits speaks."""

_LAST = (("argument of a global function", re.compile(r"Caller passes invalid args"),
          "an argument does not fit the function's prototype, which is all that is known of a global function"),)  # fmt: skip
"""For a last line that says less than those before it."""

_COMPILED = tuple((name, re.compile(pattern), advice) for name, pattern, advice in HINTS)


def hint(attr: LoadAttr, lines: Sequence[str]) -> tuple[str, str]:
    """(mistake, advice) for the last line of a log; the lines before it are looked at when it says nothing. ("", "") for none."""
    tables: tuple[tuple[tuple[str, re.Pattern[str], Advice], ...], ...] = (_COMPILED, _LAST)
    for table in tables:
        for line in reversed(lines[-3:]):
            for name, pattern, advice in table:
                match = pattern.search(line)
                if match is not None:
                    return name, advice if isinstance(advice, str) else advice(attr, match)
    return "", ""
