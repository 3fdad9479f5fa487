"""Whether every loop is seen to have an end before any path is followed, so that loops may be pruned wherever Linux prunes them.

Linux ends a path at a call for an iterator's next value, or of a helper that calls back, where it comes round to a state that
is as good, whether it is the same iterator and the same call of the helper or one made anew since; a program that makes them
anew forever is accepted. What cannot happen is that a run goes round forever by means of iterators and helpers of which only
so many are made: each hands out so many values, or calls back so often. Other ways round are not pruned but followed.

So a loop needs a proof only if it makes them anew: iterators, calls of helpers that call back, calls of functions that do
either. It has an end if each way round takes a may_goto, which counts the ways of one call of a function, or asks an iterator
for its next value that is not made in the loop, where NULL leads out of it. What goes round without those is looked at again.

Must not know: states; where nothing is proved the core compares iterators itself (loop_native.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fastrtp.isa import (
    BPF_ADD,
    BPF_ALU64,
    BPF_CALL,
    BPF_EXIT,
    BPF_JA,
    BPF_JCOND,
    BPF_JEQ,
    BPF_JMP,
    BPF_JMP32,
    BPF_JNE,
    BPF_LDX,
    BPF_MOV,
    BPF_PSEUDO_CALL,
    BPF_REG_FP,
    BPF_STX,
    BPF_X,
    Insn,
)
from fastrtp.verifier.domain.records import CALLS_CALLBACK
from fastrtp.verifier.rules.cfg import SYNC_CALLBACK_HELPERS
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.resolve import LD_IMM64

_CALL = BPF_JMP | BPF_CALL
_MOV_X, _ADD_K = BPF_ALU64 | BPF_MOV | BPF_X, BPF_ALU64 | BPF_ADD
_JMP_KINDS = (BPF_JMP, BPF_JMP32)
_CALLER_SAVED = 6
_NOWHERE = None

Places = tuple[int | None, ...]
"""For each register the offset from the frame pointer that it has on every path, None for anything else."""


@dataclass(frozen=True, slots=True)
class _Next:
    """A call for an iterator's next value: the iterator's place in the frame, and where NULL leads (-1: not known)."""

    place: int
    end: int


def every_loop_ends(env: BpfVerifierEnv) -> bool:
    """Whether no run of the program can make iterators, or call helpers that call back, without end."""
    makers = _makers(env)
    scc = env.insn_table["scc"]
    todo = [set(np.flatnonzero(scc == number).tolist()) for number in {int(scc[i]) for i in makers} - {0}]
    if not todo:
        return True
    made, asked, known = _iterators(env)
    while todo:
        for loop in _loops(env.insns, todo.pop()):
            if not loop & makers:
                continue
            places = {made[i] for i in loop if i in made}
            used_up = {i for i in loop if env.insns[i].code == BPF_JMP | BPF_JCOND}
            if known:
                used_up |= {i for i in loop if i in asked and asked[i].place not in places and asked[i].end not in loop | {-1}}
            if not used_up:
                return False
            todo.append(loop - used_up)
    return True


def _makers(env: BpfVerifierEnv) -> set[int]:
    """What makes iterators, or runs of callbacks, or calls a function that does."""
    makers: set[int] = set()
    callers: dict[int, list[int]] = {}
    for i, insn in enumerate(env.insns):
        if insn.code != _CALL:
            continue
        if insn.src_reg == BPF_PSEUDO_CALL:
            callers.setdefault(env.subprog_at[i + insn.imm + 1], []).append(i)
        elif _makes(env, i, insn):
            makers.add(i)
    todo = list(makers)
    while todo:
        calls = callers.pop(env.subprog_of(todo.pop()), [])
        makers |= set(calls)
        todo += calls
    return makers


def _makes(env: BpfVerifierEnv, i: int, insn: Insn) -> bool:
    if insn.src_reg == 0:
        return insn.imm in SYNC_CALLBACK_HELPERS
    return i in env.kfuncs and (env.kfuncs[i].iterator == "new" or bool(env.insn_table["flags"][i] & CALLS_CALLBACK))


def _iterators(env: BpfVerifierEnv) -> tuple[dict[int, int], dict[int, _Next], bool]:
    """Where iterators are made and asked, and their places. The last: whether the place of each one made is known."""
    made: dict[int, int] = {}
    asked: dict[int, _Next] = {}
    known = True
    functions = {env.subprog_of(i) for i, kfunc in env.kfuncs.items() if kfunc.iterator}
    for number in functions:
        subprog = env.subprogs[number]
        places = _places(env.insns, subprog.start, subprog.end)
        for i in range(subprog.start, subprog.end):
            step = env.kfuncs[i].iterator if i in env.kfuncs else ""
            place = places[i][1] if i in places else None
            if step == "new" and i in places:
                known = known and place is not None
                made[i] = place if place is not None else 0
            elif step == "next" and place is not None:
                asked[i] = _Next(place, _end(env.insns, i, subprog.end))
    return made, asked, known


def _places(insns: list[Insn], start: int, end: int) -> Mapping[int, Places]:
    """What is known of the registers before each instruction of a function that can be reached."""
    found: dict[int, Places] = {start: (*[_NOWHERE] * BPF_REG_FP, 0)}
    todo = [start]
    while todo:
        i = todo.pop()
        after = _step(found[i], insns[i])
        for following in _successors(insns, i):
            if not start <= following < end:
                continue
            before = found.get(following)
            joined = after if before is None else tuple(a if a == b else None for a, b in zip(before, after, strict=True))
            if joined != before:
                found[following] = joined
                todo.append(following)
    return found


def _step(places: Places, insn: Insn) -> Places:
    code = insn.code
    kind = code & 7
    regs = list(places)
    if code == _CALL:
        regs[:_CALLER_SAVED] = [None] * _CALLER_SAVED
    elif code == _MOV_X and not insn.off:
        regs[insn.dst_reg] = regs[insn.src_reg]
    elif code == _ADD_K:
        place = regs[insn.dst_reg]
        regs[insn.dst_reg] = None if place is None else place + insn.imm
    elif kind in (BPF_ALU64, 4, BPF_LDX) or code == LD_IMM64:
        regs[insn.dst_reg] = None
    elif code & 0xE0 == 0xC0 and kind == BPF_STX:
        regs[insn.src_reg] = regs[insn.dst_reg] = regs[0] = None  # an atomic operation gives one of them an old value
    regs[BPF_REG_FP] = 0
    return tuple(regs)


def _end(insns: list[Insn], call: int, end: int) -> int:
    """Where control goes when the call gave NULL: found where a comparison of its result with 0 comes before any other jump."""
    same = {0}
    i = call + 1
    for _ in range(end - call):
        if not call < i < end:
            return -1
        insn = insns[i]
        code = insn.code
        kind = code & 7
        if kind in _JMP_KINDS:
            if code == BPF_JMP | BPF_JA:
                i += 1 + insn.off
                continue
            compared = insn.dst_reg in same and not code & BPF_X and not insn.imm and kind == BPF_JMP
            if compared and code & 0xF0 == BPF_JEQ:
                return i + 1 + insn.off
            return i + 1 if compared and code & 0xF0 == BPF_JNE else -1
        if code == _MOV_X and not insn.off and insn.src_reg in same:
            same.add(insn.dst_reg)
        elif kind in (BPF_ALU64, 4, BPF_LDX, 0):
            same.discard(insn.dst_reg)
        elif kind == BPF_STX:
            same -= {insn.src_reg, insn.dst_reg, 0} if code & 0xE0 == 0xC0 else set()
        i += 2 if code == LD_IMM64 else 1
    return -1


def _successors(insns: list[Insn], i: int) -> tuple[int, ...]:
    """Where control goes within a function."""
    insn = insns[i]
    code = insn.code
    op = code & 0xF0
    if code & 7 not in _JMP_KINDS or op == BPF_CALL:
        return (i + (2 if code == LD_IMM64 else 1),)
    if op == BPF_EXIT:
        return ()
    target = i + 1 + (insn.imm if code == BPF_JMP32 | BPF_JA else insn.off)
    return (target,) if op == BPF_JA else (i + 1, target)


def _loops(insns: list[Insn], among: set[int]) -> Iterator[set[int]]:
    """The loops that use no other instructions: strongly connected components. Tarjan's algorithm, without recursion."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    waiting: list[int] = []
    held: set[int] = set()
    for root in among:
        if root in order:
            continue
        path = [(root, iter(_successors(insns, root)))]
        order[root] = low[root] = len(order)
        waiting.append(root)
        held.add(root)
        while path:
            i, rest = path[-1]
            for following in rest:
                if following not in among:
                    continue
                if following not in order:
                    order[following] = low[following] = len(order)
                    waiting.append(following)
                    held.add(following)
                    path.append((following, iter(_successors(insns, following))))
                    break
                if following in held:
                    low[i] = min(low[i], order[following])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[i])
                if low[i] == order[i]:
                    loop = set()
                    while i not in loop:
                        loop.add(waiting.pop())
                    held -= loop
                    if len(loop) > 1 or i in _successors(insns, i):
                        yield loop
