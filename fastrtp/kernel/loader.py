"""Loading an object file as libbpf does: BTF, maps, relocation, programs, program arrays; all or nothing.

Every stage wraps what goes wrong: "load program sw: ...", "create map counts: ...".

Kernel counterpart: tools/lib/bpf/libbpf.c:bpf_object_load
"""

from __future__ import annotations

import errno
import os
import re
import string
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from fastrtp.btf.core import BPF_CORE_POISON
from fastrtp.btf.kfuncs import kfunc_id
from fastrtp.errors import BpfError, JitError, ObjectError, VerifierError
from fastrtp.isa import Insn, encode
from fastrtp.obj import MapSpec, ObjectSpec, ProgramSpec
from fastrtp.uapi import (
    BPF_F_RDONLY,
    BPF_F_WRONLY,
    BPF_OBJ_NAME_LEN,
    BPF_PSEUDO_KFUNC_CALL,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_VALUE,
    BpfMapType,
    BpfProgType,
)

from .kconfig import kconfig_values
from .object import BpfObject, ObjectMap, ObjectProgram

if TYPE_CHECKING:
    from .process import Process

_PAGE_SIZE = 4096
_LIBBPF_PIN_BY_NAME = 1
_NO_BTF = frozenset({
    BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, BpfMapType.BPF_MAP_TYPE_CGROUP_ARRAY, BpfMapType.BPF_MAP_TYPE_STACK_TRACE,
    BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS, BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS, BpfMapType.BPF_MAP_TYPE_DEVMAP,
    BpfMapType.BPF_MAP_TYPE_CPUMAP, BpfMapType.BPF_MAP_TYPE_XSKMAP, BpfMapType.BPF_MAP_TYPE_SOCKMAP,
    BpfMapType.BPF_MAP_TYPE_SOCKHASH, BpfMapType.BPF_MAP_TYPE_RINGBUF,
    BpfMapType.BPF_MAP_TYPE_USER_RINGBUF,
})  # fmt: skip
_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "_.")

Autoload = Callable[[ProgramSpec], bool] | Collection[str] | None


def load(process: Process, source: str | os.PathLike[str] | bytes, *, name: str = "", autoload: Autoload = None) -> BpfObject:
    """Load an object for a process. `autoload`: the programs to load, by name or by a test; None: as their sections say.

    ObjectError for a file that is no such object; BpfError and VerifierError, with the stage, for what the kernel refuses.
    """
    data, name = _read(source, name)
    spec = ObjectSpec.parse(data, name)
    obj = BpfObject(process, spec)
    try:
        _load_btf(process, obj)
        for map_spec in spec.maps.values():
            _create_map(process, obj, map_spec)
        for map_spec in spec.maps.values():
            _fill_map_of_maps(obj, map_spec)
        with process.kernel.compile_together():
            for program in spec.programs.values():
                if _wanted(program, autoload):
                    _load_program(process, obj, program)
                else:
                    obj.skipped[program.name] = f"section {program.section!r}: not loaded automatically"
        _finish(obj)
        for map_spec in spec.maps.values():
            _fill_prog_array(obj, map_spec)
    except BaseException:
        obj.close()
        raise
    return obj


def _read(source: str | os.PathLike[str] | bytes, name: str) -> tuple[bytes, str]:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), name
    try:
        with open(source, "rb") as file:
            return file.read(), name or os.path.basename(os.fspath(source))
    except OSError as error:
        raise ObjectError(f"{os.fspath(source)}: {(error.strerror or str(error)).lower()}") from error


def _wanted(program: ProgramSpec, autoload: Autoload) -> bool:
    if autoload is None:
        return program.autoload
    return autoload(program) if callable(autoload) else program.name in autoload


def _load_btf(process: Process, obj: BpfObject) -> None:
    if not obj.spec.btf_bytes:
        return
    try:
        obj.btf_fd = process.btf_load(obj.spec.btf_bytes)
    except BpfError as error:
        raise _wrapped("load BTF", error) from error


def _object_name(name: str) -> str:
    """A name as the kernel takes it: 15 characters, odd ones replaced. Kernel: tools/lib/bpf/libbpf.c"""
    return "".join(char if char in _NAME_CHARACTERS else "_" for char in name)[: BPF_OBJ_NAME_LEN - 1]


def _create_map(process: Process, obj: BpfObject, spec: MapSpec) -> None:
    stage = f"create map {spec.name}"
    pin = f"{process.kernel.bpffs.mount_point}/{spec.name}" if spec.pinning == _LIBBPF_PIN_BY_NAME else ""
    try:
        fd = _reuse_pinned(process, spec, pin) if pin else -1
        if fd < 0:
            fd = _new_map(process, obj, spec)
            if pin:
                process.obj_pin(pin, fd)
    except BpfError as error:
        raise _wrapped(stage, error) from error
    obj.maps[spec.name] = ObjectMap(process, spec, fd, process.files.fget(fd).private_data)


def _new_map(process: Process, obj: BpfObject, spec: MapSpec) -> int:
    with_btf = obj.btf_fd >= 0 and spec.map_type not in _NO_BTF and bool(spec.btf_value_type_id)
    max_entries = spec.max_entries
    if spec.map_type == BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY and not max_entries:
        max_entries = process.kernel.cpus
    if spec.map_type in (BpfMapType.BPF_MAP_TYPE_RINGBUF, BpfMapType.BPF_MAP_TYPE_USER_RINGBUF):
        max_entries = _ringbuf_size(max_entries)
    inner_fd = _new_map(process, obj, spec.inner) if spec.inner is not None else -1
    try:
        fd = _map_create(process, obj, spec, max_entries, with_btf, max(inner_fd, 0))
    finally:
        if inner_fd >= 0:
            process.close(inner_fd)
    try:
        initial = kconfig_values(process.kernel, spec)
        if initial is not None:
            process.map_update_elem(fd, bytes(spec.key_size), initial)
        if spec.frozen:
            process.map_freeze(fd)
    except BaseException:
        process.close(fd)
        raise
    return fd


def _map_create(process: Process, obj: BpfObject, spec: MapSpec, max_entries: int, with_btf: bool, inner_fd: int) -> int:
    return process.map_create(
        spec.map_type, spec.key_size, spec.value_size, max_entries, spec.map_flags, name=_object_name(spec.name),
        numa_node=spec.numa_node, map_extra=spec.map_extra, btf_fd=max(obj.btf_fd, 0) if with_btf else 0,
        btf_key_type_id=spec.btf_key_type_id if with_btf else 0, btf_value_type_id=spec.btf_value_type_id if with_btf else 0,
        inner_map_fd=inner_fd,
    )  # fmt: skip


def _ringbuf_size(size: int) -> int:
    """The next power of two of pages. Kernel: tools/lib/bpf/libbpf.c:adjust_ringbuf_sz"""
    pages = -(-size // _PAGE_SIZE)
    return _PAGE_SIZE << (pages - 1).bit_length() if pages else 0


def _reuse_pinned(process: Process, spec: MapSpec, pin: str) -> int:
    """Descriptor of the map that is pinned by the name, -1 where there is none. BpfError EINVAL for one of another shape."""
    try:
        fd = process.obj_get(pin)
    except BpfError as error:
        if error.errno == errno.ENOENT:
            return -1
        raise
    found = process.files.fget(fd).private_data.map
    theirs = (found.map_type, found.key_size, found.value_size, found.max_entries, found.map_flags)
    ours = (spec.map_type, spec.key_size, spec.value_size, spec.max_entries, spec.map_flags & ~(BPF_F_RDONLY | BPF_F_WRONLY))
    if theirs != ours:
        process.close(fd)
        raise BpfError(errno.EINVAL, f"the map pinned at {pin} has (type, key, value, entries, flags) {theirs}, wanted {ours}")
    return fd


def _load_program(process: Process, obj: BpfObject, program: ProgramSpec) -> None:
    stage = f"load program {program.name}"
    attach_btf_id, attach_btf_obj_fd = _attach_target(process, program, stage)
    insns = _with_map_fds(obj, program, obj.spec.relocated(program, process.kernel.btf))
    _resolve_kfuncs(process, program, insns)
    with_info = obj.btf_fd >= 0 and len(program.func_info) > 0
    process.expected = program.attach_name
    try:
        fd = process.prog_load(
            program.prog_type, encode(insns), obj.spec.license, _prog_flags(program), name=_object_name(program.name),
            expected_attach_type=program.attach_type, attach_btf_id=attach_btf_id, attach_btf_obj_fd=attach_btf_obj_fd,
            btf_fd=obj.btf_fd if with_info else 0,
            func_info=program.func_info.tobytes() if with_info else b"",
            line_info=program.line_info.tobytes() if with_info else b"",
        )  # fmt: skip
    except BpfError as error:
        if isinstance(error, VerifierError) and error.report is not None and program.attach_name:
            from fastrtp.verifier.report import for_tracepoint

            error.report = for_tracepoint(error.report, process.kernel.btf, program.attach_name)
        raise _wrapped(stage, error, _poisoned(obj, program, error)) from error
    finally:
        process.expected = ""
        if attach_btf_obj_fd:
            process.close(attach_btf_obj_fd)
    obj.programs[program.name] = ObjectProgram(process, program, fd, process.files.fget(fd).private_data)


def _finish(obj: BpfObject) -> None:
    """Wait for the compiler. JitError with the program that it refused."""
    for program in obj.programs.values():
        try:
            program.prog.finish()
        except JitError as error:
            raise JitError(f"load program {program.name}: {error}") from error


def _prog_flags(program: ProgramSpec) -> int:
    from fastrtp.uapi import BPF_F_SLEEPABLE

    return BPF_F_SLEEPABLE if program.sleepable else 0


def _attach_target(process: Process, program: ProgramSpec, stage: str) -> tuple[int, int]:
    """(attach_btf_id, descriptor of the module's BTF or 0) of a tp_btf program. ObjectError for an unknown tracepoint."""
    if program.prog_type != BpfProgType.BPF_PROG_TYPE_TRACING:
        return 0, 0
    kernel, name = process.kernel, program.attach_name
    if name not in kernel.tracepoints:
        raise ObjectError(f"{stage}: the kernel has no tracepoint {name!r}", section=program.section)
    module = kernel.modules.get(name)
    btf_id = kernel.tracepoints.proto(name).btf_id
    return btf_id, process.fd_by_id("btf", module.id) if module is not None else 0


def _with_map_fds(obj: BpfObject, program: ProgramSpec, insns: list[Insn]) -> list[Insn]:
    """The descriptors of the maps in place. Kernel: tools/lib/bpf/libbpf.c:bpf_object__relocate_data"""
    insns = list(insns)
    for ref in program.map_refs:
        source = BPF_PSEUDO_MAP_FD if ref.value_offset is None else BPF_PSEUDO_MAP_VALUE
        insns[ref.insn_idx] = insns[ref.insn_idx]._replace(src_reg=source, imm=obj.maps[ref.map_name].fd)
        insns[ref.insn_idx + 1] = insns[ref.insn_idx + 1]._replace(imm=ref.value_offset or 0)
    return insns


def _resolve_kfuncs(process: Process, program: ProgramSpec, insns: list[Insn]) -> None:
    """Calls of kernel functions by the kernel's ids; unknown weak ones stay poisoned, as libbpf leaves them."""
    for index, name in program.kfunc_refs:
        ident = kfunc_id(process.kernel.btf, name)
        if ident is not None:
            insns[index] = insns[index]._replace(src_reg=BPF_PSEUDO_KFUNC_CALL, off=0, imm=ident)


def _fill_map_of_maps(obj: BpfObject, spec: MapSpec) -> None:
    """The maps that the object puts into a map of maps. Kernel: tools/lib/bpf/libbpf.c:init_map_in_map_slots"""
    if spec.map_type not in (BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS, BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS):
        return
    for slot, target in spec.values.items():
        inner = obj.maps.get(target)
        if inner is None:
            raise ObjectError(f"fill map {spec.name}: map {target!r} for slot {slot} does not exist")
        try:
            obj.maps[spec.name].update(slot.to_bytes(spec.key_size, "little"), inner.fd.to_bytes(4, "little"))
        except BpfError as error:
            raise _wrapped(f"fill map {spec.name}, slot {slot} with {target}", error) from error


def _fill_prog_array(obj: BpfObject, spec: MapSpec) -> None:
    """What the object says is in a program array. Kernel: tools/lib/bpf/libbpf.c:init_prog_array_slots"""
    if spec.map_type != BpfMapType.BPF_MAP_TYPE_PROG_ARRAY:
        return
    for slot, target in spec.values.items():
        program = obj.programs.get(target)
        if program is None:
            raise ObjectError(f"fill map {spec.name}: program {target!r} for slot {slot} is not loaded")
        try:
            obj.maps[spec.name].update(slot.to_bytes(4, "little"), program.fd.to_bytes(4, "little"))
        except BpfError as error:
            raise _wrapped(f"fill map {spec.name}, slot {slot} with {target}", error) from error


def _poisoned(obj: BpfObject, program: ProgramSpec, error: BpfError) -> str:
    """What a CO-RE relocation did not find, when that is why the verifier stopped. Kernel: libbpf.c:fixup_log_failed_core_relo"""
    if f"invalid func unknown#{BPF_CORE_POISON}" not in error.log:
        return ""
    # the last one: earlier poisoned instructions may be behind a guard, the verifier does not reach them
    found = re.findall(rf"^(\d+): \(85\) call unknown#{BPF_CORE_POISON}", error.log, re.MULTILINE)
    relo = obj.spec.core_relo_at(program.name, int(found[-1])) if found else ""
    return f"instruction {found[-1]} needs {relo}, which the kernel's BTF does not have" if relo else ""


def _wrapped(stage: str, error: BpfError, why: str = "") -> BpfError:
    """The same error with the stage in front."""
    kind = VerifierError if isinstance(error, VerifierError) else BpfError
    wrapped = kind(error.errno or 0, f"{stage}: {why or error.strerror}", log=error.log)
    if isinstance(error, VerifierError) and isinstance(wrapped, VerifierError):
        wrapped.report = error.report
    return wrapped
