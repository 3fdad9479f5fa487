"""Loading an object file as libbpf does: BTF, maps, relocation, programs, program arrays; all or nothing.

Every stage wraps what goes wrong: "load program sw: ...", "create map counts: ...". What libbpf forgives is a warning: BTF that
the kernel refuses, a map that it refuses with types, maps that no program to be loaded uses.

Kernel counterpart: tools/lib/bpf/libbpf.c:bpf_object_open, bpf_object_load
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastrtp.cc import compile_source, is_source
from fastrtp.errors import BpfError, JitError, ObjectError, ObjectWarning, UnknownNameError
from fastrtp.kernel.loader.externs import missing_here
from fastrtp.kernel.loader.maps import create_maps, fill_maps_of_maps
from fastrtp.kernel.loader.object import Autoload, BpfObject, ObjectProgram
from fastrtp.kernel.loader.programs import load_program, wrapped
from fastrtp.obj import ObjectSpec
from fastrtp.uapi import BpfMapType

if TYPE_CHECKING:
    from fastrtp.kernel.loader.config import ConfigSource
    from fastrtp.kernel.process import Process


def open_object(
    process: Process, source: str | os.PathLike[str] | bytes, *, name: str = "", kconfig: ConfigSource | None = None
) -> BpfObject:
    """An object, to be set up and then loaded; C source (a path that ends in .c) is compiled first.

    ObjectError for a file that is no such object, or options that do not fit; CompilerError.
    """
    data, name = _read(process, source, name)
    return BpfObject(process, ObjectSpec.parse(data, name), kconfig)


def load(
    process: Process, source: str | os.PathLike[str] | bytes, *, name: str = "", autoload: Autoload = None,
    programs: Iterable[str] | None = None, rodata: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None,
    bss: Mapping[str, Any] | None = None, max_entries: Mapping[str, int] | None = None, kconfig: ConfigSource | None = None,
    strict: bool = True,
) -> BpfObject:  # fmt: skip
    """Open an object, set it up and load it. See `fastrtp.kernel.verbs.Verbs.load`."""
    obj = open_object(process, source, name=name, kconfig=kconfig)
    for section, values in (("rodata", rodata), ("data", data), ("bss", bss)):
        if values:
            obj.set(values, section)
    for map_name, count in (max_entries or {}).items():
        if map_name not in obj.maps:
            raise UnknownNameError(f"no map {map_name!r}, there are: {', '.join(obj.maps) or 'none'}")
        obj.maps[map_name].max_entries = count
    if programs is not None:
        obj.select([programs] if isinstance(programs, str) else programs)
    if autoload is not None:
        for program in obj.programs.values():
            program.autoload = autoload(program.spec) if callable(autoload) else program.name in autoload
    return obj.load(strict=strict)


def _read(process: Process, source: str | os.PathLike[str] | bytes, name: str) -> tuple[bytes, str]:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), name
    name = name or os.path.basename(os.fspath(source))
    try:
        if is_source(source):
            compiled = compile_source(source, process.kernel.btf)
            if compiled.diagnostics:
                warnings.warn(f"{name}: the compiler says\n{compiled.diagnostics}", ObjectWarning, stacklevel=_users_level())
            return compiled.data, name
        with open(source, "rb") as file:
            return file.read(), name
    except OSError as error:
        raise ObjectError(f"{os.fspath(source)}: {(error.strerror or str(error)).lower()}") from error


def load_object(process: Process, obj: BpfObject, *, strict: bool = True) -> None:
    """Make everything of an open object; what is refused closes it again.

    ObjectError for what is not there (a tracepoint, a map to put into another); BpfError and VerifierError, with the stage, for
    what the kernel refuses; JitError. `strict` False: refused programs are only left out.
    """
    try:
        wanted = _wanted(obj, strict=strict)
        _load_btf(process, obj)
        create_maps(process, obj, [program.spec for program in wanted], strict=strict)
        fill_maps_of_maps(obj)
        refused = _load_programs(process, obj, wanted, strict=strict)
        if refused is not None and not obj.programs:
            raise refused
        for name in [name for name, held in obj.maps.items() if held.fd < 0]:
            del obj.maps[name]
        _fill_prog_arrays(obj)
    except BaseException:
        obj.close()
        raise
    obj.is_loaded = True
    obj.warnings += obj.notes_on_options
    for warning in obj.warnings:
        warnings.warn(f"{obj.name}: {warning}", ObjectWarning, stacklevel=_users_level())


def _users_level() -> int:
    """How far up the caller is that is none of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("fastrtp."):
        level, frame = level + 1, frame.f_back
    return level


def _wanted(obj: BpfObject, *, strict: bool) -> list[ObjectProgram]:
    """The programs to load; why the others are not is noted. ObjectError, where `strict`, for want of an option's value."""
    out = []
    for program in obj.programs.values():
        section = program.spec.section
        if not program.autoload:
            obj.skipped[program.name] = f"section {section!r}: not loaded automatically"
        elif reason := obj.unresolved(program.spec):
            if strict:
                raise ObjectError(f"load program {program.name}: {reason}")
            obj.skipped[program.name] = f"section {section!r}: {reason}"
        else:
            out.append(program)
    return out


def _load_btf(process: Process, obj: BpfObject) -> None:
    """BTF is optional: without it, programs and maps have no types. Kernel: libbpf.c:bpf_object__sanitize_and_load_btf"""
    if not obj.spec.btf_bytes:
        return
    try:
        obj.btf_fd = process.btf_load(obj.spec.btf_bytes)
    except BpfError as error:
        obj.warnings.append(
            f"loaded without its BTF, which the kernel refuses: {str(error.strerror).removeprefix('EINVAL: ').strip()}"
        )


def _load_programs(process: Process, obj: BpfObject, wanted: list[ObjectProgram], *, strict: bool) -> Exception | None:
    """Load and compile; the first refusal, where the others may do without. `obj.programs` has those that came through."""
    first: Exception | None = None
    loaded: dict[str, ObjectProgram] = {}

    def refuse(program: ObjectProgram, error: Exception) -> None:
        nonlocal first
        if strict:
            raise error
        first = first or error
        text = str(error.strerror) if isinstance(error, BpfError) else str(error)
        obj.skipped[program.name] = text.removeprefix(f"load program {program.name}: ")

    with process.kernel.compile_together():
        for program in wanted:
            try:
                load_program(process, obj, program)
                loaded[program.name] = program
            except (BpfError, ObjectError) as error:
                refuse(program, error)
    for program in list(loaded.values()):
        try:
            program.prog.finish()
        except JitError as error:
            del loaded[program.name]
            refuse(program, JitError(f"load program {program.name}: {error}"))
            process.close(program.fd)
    for name in loaded:
        for what in missing_here(obj.spec.programs[name], process.kernel.btf):
            obj.warnings.append(
                f"program {name} runs as on a kernel without {what}, which this one has: it is not supported here"
            )
    obj.programs = loaded
    return first


def _fill_prog_arrays(obj: BpfObject) -> None:
    """What the object says is in its program arrays. Kernel: tools/lib/bpf/libbpf.c:bpf_object_init_prog_arrays"""
    for held in obj.maps.values():
        if held.spec.map_type != BpfMapType.BPF_MAP_TYPE_PROG_ARRAY or held.reused_fd >= 0:
            continue
        for slot, target in held.spec.values.items():
            program = obj.programs.get(target)
            if program is None:
                raise ObjectError(f"fill map {held.name}: program {target!r} for slot {slot} is not loaded")
            try:
                held.update(slot.to_bytes(4, "little"), program.fd.to_bytes(4, "little"))
            except BpfError as error:
                raise wrapped(f"fill map {held.name}, slot {slot} with {target}", error) from error
