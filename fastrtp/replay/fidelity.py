"""Fidelity: for each thing that a program can read, whether the recording knows it, and how.

What a program can read is the verifier's to say (fastrtp/verifier/reads.py); what the record of each event tells, binding's
(`BoundRecording.known`). Here the two meet:

exact      a field of this very event's record
derived    computed from recorded fields, by the rule that is named
context    told by other events, or by what the recording says of tasks: it is what they told last, or first
missing    not in the recording: the policy answers, with what `policy` says

Must not know: native code, how replays run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fastrtp.btf import Btf, BtfKind
from fastrtp.btf.tracepoints import argument_names
from fastrtp.errors import BtfError, ReplayError
from fastrtp.uapi import BpfProgType
from fastrtp.verifier.reads import Read, describe, member_at, names_of, root_name

from .bind import BoundRecording, Policy
from .bind_args import Told
from .stacks import recorded_stacks

if TYPE_CHECKING:
    from fastrtp.btf import TracepointProto
    from fastrtp.kernel import Kernel
    from fastrtp.kernel.objects.prog import BpfProg

Status = Literal["exact", "derived", "context", "missing"]

_RULES: Mapping[str, Mapping[str, tuple[Status, str]]] = {
    "task_struct": {
        "pid": ("exact", "its pid is what a task is known by"),
        "tgid": ("context", "thread groups as far as the recording tells them"),
        "group_leader": ("context", "thread groups as far as the recording tells them"),
        "stack": ("context", "an address of its own, with the task's registers at the end"),
        "thread_pid": ("context", "the struct pid of its number, until it is released"),
        "comm": ("context", "the name that an event told last, before it the first one, or the one saved with the recording"),
    }
}
"""What every task has from the start. Kernel objects: mem/objects.py, replay/identities.py."""
_USER = frozenset({"mm", "active_mm", "signal"})
_PARENTS = frozenset({"real_parent", "parent"})
_CONTEXT: Mapping[str, tuple[Status, str, str]] = {
    "current pid": ("exact", "common_pid; thread groups as far as the recording tells them", ""),
    "current comm": ("context", "the name that an event told last, before it the first one", ""),
    "current uid and gid": ("missing", "no event records them", "those of who replays"),
    "current cgroup id": ("missing", "no event records it", "1, the root"),
    "perf counter": ("missing", "counters are not recorded", "an error, or 0 of an event that programs write to"),
    "tasks by pid": ("missing", "only the running task is found by its pid", "none"),
    "branch records": ("missing", "no recording here has them", "-ENOENT"),
    "socket cookie": ("missing", "no event records it", "a number for each socket"),
}
_NO_STACKS = "the recording has no {which}: record with trace-cmd -T, perf -g"
_FAULT = "-EFAULT"
_ZERO = "0"


@dataclass(frozen=True, slots=True)
class ReadFidelity:
    """One row. `what`: in C's words; `arg`: number of the argument that it hangs on, from 0, -1 for what hangs on none;
    `member`: the member's name, "" for an argument itself. `why`: field, rule or reason; `policy`: what a missing one reads as.

    `count`: after a run, how often the policy answered: exact where every run of the program reads it once; None: it depends
    on the way that a run takes, and at most `runs` of them did.
    """

    program: str
    tracepoint: str
    what: str
    arg: int
    member: str
    status: Status
    why: str
    policy: str = ""
    always: bool = False
    runs: int | None = None

    @property
    def count(self) -> int | None:
        """How often the policy answered, where that is known."""
        return self.runs if self.always else 0 if self.runs == 0 else None

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        row = {name: getattr(self, name) for name in ("program", "tracepoint", "what", "arg", "member", "status", "why")}
        if self.status == "missing":
            row |= {"policy": self.policy, "count": self.count, "at_most": self.runs}
        return row

    def __str__(self) -> str:
        return f"{self.program}: {self.tracepoint}: {self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class ProgramFidelity:
    """A program at a tracepoint. `events`: how many of these the recording has."""

    program: str
    tracepoint: str
    events: int
    rows: tuple[ReadFidelity, ...]

    @property
    def missing(self) -> list[ReadFidelity]:
        """What the policy will answer."""
        return [row for row in self.rows if row.status == "missing"]


def fidelity(
    kernel: Kernel, bound: BoundRecording, attached: Iterable[tuple[BpfProg, str, str]], policy: Policy
) -> list[ProgramFidelity]:
    """Of each (program, its name, tracepoint): what it can read, and what the recording knows of that."""
    judge = _Judge(kernel.btf, bound, policy)
    counts: dict[str, int] = {}
    for table in bound.recording.tables:
        counts[table.name] = counts.get(table.name, 0) + len(table)
    found = []
    for prog, name, tracepoint in attached:
        classic = prog.type == BpfProgType.BPF_PROG_TYPE_TRACEPOINT
        known = tracepoint in kernel.tracepoints
        proto = kernel.tracepoints.proto(tracepoint) if known else None
        types = tuple(arg.type_id for arg in proto.args) if proto is not None and not classic else None
        reads = prog.reads(kernel.btf, types)
        rows: list[ReadFidelity] = []
        if counts.get(tracepoint):
            rows = judge.rows(name, tracepoint, proto, reads.insns, reads.always)
            if not reads.complete:
                rows.append(
                    ReadFidelity(
                        name, tracepoint, "whatever else it reads", -1, "", "missing", "the program is too large to follow"
                    )
                )
        found.append(ProgramFidelity(name, tracepoint, counts.get(tracepoint, 0), tuple(rows)))
    return found


def with_runs(found: Sequence[ProgramFidelity], runs: Mapping[str, int]) -> list[ReadFidelity]:
    """The missing rows with how often their programs ran. A program at several tracepoints has no count for each of them."""
    several = {one.program for one in found if sum(other.program == one.program for other in found) > 1}
    return [
        replace(row, runs=runs.get(row.program, 0) if row.program not in several else None)
        for one in found
        for row in one.missing
    ]


def refuse_missing(found: Sequence[ProgramFidelity]) -> None:
    """ReplayError with all that programs can read and the recording does not have."""
    missing = [row for one in found for row in one.missing]
    if missing:
        raise ReplayError("the recording cannot supply: " + "; ".join(map(str, missing)))


class _Judge:
    def __init__(self, btf: Btf, bound: BoundRecording, policy: Policy) -> None:
        self.btf = btf
        self.bound = bound
        self.policy = policy
        self.stacks = recorded_stacks(bound.recording)
        self.by_type: dict[str, list[tuple[str, Told]]] = {}
        for tracepoint, known in bound.known.items():
            for told in known.told:
                self.by_type.setdefault(told.type_name, []).append((tracepoint, told))

    def rows(
        self, program: str, tracepoint: str, proto: TracepointProto | None, reads: Iterable[Read], always: frozenset[Read]
    ) -> list[ReadFidelity]:
        names = argument_names(self.btf, proto) if proto is not None else ()
        merged: dict[tuple[object, ...], ReadFidelity] = {}
        followed = {read.root for read in reads if read.kind == "member"}
        for read in reads:
            if read.kind == "argument" and read.root in followed and self._argument(tracepoint, read.root)[0] == "missing":
                continue  # the members that are read through it say so
            status, why, policy = self._judge(tracepoint, read)
            arg = read.root if isinstance(read.root, int) else -1
            member = self._member(read) if read.kind == "member" else ""
            what = self._record(tracepoint, read) if read.root == "record" else describe(self.btf, read, names)
            if read.kind == "argument" and read.root not in followed:
                what = root_name(read.root, names)
            row = ReadFidelity(program, tracepoint, what, arg, member, status, why, policy, read in always)
            key = (what, status, why)
            merged[key] = replace(row, always=False) if key in merged else row
        return sorted(merged.values(), key=lambda row: (row.arg < 0, row.arg, row.what))

    def _member(self, read: Read) -> str:
        return names_of(self.btf, read.type_id, read.off, read.size)

    def _record(self, tracepoint: str, read: Read) -> str:
        table = next((table for table in self.bound.recording.tables if table.name == tracepoint), None)
        for spec in table.fmt.fields if table is not None and table.fmt is not None else ():
            if read.off is not None and spec.offset <= read.off < spec.offset + max(spec.size, 1):
                return f"field {spec.name}"
        return "a field of the record"

    def _judge(self, tracepoint: str, read: Read) -> tuple[Status, str, str]:
        if read.kind == "argument":
            return self._argument(tracepoint, read.root)
        if read.kind == "context":
            what = str(read.root)
            if what.endswith("stack"):
                return self._stack(what)
            return _CONTEXT[what]
        if read.kind == "user":
            return "missing", "memory of processes is not recorded", _FAULT
        if read.kind == "unknown":
            return "missing", "where the address comes from cannot be told", _FAULT
        if read.root == "record":
            return self._field(tracepoint, read)
        return self._chain(tracepoint, read)

    def _stack(self, what: str) -> tuple[Status, str, str]:
        wanted = {"kernel stack": ("kernel_stack",), "user stack": ("user_stack",)}.get(what, ("kernel_stack", "user_stack"))
        lacking = [name.replace("_", " ") for name in wanted if name not in self.stacks]
        if lacking:
            return "missing", _NO_STACKS.format(which=f"{lacking[0]}s" if len(lacking) == 1 else "stacks"), _FAULT
        return "exact", "recorded with the event", ""

    def _field(self, tracepoint: str, read: Read) -> tuple[Status, str, str]:
        """A field of the record that a classic tracepoint program gets, which is made from the arguments again."""
        known = self.bound.known.get(tracepoint)
        if known is not None and not known.args and known.lacks:
            return "missing", known.lacks[0].why, _ZERO
        return "exact", "recorded", ""

    def _argument(self, tracepoint: str, number: int | str) -> tuple[Status, str, str]:
        known = self.bound.known.get(tracepoint)
        how = known.args.get(number) if known is not None and isinstance(number, int) else None
        if known is None or how is None:
            why = next((lack.why for lack in known.lacks if lack.arg == number and not lack.member), "") if known else ""
            return "missing", why or "the kernel has no such tracepoint", self._unknown_object()
        status, source = how
        if status in ("exact", "derived"):
            return ("exact" if status == "exact" else "derived"), source, ""
        return (
            "exact",
            {"text": "the text {}", "address": "the recorded {}", "object": "an object known by {}"}[status].format(source),
            "",
        )

    def _unknown_object(self) -> str:
        return "an address that cannot be read" if self.policy == "fault" else "0, or an object of zeros"

    def _chain(self, tracepoint: str, read: Read) -> tuple[Status, str, str]:
        """A member at the end of a way of pointers: as good as the worst step."""
        if isinstance(read.root, int):
            known = self.bound.known.get(tracepoint)
            how = known.args.get(read.root, ("", ""))[0] if known is not None else ""
            if how == "":
                status, why, _policy = self._argument(tracepoint, read.root)
                return status, why, _FAULT if self.policy == "fault" else _ZERO
            if how == "text" and not read.hops:
                return "exact", "recorded text", ""
            if how != "object":
                return "missing", "an address of the recorded machine, of which nothing can be read", _FAULT
        elif read.root not in ("current", "task_pt_regs"):
            return "missing", f"nothing is known of what {read.root} gives", _ZERO
        worst: tuple[Status, str, str] = ("exact", "", "")
        steps = [(hop.type_id, hop.off, 8) for hop in read.hops]
        for place, (type_id, off, size) in enumerate(steps):
            status, why, policy = self._bytes(tracepoint, read.root if not place else -1, type_id, off, size)
            if status == "missing":
                return status, f"{names_of(self.btf, type_id, off, 8) or 'a pointer'} is NULL: {why}", policy
            worst = _worse(worst, (status, why, policy))
        if not read.type_id:
            return worst[0], worst[1] or "recorded text", worst[2]
        root = read.root if not steps else -1
        return _worse(worst, self._bytes(tracepoint, root, read.type_id, read.off, read.size))

    def _bytes(
        self, tracepoint: str, root: int | str, type_id: int, off: int | None, size: int | None
    ) -> tuple[Status, str, str]:
        """Bytes of an object of a type: a read that spans members is as good as the worst of them."""
        if off is None or size is None:
            return "missing", "which bytes cannot be told", _ZERO
        struct = self._name(type_id)
        worst: tuple[Status, str, str] = ("exact", "", "")
        at = off
        while at < off + max(size, 1):
            spot = member_at(self.btf, type_id, at)
            end = spot.off + spot.size if spot is not None else at + 1
            if spot is not None and spot.name:
                worst = _worse(worst, self._one(tracepoint, root, struct, spot.name, at, min(end, off + max(size, 1))))
                if worst[0] == "missing":
                    return worst
            at = max(end, at + 1)
        return worst if worst[1] else ("missing", f"nothing is known of {struct or 'it'}", _ZERO)

    def _one(self, tracepoint: str, root: int | str, struct: str, member: str, low: int, high: int) -> tuple[Status, str, str]:
        told = [
            (name, one)
            for base in self._bases(struct)
            for name, one in self.by_type.get(base, ())
            if one.off <= low and high <= one.end
        ]
        own = [one for name, one in told if name == tracepoint]
        here = [one for one in own if one.arg == root] or [one for one in own if root == -1]
        if here:
            return ("exact" if here[0].how == "exact" else "derived"), here[0].source, ""
        rule = _RULES.get(struct, {}).get(member)
        if rule is not None:
            return *rule, ""
        if told:
            by = ", ".join(dict.fromkeys(name for name, _one in told))
            return "context", f"as {by} told it last; 0 before that", ""
        if struct == "task_struct" and member in _USER:
            return "context", "there is one where a task was seen in user space", ""
        if struct == "task_struct" and member in _PARENTS:
            known, tasks = self.bound.parents
            told_of = "as sched_process_fork told it"
            return (
                ("context", told_of, "")
                if known >= tasks
                else ("missing", f"only {known} of {tasks} tasks were forked in it", _ZERO)
            )
        return "missing", "not in the recording", _ZERO

    def _bases(self, struct: str) -> list[str]:
        """The struct and those that it begins with: a tcp_sock is an inet_sock is a sock."""
        found, type_id = [struct], self.btf.find(struct, BtfKind.STRUCT) if struct else None
        while type_id is not None and self.btf.type(type_id).members:
            first = self.btf.type(self.btf.strip(self.btf.type(type_id).members[0].type_id))
            if first.kind != BtfKind.STRUCT or not first.name:
                break
            found.append(first.name)
            type_id = first.id
        return found

    def _name(self, type_id: int) -> str:
        try:
            return self.btf.type(type_id).name
        except BtfError:
            return ""


_ORDER: Mapping[Status, int] = {"exact": 0, "derived": 1, "context": 2, "missing": 3}


def _worse(one: tuple[Status, str, str], other: tuple[Status, str, str]) -> tuple[Status, str, str]:
    return one if one[1] and _ORDER[one[0]] >= _ORDER[other[0]] else other


__all__ = ["ProgramFidelity", "ReadFidelity", "fidelity", "with_runs"]
