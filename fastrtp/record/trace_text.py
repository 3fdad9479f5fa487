"""Text traces: what ftrace's `trace` file, `trace-cmd report`, `perf script` and Android's systrace print, read back.

A line says who, where, when and which event; the rest is the event's own text, which the shipped print formats turn back into
fields (unprint.py), and `key=value` pairs where they do not. A field that some line of an event does not give is left out of all
its lines, and a note says so: a replay then names it, instead of reading a guess. Times are what was printed: microseconds as a
rule, so events of one microsecond keep the order of their lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastrtp.errors import RecordingError

from .event_formats import default_formats
from .made import FIELD, ORDER, from_events
from .recording import Recording
from .unprint import Unprint

_FTRACE = re.compile(
    r"\s*(?P<comm>.{1,64}?)-(?P<pid>\d+)\s+(?:\(\s*(?P<tgid>\d+|-+)\)\s+)?(?:\[(?P<cpu>\d+)\]\s+(?:[^\s:]{4,6}\s+)?"
    r"|(?P<at>\d+)[^\s\d]\S{2,5}\s+)(?P<time>\d+\.\d+):\s+(?P<event>[A-Za-z_]\w*):(?!\S)\s*(?P<text>.*)"
)
_PERF = re.compile(
    r"\s*(?P<comm>.{1,64}?)\s+(?:(?P<tgid>-?\d+)/)?(?P<pid>-?\d+)\s+\[(?P<cpu>\d+)\]\s+(?P<time>\d+\.\d+):\s+(?:\d+\s+)?"
    r"(?P<system>[A-Za-z_]\w*):(?P<event>[A-Za-z_]\w*):\s*(?P<text>.*)"
)
_LOST = re.compile(
    r"\s*(?:CPU:(\d+) \[(?:LOST )?(\d+)? ?EVENTS? ?(?:LOST|DROPPED)?\]|\[(?:LOST|MISSED) (\d+) EVENTS\]).*", re.IGNORECASE
)
_PAIR = re.compile(r"([A-Za-z_]\w*)=(\S+)")
_NUMBER = re.compile(r"-?\d+|0[xX][0-9a-fA-F]+")
_SYSTRACE = re.compile(r'<script class="trace-data" type="application/text">(.*?)</script>', re.DOTALL)
_HEAD = 1 << 16
_LONGEST = 1 << 14
_PLUGINS: dict[str, tuple[re.Pattern[str], tuple[str, ...]]] = {
    "sched_switch": (
        re.compile(r"(.*):(\d+) \[(\d+)\] \S+ ==> (.*):(\d+) \[(\d+)\]"),
        ("prev_comm", "prev_pid", "prev_prio", "next_comm", "next_pid", "next_prio"),
    ),
} | dict.fromkeys(
    ("sched_wakeup", "sched_wakeup_new", "sched_waking"),
    (re.compile(r"(.*):(\d+) \[(\d+)\](?: success=1)? CPU:(\d+)"), ("comm", "pid", "prio", "target_cpu")),
)
"""What trace-cmd's plugins print instead of the kernel's text. Their letters of a state are those of old kernels, without "+"."""


class _Line(NamedTuple):
    comm: str
    pid: int
    tgid: int
    cpu: int
    time: int
    event: str
    text: str


def is_trace_text(path: Path) -> bool:
    """Whether a file begins as one of these do."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    if b"\0" in head:
        return False
    text = head.decode("utf-8", "replace")
    return (
        head.startswith(b"# tracer:")
        or bool(_SYSTRACE.search(text + "</script>"))
        or any(_match(line) is not None for line in text.splitlines()[:64])
    )


def import_trace_text(path: Path) -> Recording:
    """Read a text trace. RecordingError for a file without any event."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error}") from error
    pages = _SYSTRACE.findall(text)
    recording = read_lines(("\n".join(pages) if pages else text).splitlines())
    if not recording.events:
        raise RecordingError(f"{path}: no line of it is an event as ftrace, trace-cmd report, perf script or systrace print them")
    recording.source = str(path)
    return recording


def read_lines(lines: Iterable[str]) -> Recording:
    """A recording of the lines that are events."""
    kinds: dict[str, _Kind] = {}
    rows: list[tuple[_Line, dict[str, Any]]] = []
    groups: dict[int, int] = {}
    lost: dict[int, int] = {}
    other = 0
    for line in lines:
        found = _match(line) if len(line) < _LONGEST else None
        if found is None:
            gap = _LOST.fullmatch(line)
            if gap is not None:
                cpu = int(gap[1] or 0)
                lost[cpu] = lost.get(cpu, 0) + int(gap[2] or gap[3] or 1)
            else:
                other += bool(line.strip()) and not line.startswith(("#", "cpus=", "\t", "version ="))
            continue
        if found.event not in kinds:
            kinds[found.event] = _Kind(found.event)
        rows.append((found, kinds[found.event].fields(found.text)))
        if found.tgid > 0 and found.tgid != found.pid:
            groups[found.pid] = found.tgid
    kept = {name: kind.common() for name, kind in kinds.items()}
    notes = [note for name, kind in kinds.items() for note in kind.notes()]
    if other:
        notes.append(f"{other} lines are no events, and were left out")
    if rows:
        notes.append("read from text: times and fields are what was printed")
    comms = {line.pid: line.comm for line, _ in rows if line.pid and line.comm != "<...>"}
    return from_events(_events(rows, kept), comms=comms, notes=notes, lost=lost, groups=groups, clock="mono")


def _events(rows: list[tuple[_Line, dict[str, Any]]], kept: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    for line, fields in rows:
        event = {"event": line.event, "time": line.time, "cpu": line.cpu, "pid": line.pid}
        for name in kept[line.event]:
            event[FIELD + name if name in ORDER else name] = fields[name]
        yield event


def _match(line: str) -> _Line | None:
    found = _FTRACE.fullmatch(line.rstrip()) or _PERF.fullmatch(line.rstrip())
    if found is None:
        return None
    parts = found.groupdict()
    whole, _, fraction = parts["time"].partition(".")
    pid, cpu, tgid = int(parts["pid"]), int(parts["cpu"] or parts.get("at") or 0), parts["tgid"] or ""
    if pid >= 1 << 31 or cpu >= 1 << 16 or len(whole) > 9 or len(fraction) > 9:
        return None
    time = int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0"))
    group = int(tgid) if tgid.isdigit() else 0
    return _Line(parts["comm"].strip(), pid, group, cpu, time, parts["event"], parts["text"].rstrip())


class _Kind:
    """The lines of one event."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fmt = default_formats().get(name)
        self._unprint = Unprint(self.fmt) if self.fmt is not None else None
        self._lines = 0
        self._seen: dict[str, int] = {}
        self._kinds: dict[str, type] = {}
        self._mixed: set[str] = set()

    def fields(self, text: str) -> dict[str, Any]:
        """Fields that the text of a line gives."""
        found = self._fields(text)
        self._lines += 1
        for name, value in found.items():
            self._seen[name] = self._seen.get(name, 0) + 1
            if self._kinds.setdefault(name, type(value)) is not type(value):
                self._mixed.add(name)
        return found

    def common(self) -> list[str]:
        """Fields that every line gave."""
        return [name for name, count in self._seen.items() if count == self._lines and name not in self._mixed]

    def notes(self) -> Iterator[str]:
        """What was left out."""
        partly = [name for name in self._seen if name not in self.common()]
        if partly:
            yield f"{self.name}: left out, because not every line gives it: {', '.join(partly)}"

    def _fields(self, text: str) -> dict[str, Any]:
        if self.fmt is None or self._unprint is None:
            return {
                key: int(value, 0) if _NUMBER.fullmatch(value) and _fits(value) else value for key, value in _PAIR.findall(text)
            }
        found = self._unprint.read(text)
        if found is None and self.name in _PLUGINS:
            found = _plugin(self.name, text)
        if found is None:
            found = {}
            for key, value in _PAIR.findall(text):
                spec = self.fmt.field(key)
                if spec is None:
                    continue
                if spec.kind.value == "scalar":
                    if _NUMBER.fullmatch(value):
                        found[key] = int(value, 0) if not re.fullmatch(r"-?0\d+", value) else int(value)
                elif spec.kind.value in ("string", "data_loc", "rel_loc"):
                    found[key] = value
        return {name: value for name, value in found.items() if self._holds(name, value)}

    def _holds(self, name: str, value: Any) -> bool:
        """Whether a field has room for a value."""
        spec = self.fmt.field(name) if self.fmt is not None else None
        if spec is None:
            return False
        if isinstance(value, int):
            return -(1 << 8 * spec.size - 1) <= value < 1 << 8 * spec.size
        return not isinstance(value, str) or spec.variable or len(value.encode()) < spec.size


def _fits(value: str) -> bool:
    return len(value) < 20 and not re.fullmatch(r"-?0\d+", value) and -(1 << 63) <= int(value, 0) < 1 << 64


def _plugin(name: str, text: str) -> dict[str, Any] | None:
    pattern, names = _PLUGINS[name]
    match = pattern.fullmatch(text)
    if match is None:
        return None
    return {key: value if key.endswith("comm") else int(value) for key, value in zip(names, match.groups(), strict=True)}
