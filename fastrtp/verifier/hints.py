"""What the commonest refusals usually mean, and what to write instead: one table, matched against the log's last lines.

A hint is advice: it never changes a verdict or the log. It must not know more than the text and the LoadAttr.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from fastrtp.btf import tracepoints
from fastrtp.verifier.api import LoadAttr

Advice = str | Callable[[LoadAttr, "re.Match[str]"], str]


def _ctx(attr: LoadAttr, _match: re.Match[str]) -> str:
    """The arguments that there are, where the target is known."""
    if attr.attach is not None and attr.kernel_btf is not None:
        proto = tracepoints(attr.kernel_btf).get(attr.attach.name.removeprefix("btf_trace_"))
        if proto is not None:
            kernel = attr.kernel_btf
            args = ", ".join(f"{kernel.c_type(arg.type_id)} {arg.name}".strip() for arg in proto.args)
            return f"the tracepoint is {proto.name}({args}): {len(proto.args)} arguments, 8 bytes of context each"
    return "the context is up to 12 arguments of 8 bytes: read at a multiple of the size, below offset 96, and never write"


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
    ("context access", r"invalid bpf_context access|doesn't have \d+-th argument", _ctx),
    ("modified context pointer", r"dereference of modified ctx ptr|variable ctx access",
     "the context pointer has to be used as it was given: no arithmetic on it, constant offsets only"),
    ("uninitialised register", r"R\d+ !read_ok",
     "the register was not written on this path (a call leaves nothing in R1 to R5; every way to the end has to set R0)"),
    ("uninitialised stack", r"invalid (indirect )?read from stack off",
     "not all of these bytes were written on this path: initialise the variable, its padding too (`= {}`)"),
    ("too much stack", r"invalid .*stack.* off=|combined stack size",
     "the stack of a function is 512 bytes: keep large buffers in a per-CPU array map"),
    ("missing submit", r"Unreleased reference|would lead to reference leak",
     "what was reserved or acquired has to be given back on every path: bpf_ringbuf_submit() or bpf_ringbuf_discard()"),
    ("infinite loop", r"infinite loop detected|back-edge",
     "nothing that decides the loop changes from one round to the next: count it, or use bpf_loop()"),
    ("too complex", r"too large\. Processed|jumps is too complex",
     "too many paths: bound the loop more tightly, or move its body into bpf_loop()'s callback"),
    ("helper of other programs", r"program of this type cannot use helper",
     "programs on raw tracepoints do not have this helper, nor has Linux it for them"),
    ("licence", r"cannot call GPL-restricted function",
     'the helper is for GPL-compatible programs: `char LICENSE[] SEC("license") = "GPL";`'),
    ("not implemented", r"is not implemented yet", "Linux has this helper, fastrtp does not have it yet"),
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
    ("pointer arithmetic", r"pointer prohibited|operator on pointer|arithmetic prohibited|pointer arithmetic",
     "only adding and subtracting bounded 64-bit numbers is allowed on a pointer: keep index computations in integers"),
    ("expected memory", r"R\d+ type=(\S+) expected=(\S+)",
     lambda _attr, match: f"the helper takes {match[2]} in this argument, it was given {match[1]}"),
    ("bad return of a callback", r"At callback return the register R0",
     "a callback returns 0 (go on) or 1 (stop)"),
)  # fmt: skip
"""(mistake, pattern, advice): the first row that fits speaks."""

_COMPILED = tuple((name, re.compile(pattern), advice) for name, pattern, advice in HINTS)


def hint(attr: LoadAttr, lines: Sequence[str]) -> tuple[str, str]:
    """(mistake, advice) for the last line of a log; the lines before it are looked at when it says nothing. ("", "") for none."""
    for line in reversed(lines[-3:]):
        for name, pattern, advice in _COMPILED:
            match = pattern.search(line)
            if match is not None:
                return name, advice if isinstance(advice, str) else advice(attr, match)
    return "", ""
