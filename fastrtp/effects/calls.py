"""Calls: of helpers and kernel functions by their rows (rules.py), of the program's own functions by what is known of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.effects.effects import Access, KernelRead, Outside, What
from fastrtp.effects.rules import HELPER_RULES, KFUNC_RULES, UNKNOWN, Do, Rule
from fastrtp.effects.values import (
    ANY_MAP,
    CPU,
    CPU_KEY,
    FROM_KERNEL,
    LOCAL,
    NULL,
    TOP,
    Kind,
    State,
    Value,
)
from fastrtp.helpers.argtype import MEM_RDONLY, MEM_UNINIT, MEM_WRITE, ArgType
from fastrtp.helpers.table import HELPERS, HelperProto
from fastrtp.uapi import BPF_F_CURRENT_CPU, BpfMapType

if TYPE_CHECKING:
    from fastrtp.effects.flow import Flow
    from fastrtp.isa import Insn
    from fastrtp.verifier.api import InsnAux

HASHES = frozenset({BpfMapType.BPF_MAP_TYPE_HASH, BpfMapType.BPF_MAP_TYPE_PERCPU_HASH})
ARRAYS = frozenset({BpfMapType.BPF_MAP_TYPE_ARRAY, BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY})
_OF_MAPS = frozenset({BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS, BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS})
_MEMORY = frozenset({ArgType.ARG_PTR_TO_MEM, ArgType.ARG_PTR_TO_MAP_KEY, ArgType.ARG_PTR_TO_MAP_VALUE})
_SIZES = frozenset({ArgType.ARG_CONST_SIZE, ArgType.ARG_CONST_SIZE_OR_ZERO})
_BASE = 0xFF
_ITERATOR = 8
_DYNPTR = 16
_WORDS = (1, 2, 4, 8)
_LAST_FLAG = 2
"""BPF_EXIST: above it are flags that change what an update does."""


class Calls:
    """The calls of one analysis."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def function(self, index: int, target: int, state: State) -> bool:
        """A function of the program; False as long as nobody is known to come back from it."""
        regs = state.regs
        self._flow.call(index, target, regs[1:6])
        if any(value.kind in (Kind.STACK, Kind.TOP) for value in regs[1:6]):
            state.store(None, None)  # it may write to the frame
        known = self._flow.results.get(target)
        _after(state, TOP if known is None else known)
        return known is not None

    def outside(self, index: int, insn: Insn, aux: InsnAux, state: State) -> None:
        """A helper or a kernel function."""
        if insn.src_reg != 0:
            self._kfunc(index, aux, state)
            return
        proto = HELPERS.get(insn.imm)
        rule = UNKNOWN if proto is None else HELPER_RULES.get(proto.name, UNKNOWN)
        map_value = self._map_argument(proto, aux, state)
        result = self._do(index, rule, map_value, aux, state)
        if proto is not None:
            self._memory(index, proto, rule, map_value, state)
        if rule.do is Do.PROBE:
            self._probe(index, state)
        _after(state, result)

    def _kfunc(self, index: int, aux: InsnAux, state: State) -> None:
        rule = KFUNC_RULES.get(aux.kfunc)
        if rule is None:
            self._flow.note(Outside(index, f"calls {aux.kfunc or 'a kernel function'}, which works on objects that CPUs share"))
            state.store(None, None)
        for value in state.regs[1:6]:
            if value.kind is Kind.STACK:
                state.store(value.off, _ITERATOR)
        _after(state, TOP if rule is None else rule.result)

    def _map_argument(self, proto: HelperProto | None, aux: InsnAux, state: State) -> Value:
        """The map that the helper works on; MAP of ANY_MAP where that is not known."""
        for number, kind in enumerate(proto.args if proto is not None else ()):
            if kind & _BASE == ArgType.ARG_CONST_MAP_PTR:
                value = state.regs[number + 1]
                if value.kind is Kind.MAP:
                    return value
        return Value(Kind.MAP, map=ANY_MAP if aux.map is None else aux.map)

    def _do(self, index: int, rule: Rule, target: Value, aux: InsnAux, state: State) -> Value:
        """What the helper does besides its memory arguments; R0."""
        flow, regs = self._flow, state.regs
        place = None if target.map == ANY_MAP else target.map
        if rule.do in (Do.LOOKUP, Do.PERCPU_LOOKUP, Do.UPDATE, Do.DELETE, Do.ITERATE):
            return self._on_map(index, rule.do, target, aux, state)
        if rule.do is Do.RING:
            flow.note(Access(index, What.OUTPUT, place))
        elif rule.do is Do.PERF:
            here = regs[3].kind is Kind.CONST and regs[3].number == BPF_F_CURRENT_CPU
            flow.note(Access(index, What.OUTPUT, place, own=here and place is not None))
        elif rule.do is Do.STACK:
            flow.note(Access(index, What.STACK, place))
        elif rule.do is Do.DRAIN:
            flow.note(Access(index, What.DRAIN, place))
            self._call_back(index, aux, [TOP, regs[3]], state)
        elif rule.do is Do.TAIL_CALL:
            flow.note_tail_call(index, target.map)
        elif rule.do is Do.MEMBER:
            for member in rule.detail.split():
                flow.note(KernelRead(index, member=member))
        elif rule.do is Do.KERNEL:
            flow.note(KernelRead(index))
        elif rule.do is Do.LOOP:
            self._call_back(index, aux, [TOP, regs[3]], state)
        elif rule.do is Do.OUTSIDE:
            flow.note(Outside(index, rule.detail))
            if aux.callback is not None:
                self._call_back(index, aux, [TOP] * 5, state)
        return rule.result

    def _on_map(self, index: int, do: Do, target: Value, aux: InsnAux, state: State) -> Value:
        flow, place = self._flow, target.map
        if place == ANY_MAP:
            flow.note(Access(index, What.INNER, None))
            if do is Do.ITERATE:
                self._call_back(index, aux, [TOP, LOCAL, Value(Kind.VALUE), state.regs[3]], state)
            return Value(Kind.VALUE)
        found = flow.maps[place]
        if found.map_type in _OF_MAPS:
            flow.note(Access(index, What.INNER, place))
            return Value(Kind.MAP)
        key = self._key(found, state) if do is not Do.ITERATE else None
        if found.map_type in HASHES:
            flow.note(Access(index, _HASH.get(do, What.LOOKUP), place, key=key))
        elif found.map_type not in ARRAYS:
            flow.note(Access(index, What.TOUCH, place))
        elif do is Do.UPDATE:
            plain = state.regs[4].kind is Kind.CONST and state.regs[4].number <= _LAST_FLAG
            flow.note(Access(index, What.WRITE, place, plain and flow.own(place), key))
        if do is Do.PERCPU_LOOKUP:  # of any CPU's value, so that nobody may write to his own
            flow.note(Access(index, What.READ, place))
        value = Value(Kind.VALUE, map=place, key=key)
        if do is Do.ITERATE:
            self._call_back(index, aux, [target, LOCAL, value, state.regs[3]], state)
        return value if do in (Do.LOOKUP, Do.PERCPU_LOOKUP) else TOP

    def _key(self, found: object, state: State) -> int | None:
        """The key behind R2, where it is a number that is known, or that of the CPU."""
        pointer = state.regs[2]
        size = int(getattr(found, "key_size", 0))
        if pointer.kind is not Kind.STACK or pointer.off is None:
            return None
        value = state.load(pointer.off, size)
        if value == CPU:
            return CPU_KEY
        return value.number if value.kind is Kind.CONST else None

    def _call_back(self, index: int, aux: InsnAux, args: list[Value], state: State) -> None:
        if aux.callback is None or aux.callback_ambiguous:
            self._flow.note(Outside(index, "calls back a function that is not known"))
        else:
            self._flow.call(index, aux.callback, args)
        state.store(None, None)

    def _memory(self, index: int, proto: HelperProto, rule: Rule, target: Value, state: State) -> None:
        """What the helper reads and writes through its arguments."""
        for number, kind in enumerate(proto.args):
            base, value = kind & _BASE, state.regs[number + 1]
            if base == ArgType.ARG_PTR_TO_DYNPTR and value.kind is Kind.STACK and kind & MEM_UNINIT:
                state.store(value.off, _DYNPTR)
            if base not in _MEMORY or value == NULL:
                continue
            writes = kind & (MEM_WRITE | MEM_UNINIT) != 0 and not kind & MEM_RDONLY
            if rule.do is Do.MEMORY_DYNPTR:
                writes = True
            size = self._size(proto, number, base, target, state)
            if value.kind is Kind.STACK:
                if writes:
                    state.store(value.off, size)
                continue
            if writes:
                self._flow.access(index, value, 0, size, What.WRITE)
                if value.kind is Kind.TOP:
                    state.store(None, None)
            if not writes or rule.do is Do.MEMORY_DYNPTR:
                self._flow.access(index, value, 0, size, What.READ)

    def _size(self, proto: HelperProto, number: int, base: int, target: Value, state: State) -> int | None:
        if base in (ArgType.ARG_PTR_TO_MAP_KEY, ArgType.ARG_PTR_TO_MAP_VALUE):
            if target.map == ANY_MAP:
                return None
            found = self._flow.maps[target.map]
            return int(found.key_size if base == ArgType.ARG_PTR_TO_MAP_KEY else found.value_size)
        if number in proto.arg_size:
            return proto.arg_size[number]
        if number + 1 < len(proto.args) and proto.args[number + 1] & _BASE in _SIZES:
            value = state.regs[number + 2]
            return value.number if value.kind is Kind.CONST else None
        return None

    def _probe(self, index: int, state: State) -> None:
        """bpf_probe_read*(dst, size, unsafe_ptr): what is read, and that what is there now came out of the kernel."""
        target, size, source = state.regs[1], state.regs[2], state.regs[3]
        length = size.number if size.kind is Kind.CONST else None
        if source.kind is Kind.TOP:
            self._flow.note(Access(index, What.READ, None))
            self._flow.note(KernelRead(index))
        elif source.kind not in (Kind.STACK, Kind.OUTER):
            self._flow.access(index, source, 0, length, What.READ)
        if target.kind is Kind.STACK and length in _WORDS:
            state.store(target.off, length, FROM_KERNEL)


_HASH = {Do.UPDATE: What.INSERT, Do.DELETE: What.DELETE}


def _after(state: State, result: Value) -> None:
    """Registers behind a call."""
    state.regs[0] = result
    state.regs[1:6] = [TOP] * 5
