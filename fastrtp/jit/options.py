"""What the code generator does, idea by idea, so that each can be left out and its worth measured (`bench/ablation.py`).

Results do not depend on any of them. But for `smp`, which a replay by several threads asks for, nothing but measurements
gives another value than the default.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CodeOptions:
    """The ideas.

    `inline`: bodies of helpers and maps become part of the program; else it calls them in the native library.
    `known_maps`: a helper on a map that the verifier knows gets its sizes as constants; else it reads them from the map.
    `bases`: an address is an offset from the context, a map's values or a loaded pointer; else a number, made a pointer.
    `apart`: context, stack, map values and the kernel's objects are said not to overlap; else a store may change any of them.
    `rodata`: read-only data that nobody can change any more is constants; else it is loaded.
    `private_stack`: what no helper sees of the stack is a variable for each slot; else one piece of memory.
    `narrow`: arithmetic of which 32 bits matter is done in 32 bits; else as the bytecode says.
    `whole_slots`: registers go from block to block whole, their lower halves taken by trunc; else loaded from the slot as
    i32 (and nothing is narrow), which makes LLVM carry each register as two halves.
    `host_cpu`: code for this very processor; else for any of its architecture.
    `smp`: atomics are real and maps are locked, as several CPUs at a time need it; else plain, for one.
    """

    inline: bool = True
    known_maps: bool = True
    bases: bool = True
    apart: bool = True
    rodata: bool = True
    private_stack: bool = True
    narrow: bool = True
    whole_slots: bool = True
    host_cpu: bool = True
    smp: bool = False


DEFAULT = CodeOptions()
