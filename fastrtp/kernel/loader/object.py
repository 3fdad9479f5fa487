"""BpfObject: an object file, open and then loaded: its programs, maps and variables by name, and their attachment.

Kernel counterpart: tools/lib/bpf/libbpf.c (struct bpf_object, bpf_object__open, bpf_object__load).
"""

from __future__ import annotations

import errno
import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError, ObjectError, UnknownNameError
from fastrtp.kernel.loader.config import ConfigSource, config_from
from fastrtp.kernel.loader.externs import Options
from fastrtp.kernel.loader.object_map import ObjectMap, ObjectMaps
from fastrtp.kernel.loader.object_program import Link, Links, ObjectProgram
from fastrtp.kernel.loader.variables import Variables, set_variable
from fastrtp.obj.externs import KCONFIG_SECTION
from fastrtp.shown import Shown

if TYPE_CHECKING:
    from fastrtp.kernel.process import Process
    from fastrtp.obj import ObjectSpec, ProgramSpec

Autoload = Callable[["ProgramSpec"], bool] | Collection[str] | None
_SECTIONS = ("rodata", "data", "bss", "kconfig")
_FIELDS = ("programs", "maps", "skipped")


class BpfObject(Shown):
    """An object. `programs`, `maps`: by name, once it is loaded those that were loaded and created.

    `skipped`: program -> why it was not loaded. `warnings`: what was left out, or is known less well than it looks.
    `rodata`, `data`, `bss`, `kconfig`, and `data_custom` for a section .data.custom: variables by name (`Variables`), to be set
    between open and load, and read (those that the program may change: set, too) afterwards.
    """

    def __init__(self, process: Process, spec: ObjectSpec, kconfig: ConfigSource | None = None) -> None:
        self._process = process
        self.spec = spec
        self.name = spec.name
        self.programs = {name: ObjectProgram(process, program) for name, program in spec.programs.items()}
        self.maps = ObjectMaps({name: ObjectMap(process, one, spec) for name, one in spec.maps.items()})
        self.skipped: dict[str, str] = dict(spec.skipped)
        self.warnings: list[str] = []
        self.is_loaded = False
        self.btf_fd = -1
        self.kconfig = kconfig

    def __repr__(self) -> str:
        state = "" if self.is_loaded else " open,"
        skipped = f", {len(self.skipped)} left out" if self.skipped else ""
        return f"<BpfObject {self.name}:{state} {len(self.programs)} programs, {len(self.maps)} maps{skipped}>"

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # variables

    @property
    def sections(self) -> dict[str, Variables]:
        """Variables by section: {".rodata": ..., ".bss": ...}."""
        held = [one for one in self.maps.values() if one.spec.section.startswith(".") and one.spec.initial is not None]
        return {one.spec.section: Variables(one, one.spec.section) for one in held}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "maps":
            raise AttributeError(name)
        sections = self.sections
        found = next((one for section, one in sections.items() if section.lstrip(".").replace(".", "_") == name), None)
        if found is None:
            there = ", ".join(section.lstrip(".").replace(".", "_") for section in sections)
            if name in _SECTIONS:
                raise UnknownNameError(f"object {self.name} has no section .{name}, its variables are in: {there or 'none'}")
            raise AttributeError(f"an object has no {name!r}, and {self.name} no such section; there are: {there or 'none'}")
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "kconfig":
            self._set_kconfig(value)
        elif isinstance(value, Mapping) and name not in _FIELDS:
            self.set(value, name)
        else:
            super().__setattr__(name, value)

    def set(self, values: Mapping[str, Any], section: str = "") -> None:
        """Set variables: `targ_pid`, `filter.pid`, `cpus[3]`, `bss.hits`; with `section`, only of that one.

        UnknownNameError, with the names that there are; ObjectError for a value that its variable cannot hold.
        """
        sections = self.sections
        if section:
            found: Variables = getattr(self, section)
            sections = {section: found}
        for path, value in values.items():
            set_variable(sections, path, value)

    def _set_kconfig(self, source: ConfigSource | None) -> None:
        """Fill the options in: those that `source` has, the others as the kernel has them."""
        given = config_from(source) if source is not None else None
        self._options = Options(self.spec, self._process.kernel, given)
        for held in self.maps.values():
            if held.spec.section == KCONFIG_SECTION:
                held.spec.initial = self._options.fill(self.spec, held.spec.initial or b"")

    def unresolved(self, program: ProgramSpec) -> str:
        """Why a program cannot run for want of an option's value, "" if it can."""
        written = {name for held in self.maps.values() if held.spec.section == KCONFIG_SECTION for name in held.written}
        missing = [
            self._options.unknown[name] for name in program.externs if name in self._options.unknown and name not in written
        ]
        return "; ".join(missing)

    @property
    def notes_on_options(self) -> list[str]:
        """Options that read as 0 although they may be set."""
        return self._options.notes

    # programs

    def select(self, patterns: Iterable[str]) -> None:
        """Load these programs and no others: names, or patterns with * and ?. Programs that they may tail-call by what the object
        itself puts into its program arrays come with them. UnknownNameError for a pattern that names none.
        """
        wanted: set[str] = set()
        for pattern in patterns:
            found = fnmatch.filter(self.programs, pattern)
            if not found:
                why = self.skipped.get(pattern)
                there = f", there are: {', '.join(self.programs) or 'none'}" if why is None else f": {why}"
                raise UnknownNameError(f"no program {pattern!r}{there}")
            wanted.update(found)
        todo = list(wanted)
        while todo:
            for ref in self.programs[todo.pop()].spec.map_refs:
                called = [name for name in self.spec.maps[ref.map_name].values.values() if name in self.programs]
                todo += [name for name in called if name not in wanted]
                wanted.update(called)
        for program in self.programs.values():
            program.autoload = program.name in wanted

    # loading and attaching

    def load(self, *, strict: bool = True) -> BpfObject:
        """Create the maps, load the programs: all or nothing. The object itself.

        `strict` False: programs that the kernel refuses are left out, and are in `skipped` with the reason; BpfError only where
        none is left. See `fastrtp.kernel.loader.load.load_object` for errors.
        """
        from fastrtp.kernel.loader.load import load_object

        if self.is_loaded:
            raise BpfError(errno.EINVAL, f"EINVAL: object {self.name} is loaded already")
        load_object(self._process, self, strict=strict)
        return self

    def attach(self, cookie: int = 0, *, strict: bool = True) -> Links:
        """Attach every program whose section names a tracepoint: all or none. BpfError "attach program X: ...".

        `strict` False: those that can be; the others are in `skipped`. Perf event arrays get a ring for each CPU, which a tool
        that reads them would open now.
        """
        if not self.is_loaded:
            raise ObjectError(f"object {self.name} is not loaded yet")
        for held in self.maps.values():
            if hasattr(held.map, "open_rings") and not held.bpf_map.events:
                held.map.open_rings()
        links: list[Link] = []
        try:
            for program in self.programs.values():
                if not program.auto_attachable:
                    continue
                try:
                    links.append(program.attach(cookie=cookie))
                except BpfError as error:
                    if strict:
                        raise
                    self.skipped[program.name] = str(error.strerror)
        except BaseException:
            Links(links).close()
            raise
        return Links(links)

    def close(self) -> None:
        """Close all descriptors: what nothing else holds is unloaded."""
        fds = [program.fd for program in self.programs.values()] + [self.btf_fd]
        for held in self.maps.values():
            fds += [held.fd, held.reused_fd]
            held.fd = held.reused_fd = -1
        for program in self.programs.values():
            program.fd = -1
        self.btf_fd = -1
        for fd in fds:
            if fd >= 0 and not self._process.exited:
                self._process.close(fd)


__all__ = ["Autoload", "BpfObject", "Link", "Links", "ObjectMap", "ObjectMaps", "ObjectProgram"]
