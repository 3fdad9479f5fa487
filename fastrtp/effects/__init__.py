"""Effects: what a verified program does to state that outlives its run, and whether that commutes between CPUs.

Two CPUs' events may be played at the same time, in either order, where no program can tell: their effects commute. Everything
else has to keep the order of all events. Facts come from the program itself, as the verifier left it: `effects_of()` follows
every value that matters (which map a pointer points into, under which key; which CPU's number a key is; which kernel object is
read where) and gives `Effects`; `conflicts()` looks at all programs of a run together, for one may read what another writes.

What is not understood does not commute. The bar is the contents of maps: where only the order in which a hash map lists its
keys could differ, effects commute (today no such program is accepted: insertions into a hash never commute, for whether
there is room left depends on their order).

    values.py     what is known of a register or a stack slot
    flow.py       how instructions change that: the analysis of one program
    rules.py      what each helper and kernel function does: one row each
    calls.py      a call, by its row
    effects.py    the result
    commute.py    the verdict on several programs

Must not know: replays, recordings, threads, file descriptors.
"""

from __future__ import annotations

from fastrtp.effects.commute import Conflict, Member, conflicts
from fastrtp.effects.effects import Access, Effects, KernelRead, Outside, What
from fastrtp.effects.flow import effects_of

__all__ = ["Access", "Conflict", "Effects", "KernelRead", "Member", "Outside", "What", "conflicts", "effects_of"]
