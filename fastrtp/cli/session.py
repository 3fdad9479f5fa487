"""A saved session: what a replay left in the kernel, kept in a file so that `prog|map|link|btf` can be asked later.

The file is a zip of the object as it was, a JSON head (kernel's types, version and CPUs, how the object was set up, counters of
each program) and the raw contents of each map. It is opened by loading the object anew, attaching it, and putting contents and
counters back. Rings are empty in it: their records were handed out while the replay ran.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastrtp.errors import FastrtpError, ReplayError

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel
    from fastrtp.kernel.loader.object import BpfObject, ObjectMap

_FORMAT = "fastrtp session 2"
_SETTINGS = ("map_type", "key_size", "value_size", "max_entries", "map_flags", "map_extra")
_OBJECT, _HEAD = "object.bpf.o", "session.json"
_COUNTERS = ("runs", "misses", "run_cnt", "run_time_ns")
_MAX_BYTES = 1 << 30


def save(path: Path, kernel: Kernel, loaded: BpfObject, data: bytes, btf: str | None) -> None:
    """Write the session of `loaded` (made from the object file's bytes `data`) to `path`. OSError."""
    programs = {
        name: {counter: program.prog.record.stats[counter].tolist() for counter in _COUNTERS}
        for name, program in loaded.programs.items()
    }
    head = {
        "format": _FORMAT, "object": loaded.name, "btf": btf, "version": kernel.version, "cpus": kernel.cpus,
        "programs": programs, "setup": _setup(loaded),
    }  # fmt: skip
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_OBJECT, data)
        for name, held in loaded.maps.items():
            if _has_contents(held):
                archive.writestr(f"maps/{name}", b"".join(key + value for key, value in held.raw_items()))
        archive.writestr(_HEAD, json.dumps(head))


def restore(path: Path) -> Kernel:
    """A kernel with the session's object loaded and attached, its maps and counters as they were. OSError, ReplayError."""
    from fastrtp.kernel import Kernel

    head, data, contents = _read(path)
    kernel = Kernel(head["btf"], cpus=head["cpus"], version=head["version"])
    try:
        loaded = kernel.open(data, name=head["object"])
        _set_up(loaded, head)
        loaded.load()
        loaded.attach(strict=False)
        for name, raw in contents.items():
            _fill(path, loaded.maps.get(name), name, raw)
        for name, counters in head["programs"].items():
            stats = loaded.programs[name].prog.record.stats
            for counter in _COUNTERS:
                stats[counter] = counters[counter]
    except (KeyError, TypeError, ValueError, FastrtpError) as error:
        kernel.shutdown()
        raise ReplayError(f"{path}: the session does not fit its object: {error}") from error
    return kernel


def _setup(loaded: BpfObject) -> dict[str, Any]:
    """What the maps of an object were created with: {map: {setting: number, "initial": hex of global data}}."""
    out = {}
    for name, held in loaded.maps.items():
        row: dict[str, Any] = {setting: getattr(held.spec, setting) for setting in _SETTINGS}
        if held.spec.initial is not None:
            row["initial"] = held.spec.initial.hex()
        out[name] = row
    return out


def _set_up(obj: BpfObject, head: dict[str, Any]) -> None:
    """The same programs, maps and constants as those that were saved."""
    for program in obj.programs.values():
        program.autoload = program.name in head["programs"]
    for name, held in obj.maps.items():
        row = head["setup"].get(name)
        if row is None:
            held.autocreate = False
            continue
        for setting in _SETTINGS:
            if getattr(held.spec, setting) != row[setting]:
                setattr(held, setting, row[setting])
        if "initial" in row and held.spec.initial is not None:
            held.spec.initial = bytes.fromhex(row["initial"])
            held.written.update(obj.spec.externs)


def _has_contents(held: ObjectMap) -> bool:
    from fastrtp.maps import ArrayMap, HashMap

    return type(held.map) in (ArrayMap, HashMap) and not held.spec.frozen


def _read(path: Path) -> tuple[dict[str, Any], bytes, dict[str, bytes]]:
    """(head, object, map contents) of a session file, checked as far as it can be without its object."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > _MAX_BYTES:
                raise ReplayError(f"{path}: a session of {size} bytes, at most {_MAX_BYTES} are read")
            head = json.loads(archive.read(_HEAD))
            contents = {name.removeprefix("maps/"): archive.read(name) for name in archive.namelist() if name.startswith("maps/")}
            data = archive.read(_OBJECT)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise ReplayError(f"{path} is no saved session: {error}") from error
    fine = isinstance(head, dict) and head.get("format") == _FORMAT and isinstance(head.get("programs"), dict)
    fine = fine and isinstance(head.get("setup"), dict) and isinstance(head.get("version"), int | None)
    if not (fine and isinstance(head.get("cpus"), int) and 0 < head["cpus"] <= 4096 and isinstance(head.get("object"), str)):
        raise ReplayError(f"{path} is no saved session of a form that this version reads")
    return head, data, contents


def _fill(path: Path, held: ObjectMap | None, name: str, raw: bytes) -> None:
    if held is None or not _has_contents(held):
        raise ValueError(f"no map {name!r} to fill")
    step = held.map.key_size + held.map.value_size_user
    if len(raw) % step:
        raise ValueError(f"map {name!r} has entries of {step} bytes, not {len(raw)} bytes in all")
    for at in range(0, len(raw), step):
        held.map.update_elem(raw[at : at + held.map.key_size], raw[at + held.map.key_size : at + step])
