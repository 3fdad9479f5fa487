"""Where a program's pointers come from: an abstract run over the verified instructions, for `Reads`.

A register or stack slot holds a set of values: numbers, the context, places on a stack, kernel pointers as the way that leads
to them from an argument or a helper. What is none of these is unknown. Functions are followed once for all their callers;
branches are all taken. Sets are small: what grows beyond that is unknown, and a pointer with many offsets has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fastrtp.btf import Btf
from fastrtp.btf.kfuncs import KFUNCS
from fastrtp.errors import BtfError
from fastrtp.helpers.argtype import MEM_RDONLY, MEM_UNINIT, ArgType
from fastrtp.helpers.table import HELPER_IDS, HELPERS
from fastrtp.isa import Insn
from fastrtp.verifier.reads import Hop, ProgramReads, Read, member_at, pointed_struct

if TYPE_CHECKING:
    from fastrtp.verifier.api import VerifiedProgram

_LIMIT = 400_000
"""Instructions followed before a program counts as too large."""
_MOST_VALUES, _MOST_OFFSETS, _MOST_HOPS = 8, 4, 8
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_BASE = 0xFF


class Number(NamedTuple):
    """A constant."""

    value: int


class Ctx(NamedTuple):
    """The context, `off` bytes in."""

    off: int | None


class Stack(NamedTuple):
    """`off` (below 0) of the frame of the function that begins at instruction `frame`."""

    frame: int
    off: int | None


class Kernel(NamedTuple):
    """A kernel pointer: what it points to, and how it was reached."""

    root: int | str
    type_id: int
    off: int | None
    hops: tuple[Hop, ...]


Value = Number | Ctx | Stack | Kernel | None
"""None: unknown."""
Values = frozenset[Value]
UNKNOWN: Values = frozenset((None,))

_PROBE_KERNEL = frozenset(
    HELPER_IDS[name] for name in ("probe_read", "probe_read_kernel", "probe_read_str", "probe_read_kernel_str")
)
_PROBE_TEXT = frozenset(HELPER_IDS[name] for name in ("probe_read_str", "probe_read_kernel_str"))
_PROBE_USER = frozenset(HELPER_IDS[name] for name in ("probe_read_user", "probe_read_user_str"))
_CURRENT = frozenset(HELPER_IDS[name] for name in ("get_current_task", "get_current_task_btf"))
_TASK_PT_REGS = HELPER_IDS["task_pt_regs"]
_MEMBERS = frozenset(number for number, proto in HELPERS.items() if proto.members and proto.name != "get_socket_cookie")
_CONTEXT = {
    HELPER_IDS[name]: what
    for name, what in {
        "get_current_pid_tgid": "current pid",
        "get_current_comm": "current comm",
        "get_current_uid_gid": "current uid and gid",
        "get_current_cgroup_id": "current cgroup id",
        "get_current_ancestor_cgroup_id": "current cgroup id",
        "get_stackid": "stack",
        "get_stack": "stack",
        "get_task_stack": "stack",
        "perf_event_read": "perf counter",
        "perf_event_read_value": "perf counter",
        "get_branch_snapshot": "branch records",
        "get_socket_cookie": "socket cookie",
    }.items()
    if name in HELPER_IDS
}
_KFUNC_CONTEXT = {
    "bpf_task_under_cgroup": "current cgroup id",
    "bpf_task_get_cgroup1": "current cgroup id",
    "bpf_task_from_pid": "tasks by pid",
    "bpf_task_from_vpid": "tasks by pid",
}
_USER_STACK_FLAG = 1 << 8
_STACKS = frozenset(HELPER_IDS[name] for name in ("get_stackid", "get_stack", "get_task_stack"))


class _State:
    """Registers 0 to 10, and what is known of stack slots of 8 bytes; a slot that is not there is unknown."""

    __slots__ = ("regs", "stack")

    def __init__(self, regs: list[Values], stack: dict[tuple[int, int], Values]) -> None:
        self.regs = regs
        self.stack = stack

    def copy(self) -> _State:
        return _State(list(self.regs), dict(self.stack))

    def join(self, other: _State) -> bool:
        """Take in another way to the same place; whether that changed anything."""
        changed = False
        for number, theirs in enumerate(other.regs):
            joined = _joined(self.regs[number], theirs)
            changed |= joined != self.regs[number]
            self.regs[number] = joined
        for slot, ours in list(self.stack.items()):
            joined = _joined(ours, other.stack.get(slot, UNKNOWN))
            if joined == UNKNOWN:
                del self.stack[slot]
                changed = True
            elif joined != ours:
                self.stack[slot] = joined
                changed = True
        return changed


def _joined(one: Values, other: Values) -> Values:
    if one is other or one == other:
        return one
    return _small(one | other)


def _small(values: Values) -> Values:
    if len(values) <= _MOST_OFFSETS:
        return values
    groups: dict[tuple[object, ...], set[Value]] = {}
    for value in values:
        key = ("k", value.root, value.type_id, value.hops) if isinstance(value, Kernel) else (type(value),)
        groups.setdefault(key, set()).add(value)
    out: set[Value] = set()
    for group in groups.values():
        one = next(iter(group))
        out |= {one._replace(off=None)} if len(group) > _MOST_OFFSETS and isinstance(one, Kernel) else group
    return frozenset(out) if len(out) <= _MOST_VALUES else UNKNOWN | {v for v in out if isinstance(v, Kernel) and v.off is None}


def program_reads(verified: VerifiedProgram, btf: Btf | None, arg_types: Sequence[int] | None) -> ProgramReads:
    """What a program can read. `arg_types`: kernel types of its tracepoint's arguments; None: the context is an event's record,
    and reads of it are members of the root "record".
    """
    flow = _Flow(verified, btf, arg_types)
    complete = flow.run()
    reads = {read: tuple(sorted(insns)) for read, insns in flow.reads.items()}
    return ProgramReads(reads, frozenset(read for read, insns in reads.items() if flow.once(insns)), complete)


class _Flow:
    def __init__(self, verified: VerifiedProgram, btf: Btf | None, arg_types: Sequence[int] | None) -> None:
        self.insns: Sequence[Insn] = verified.insns
        self.aux = verified.aux
        self.btf = btf
        self.arg_types = arg_types
        self.starts = sorted(subprog.start for subprog in verified.subprogs) or [0]
        self.leaders = self._find_leaders()
        self.states: dict[int, _State] = {}
        self.reads: dict[Read, set[int]] = {}
        self.todo: list[int] = []
        self.callers: dict[int, set[int]] = {}
        self.exits: dict[int, _State] = {}
        self._before: dict[int, _State] = {}

    # the program's shape

    def _find_leaders(self) -> set[int]:
        leaders = set(self.starts)
        for index, insn in enumerate(self.insns):
            kind = insn.code & 7
            if kind in (5, 6) and insn.code not in (0x85, 0x95):
                leaders |= set(self._successors(index))
            elif insn.code == 0x85:
                leaders.add(index + 1)
        return leaders

    def _successors(self, index: int) -> list[int]:
        """Where control may go within the function."""
        insn = self.insns[index]
        code = insn.code
        if code == 0x95:
            return []
        if code == 0x05:
            return [index + 1 + insn.off]
        if code == 0x06:
            return [index + 1 + insn.imm]
        if code & 7 in (5, 6) and code != 0x85:
            return [index + 1, index + 1 + insn.off]
        return [index + (2 if code == 0x18 else 1)]

    def _function(self, index: int) -> int:
        return max(start for start in self.starts if start <= index)

    def once(self, insns: Sequence[int]) -> bool:
        """Whether every run of the program passes exactly one of these instructions (which is one), once."""
        if len(insns) != 1 or self._function(insns[0]) != self.starts[0]:
            return False
        target = insns[0]
        return not self._reaches(self.starts[0], lambda at: self.insns[at].code == 0x95, avoid=target) and not any(
            self._reaches(after, lambda at: at == target, avoid=-1) for after in self._successors(target)
        )

    def _reaches(self, start: int, wanted: object, avoid: int) -> bool:
        seen: set[int] = set()
        todo = [start]
        while todo:
            at = todo.pop()
            if at in seen or at == avoid or not 0 <= at < len(self.insns) or not self.aux[at].seen:
                continue
            seen.add(at)
            if wanted(at):  # type: ignore[operator]
                return True
            todo += self._successors(at)
        return False

    # the run

    def run(self) -> bool:
        """False when the program is too large to be followed to its end."""
        first = self.starts[0]
        regs = [UNKNOWN] * 11
        regs[1], regs[10] = frozenset((Ctx(0),)), frozenset((Stack(first, 0),))
        self._flow_to(first, _State(regs, {}))
        steps = 0
        while self.todo:
            at = self.todo.pop()
            state = self.states[at].copy()
            while True:
                steps += 1
                if steps > _LIMIT:
                    return False
                following = self._step(at, state)
                if len(following) != 1 or following[0] in self.leaders:
                    for target in following:
                        self._flow_to(target, state)
                    break
                at = following[0]
        return True

    def _flow_to(self, at: int, state: _State) -> None:
        if not 0 <= at < len(self.insns) or not self.aux[at].seen:
            return
        known = self.states.get(at)
        if known is None:
            self.states[at] = state.copy()
        elif not known.join(state):
            return
        if at not in self.todo:
            self.todo.append(at)

    def _step(self, index: int, state: _State) -> list[int]:
        insn = self.insns[index]
        kind = insn.code & 7
        if kind in (4, 7):
            self._alu(insn, state)
        elif kind == 0:
            self._load_imm(insn, index, state)
        elif kind == 1:
            self._load(insn, index, state)
        elif kind in (2, 3):
            self._store(insn, index, state)
        elif insn.code == 0x85:
            return self._call(insn, index, state)
        elif insn.code == 0x95:
            self._exit(index, state)
        return self._successors(index)

    def _exit(self, index: int, state: _State) -> None:
        start = self._function(index)
        known = self.exits.get(start)
        if known is None:
            self.exits[start] = state.copy()
        elif not known.join(state):
            return
        for site in sorted(self.callers.get(start, ())):
            self._return(start, site)

    def _return(self, start: int, site: int) -> None:
        """From the function to behind one of its calls: the caller's registers, the function's result and stacks."""
        caller, callee = self._before[site], self.exits[start]
        state = _State(list(caller.regs), dict(callee.stack))
        state.regs[0:6] = [callee.regs[0] if self.insns[site].src_reg == 1 else UNKNOWN, *[UNKNOWN] * 5]
        self._flow_to(site + 1, state)

    # instructions

    def _alu(self, insn: Insn, state: _State) -> None:
        op, wide = insn.code & 0xF0, insn.code & 7 == 7
        regs = state.regs
        other: Values = regs[insn.src_reg] if insn.code & 8 else frozenset((Number(insn.imm),))
        if op == 0xB0 and not insn.off:
            regs[insn.dst_reg] = other if wide else frozenset(_narrow(value) for value in other)
        elif op in (0x00, 0x10) and wide:
            sign = 1 if op == 0 else -1
            regs[insn.dst_reg] = _small(frozenset(_sum(a, b, sign) for a in regs[insn.dst_reg] for b in other))
        else:
            regs[insn.dst_reg] = UNKNOWN

    def _load_imm(self, insn: Insn, index: int, state: _State) -> None:
        if insn.code == 0x18 and insn.src_reg == 0:
            value = (insn.imm & 0xFFFFFFFF) | (self.insns[index + 1].imm & 0xFFFFFFFF) << 32
            state.regs[insn.dst_reg] = frozenset((Number(value - (1 << 64) if value >> 63 else value),))
        else:
            state.regs[insn.dst_reg if insn.code == 0x18 else 0] = UNKNOWN

    def _load(self, insn: Insn, index: int, state: _State) -> None:
        size = _SIZES[insn.code & 0x18]
        found: set[Value] = set()
        for base in state.regs[insn.src_reg]:
            found |= self._loaded(_sum(base, Number(insn.off), 1), size, index, state)
        state.regs[insn.dst_reg] = _small(frozenset(found or {None}))

    def _loaded(self, place: Value, size: int, index: int, state: _State) -> Values:
        """What is at a place."""
        if isinstance(place, Ctx):
            return self._context(place, size, index)
        if isinstance(place, Stack):
            if size == 8 and place.off is not None:
                return state.stack.get((place.frame, place.off), UNKNOWN)
            return UNKNOWN
        if isinstance(place, Kernel):
            return self._follow(place, size, index)
        return UNKNOWN

    def _context(self, place: Ctx, size: int, index: int) -> Values:
        if self.arg_types is None:
            self._note(Read("member", "record", (), 0, place.off, size), index)
            return UNKNOWN
        numbers = range(len(self.arg_types)) if place.off is None else [place.off // 8]
        found: set[Value] = set()
        for number in numbers:
            if number >= len(self.arg_types):
                found.add(None)
                continue
            self._note(Read("argument", number), index)
            target = pointed_struct(self.btf, self.arg_types[number]) if self.btf is not None else None
            found.add(Kernel(number, target, 0, ()) if target is not None and size == 8 else None)
        return frozenset(found or {None})

    def _follow(self, place: Kernel, size: int | None, index: int) -> Values:
        """A read through a kernel pointer, and the pointer that it may give."""
        self._note(Read("member", place.root, place.hops, place.type_id, place.off, size), index)
        if size != 8 or place.off is None or not place.type_id or self.btf is None:
            return UNKNOWN
        spot = member_at(self.btf, place.type_id, place.off)
        target = pointed_struct(self.btf, spot.type_id) if spot is not None and spot.off == place.off else None
        if target is None:
            return UNKNOWN
        hop = Hop(place.type_id, place.off)
        hops = place.hops if hop in place.hops or len(place.hops) >= _MOST_HOPS else (*place.hops, hop)
        return frozenset((Kernel(place.root, target, 0, hops),))

    def _store(self, insn: Insn, index: int, state: _State) -> None:
        size = _SIZES[insn.code & 0x18]
        atomic = insn.code & 0xE0 == 0xC0
        value: Values = frozenset((Number(insn.imm),)) if insn.code & 7 == 2 else state.regs[insn.src_reg]
        places = [_sum(base, Number(insn.off), 1) for base in state.regs[insn.dst_reg]]
        if size == 8 and not atomic and len(places) == 1 and isinstance(places[0], Stack) and places[0].off is not None:
            self._clear(state, places[0], 8)
            if value != UNKNOWN:
                state.stack[places[0].frame, places[0].off] = value
        else:
            for place in places:
                self._clear(state, place, size)
        if atomic:
            if insn.imm & 1:
                state.regs[0 if insn.imm == 0xF1 else insn.src_reg] = UNKNOWN
            for place in places:
                self._loaded(place, size, index, state)

    @staticmethod
    def _clear(state: _State, place: Value, size: int | None) -> None:
        """Bytes of a stack are no longer what they were."""
        if not isinstance(place, Stack):
            return
        for frame, off in list(state.stack):
            low = place.off if place.off is not None else off
            if frame == place.frame and (size is None or off < low + size) and off + 8 > low:
                del state.stack[frame, off]

    # calls

    def _call(self, insn: Insn, index: int, state: _State) -> list[int]:
        callback = self.aux[index].callback
        if insn.src_reg == 1:
            self._enter(index + 1 + insn.imm, index, state, state.regs[1:6])
            return []
        if callback is not None:
            passed = _small(state.regs[3] | state.regs[2] | UNKNOWN)
            self._enter(callback, index, state, [passed] * 5)
        if insn.src_reg == 0:
            self._helper(insn.imm, index, state)
        else:
            self._kfunc(self.aux[index].kfunc, index, state)
            state.regs[0:6] = [UNKNOWN] * 6
            state.stack = {slot: values for slot, values in state.stack.items() if _has_kernel(values)}
        return [index + 1]

    def _enter(self, start: int, site: int, state: _State, args: Sequence[Values]) -> None:
        known = self._before.get(site)
        if known is None:
            self._before[site] = state.copy()
        else:
            known.join(state)
        self.callers.setdefault(start, set()).add(site)
        regs = [UNKNOWN, *args, *[UNKNOWN] * 4, frozenset((Stack(start, 0),))]
        self._flow_to(start, _State(regs, dict(state.stack)))
        if start in self.exits:
            self._return(start, site)

    def _helper(self, number: int, index: int, state: _State) -> None:
        regs = state.regs
        result = UNKNOWN
        if number in _PROBE_KERNEL:
            self._probe(number, index, state)
        elif number in _PROBE_USER:
            self._note(Read("user"), index)
            self._write(state, regs[1], _size(regs[2]))
        else:
            if number in _CURRENT:
                struct = self.btf.find("task_struct") if self.btf is not None else None
                result = frozenset((Kernel("current", struct or 0, 0, ()),))
            elif number == _TASK_PT_REGS:
                struct = self.btf.find("pt_regs") if self.btf is not None else None
                result = frozenset((Kernel("task_pt_regs", struct or 0, 0, ()),))
            elif number in _MEMBERS:
                result = self._members(number, index, state)
            elif number in _CONTEXT:
                self._note(Read("context", self._asked(number, regs)), index)
            self._inputs(number, index, state)
            self._outputs(number, state)
        regs[0:6] = [result, *[UNKNOWN] * 5]

    def _kfunc(self, name: str, index: int, state: _State) -> None:
        """What a kernel function reads: kernel objects and strings that it is given, and what it knows of tasks."""
        proto = KFUNCS.get(name)
        if proto is None:
            return
        if name in _KFUNC_CONTEXT:
            self._note(Read("context", _KFUNC_CONTEXT[name]), index)
        for number, param in enumerate(proto.params):
            values = [value for value in state.regs[1 + number] if isinstance(value, Kernel)]
            for value in values:
                if param.type == "const char *":
                    self._note_member(value, value.type_id, value.off, self._text_size(value, None), index)
                elif param.struct == "cpumask":
                    self._note_member(value, value.type_id, value.off, self._size_of(param.struct), index)
            struct = self.btf.find(param.struct) if self.btf is not None and param.struct else None
            for owner, member in proto.members:
                if owner != param.struct or struct is None or self.btf is None or not member:
                    continue
                try:
                    spot = self.btf.member(struct, member)
                except BtfError:
                    continue
                for value in values:
                    self._note_member(value, struct, spot.offset_bytes, spot.size, index)

    def _note_member(self, value: Kernel, type_id: int, off: int | None, size: int | None, index: int) -> None:
        self._note(Read("member", value.root, value.hops, type_id, off, size), index)

    def _size_of(self, struct: str) -> int | None:
        found = self.btf.find(struct) if self.btf is not None else None
        return self.btf.sizeof(found) if self.btf is not None and found is not None else None

    @staticmethod
    def _asked(number: int, regs: Sequence[Values]) -> str:
        what = _CONTEXT[number]
        if number not in _STACKS:
            return what
        flags = regs[4 if HELPERS[number].name.endswith("stack") else 3]
        numbers = [value.value for value in flags if isinstance(value, Number)]
        if len(numbers) != len(flags):
            return "stack"
        return "user stack" if all(number & _USER_STACK_FLAG for number in numbers) else "kernel stack"

    def _members(self, number: int, index: int, state: _State) -> Values:
        """A helper that looks at members of an argument's object, and may give it back as one of another type."""
        proto, found = HELPERS[number], set[Value]()
        for arg, struct, member in proto.members:
            struct_id = self.btf.find(struct) if self.btf is not None else None
            for value in state.regs[1 + arg]:
                if not isinstance(value, Kernel) or struct_id is None or self.btf is None:
                    continue
                try:
                    spot = self.btf.member(struct_id, member)
                except BtfError:
                    continue
                self._note(Read("member", value.root, value.hops, struct_id, spot.offset_bytes, spot.size), index)
                made = self.btf.find(proto.ret_btf) if proto.ret_btf else None
                found.add(value._replace(type_id=made) if made is not None else None)
        return frozenset(found or {None})

    def _probe(self, number: int, index: int, state: _State) -> None:
        size = _size(state.regs[2])
        values: set[Value] = set()
        for source in state.regs[3]:
            if isinstance(source, Kernel):
                values |= self._follow(source, self._text_size(source, size) if number in _PROBE_TEXT else size, index)
            elif isinstance(source, Stack | Ctx):
                values |= self._loaded(source, size or 8, index, state) if size == 8 else {None}
            else:
                values.add(None)
                if not isinstance(source, Number):
                    self._note(Read("unknown"), index)
        self._write(state, state.regs[1], size, _small(frozenset(values or {None})))

    def _text_size(self, place: Kernel, size: int | None) -> int | None:
        """A text ends within its member, however large the buffer for it is."""
        if self.btf is None or place.off is None or not place.type_id:
            return size
        spot = member_at(self.btf, place.type_id, place.off)
        if spot is None:
            return size
        left = spot.off + spot.size - place.off
        return left if size is None else min(size, left)

    def _write(self, state: _State, places: Values, size: int | None, value: Values = UNKNOWN) -> None:
        for place in places:
            self._clear(state, place, size)
        place = next(iter(places)) if len(places) == 1 else None
        if size == 8 and value != UNKNOWN and isinstance(place, Stack) and place.off is not None:
            state.stack[place.frame, place.off] = value

    def _inputs(self, number: int, index: int, state: _State) -> None:
        """Memory of kernel objects that a helper reads itself."""
        proto = HELPERS.get(number)
        for position, arg in enumerate(proto.args if proto is not None else ()):
            if arg & _BASE == ArgType.ARG_PTR_TO_MEM and arg & MEM_RDONLY:
                for place in state.regs[1 + position]:
                    if isinstance(place, Kernel):
                        self._follow(place, _size(state.regs[min(2 + position, 5)]), index)

    def _outputs(self, number: int, state: _State) -> None:
        """What a helper writes to is not what it was."""
        proto = HELPERS.get(number)
        for position, arg in enumerate(proto.args if proto is not None else ()):
            base = arg & _BASE
            if base == ArgType.ARG_PTR_TO_MEM and arg & MEM_UNINIT:
                known = proto.arg_size.get(position) if proto is not None else None
                self._write(state, state.regs[1 + position], known or _size(state.regs[min(2 + position, 5)]))
            elif base == ArgType.ARG_PTR_TO_DYNPTR:
                self._write(state, state.regs[1 + position], 16)

    def _note(self, read: Read, index: int) -> None:
        self.reads.setdefault(read, set()).add(index)


def _size(values: Values) -> int | None:
    numbers = {value.value if isinstance(value, Number) else None for value in values}
    return numbers.pop() if len(numbers) == 1 else None


def _has_kernel(values: Values) -> bool:
    return any(isinstance(value, Kernel) for value in values)


def _narrow(value: Value) -> Value:
    return Number(value.value & 0xFFFFFFFF) if isinstance(value, Number) else None


def _sum(one: Value, other: Value, sign: int) -> Value:
    """one + other, or one - other."""
    if isinstance(one, Number) and isinstance(other, Number):
        return Number(one.value + sign * other.value)
    if isinstance(other, (Ctx, Stack, Kernel)) and sign > 0:
        one, other = other, one
    if not isinstance(one, (Ctx, Stack, Kernel)) or isinstance(other, (Ctx, Stack, Kernel)):
        return None
    known = one.off is not None and isinstance(other, Number)
    return one._replace(off=one.off + sign * other.value if known else None)  # type: ignore[operator, union-attr]
