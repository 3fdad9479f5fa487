"""The maps of an object: created, filled and pinned, or taken from where they are pinned already.

Kernel counterpart: tools/lib/bpf/libbpf.c:bpf_object__create_maps, bpf_object__create_map, bpf_object__reuse_map
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError, ObjectError
from fastrtp.kernel.loader.programs import wrapped
from fastrtp.kernel.objects.names import object_name
from fastrtp.uapi import BPF_F_RDONLY, BPF_F_WRONLY, BpfMapType

if TYPE_CHECKING:
    from fastrtp.kernel.loader.object import BpfObject, ObjectMap
    from fastrtp.kernel.process import Process
    from fastrtp.obj import MapSpec, ProgramSpec

_PAGE_SIZE = 4096
_LIBBPF_PIN_BY_NAME = 1
_NO_BTF = frozenset({
    BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, BpfMapType.BPF_MAP_TYPE_CGROUP_ARRAY, BpfMapType.BPF_MAP_TYPE_STACK_TRACE,
    BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS, BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS, BpfMapType.BPF_MAP_TYPE_DEVMAP,
    BpfMapType.BPF_MAP_TYPE_CPUMAP, BpfMapType.BPF_MAP_TYPE_XSKMAP, BpfMapType.BPF_MAP_TYPE_SOCKMAP,
    BpfMapType.BPF_MAP_TYPE_SOCKHASH, BpfMapType.BPF_MAP_TYPE_RINGBUF,
    BpfMapType.BPF_MAP_TYPE_USER_RINGBUF,
})  # fmt: skip
_WITHOUT_ENTRIES = frozenset({
    BpfMapType.BPF_MAP_TYPE_TASK_STORAGE, BpfMapType.BPF_MAP_TYPE_CGRP_STORAGE, BpfMapType.BPF_MAP_TYPE_INODE_STORAGE,
    BpfMapType.BPF_MAP_TYPE_SK_STORAGE, BpfMapType.BPF_MAP_TYPE_CGROUP_STORAGE, BpfMapType.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
    BpfMapType.BPF_MAP_TYPE_STRUCT_OPS,
})  # fmt: skip
"""Map types whose max_entries is 0."""
_MAPS_OF_MAPS = (BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS, BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS)


def create_maps(process: Process, obj: BpfObject, programs: list[ProgramSpec], *, strict: bool) -> None:
    """Create the maps; those that fail and that none of the programs uses are left out, and a warning says so.

    BpfError for one that is used; `strict` False: programs are refused only where they reach its use.
    """
    used = _used(obj, programs)
    for held in obj.maps.values():
        if not held.autocreate:
            continue
        try:
            _create(process, obj, held)
        except BpfError as error:
            if strict and held.name in used:
                raise
            use = "" if held.name in used else ", which no program that is loaded uses"
            obj.warnings.append(
                f"map {held.name}{use}, is left out: {str(error.strerror).removeprefix(f'create map {held.name}: ')}"
            )


def _used(obj: BpfObject, programs: list[ProgramSpec]) -> set[str]:
    """Names of the maps that programs use, and of those that are put into these."""
    todo = [ref.map_name for program in programs for ref in program.map_refs]
    out: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in out and name in obj.spec.maps:
            out.add(name)
            todo += obj.spec.maps[name].values.values()
    return out


def _create(process: Process, obj: BpfObject, held: ObjectMap) -> None:
    spec = held.spec
    pin = held.pin_path
    if not pin and spec.pinning == _LIBBPF_PIN_BY_NAME:
        pin = f"{process.kernel.bpffs.mount_point}/{spec.name}"
    if held.reused_fd >= 0:
        fd, held.reused_fd = held.reused_fd, -1
        held.created(fd)
        return
    fd = -1
    try:
        fd = _reuse_pinned(process, spec, pin) if pin else -1
        if fd < 0:
            fd = _new_map(process, obj, spec)
            if pin:
                process.obj_pin(pin, fd)
    except BpfError as error:
        if fd >= 0:
            process.close(fd)
        raise wrapped(f"create map {spec.name}", error, _why(spec, error)) from error
    held.created(fd)


def _why(spec: MapSpec, error: BpfError) -> str:
    """What is wrong with a map that its user has still to set up."""
    if error.errno != errno.EINVAL or spec.max_entries or spec.map_type in _WITHOUT_ENTRIES:
        return ""
    return (
        f"EINVAL: max_entries is 0, the object leaves it to who loads it: max_entries={{{spec.name!r}: N}}, "
        f"obj.maps[{spec.name!r}].max_entries = N, or --max-entries {spec.name}=N"
    )


def _new_map(process: Process, obj: BpfObject, spec: MapSpec) -> int:
    """A new map; one that the kernel refuses with types is tried without them."""
    with_btf = obj.btf_fd >= 0 and spec.map_type not in _NO_BTF and bool(spec.btf_key_type_id or spec.btf_value_type_id)
    max_entries = spec.max_entries
    if spec.map_type == BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY and not max_entries:
        max_entries = process.kernel.cpus
    if spec.map_type in (BpfMapType.BPF_MAP_TYPE_RINGBUF, BpfMapType.BPF_MAP_TYPE_USER_RINGBUF):
        max_entries = _ringbuf_size(max_entries)
    inner_fd = _new_map(process, obj, spec.inner) if spec.inner is not None else -1
    try:
        try:
            fd = _map_create(process, obj, spec, max_entries, with_btf, max(inner_fd, 0))
        except BpfError as error:
            if not with_btf:
                raise
            fd = _map_create(process, obj, spec, max_entries, False, max(inner_fd, 0))
            obj.warnings.append(f"map {spec.name} is created without types, with which the kernel refuses it: {error.strerror}")
    finally:
        if inner_fd >= 0:
            process.close(inner_fd)
    try:
        if spec.initial is not None:
            process.map_update_elem(fd, bytes(spec.key_size), spec.initial)
        if spec.frozen:
            process.map_freeze(fd)
    except BaseException:
        process.close(fd)
        raise
    return fd


def _map_create(process: Process, obj: BpfObject, spec: MapSpec, max_entries: int, with_btf: bool, inner_fd: int) -> int:
    return process.map_create(
        spec.map_type, spec.key_size, spec.value_size, max_entries, spec.map_flags, name=object_name(spec.name),
        numa_node=spec.numa_node, map_extra=spec.map_extra, btf_fd=max(obj.btf_fd, 0) if with_btf else 0,
        btf_key_type_id=spec.btf_key_type_id if with_btf else 0, btf_value_type_id=spec.btf_value_type_id if with_btf else 0,
        inner_map_fd=inner_fd,
    )  # fmt: skip


def _ringbuf_size(size: int) -> int:
    """The next power of two of pages. Kernel: tools/lib/bpf/libbpf.c:adjust_ringbuf_sz"""
    pages = -(-size // _PAGE_SIZE)
    return _PAGE_SIZE << (pages - 1).bit_length() if pages else 0


def _reuse_pinned(process: Process, spec: MapSpec, pin: str | os.PathLike[str]) -> int:
    """Descriptor of the map that is pinned by the name, -1 where there is none. BpfError EINVAL for one of another shape."""
    try:
        fd = process.obj_get(os.fspath(pin))
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


def fill_maps_of_maps(obj: BpfObject) -> None:
    """The maps that the object puts into maps of maps. Kernel: tools/lib/bpf/libbpf.c:init_map_in_map_slots"""
    for held in obj.maps.values():
        if held.fd < 0 or held.spec.map_type not in _MAPS_OF_MAPS:
            continue
        for slot, target in held.spec.values.items():
            inner = obj.maps.get(target)
            if inner is None or inner.fd < 0:
                raise ObjectError(f"fill map {held.name}: map {target!r} for slot {slot} does not exist")
            try:
                held.update(slot.to_bytes(held.spec.key_size, "little"), inner.fd.to_bytes(4, "little"))
            except BpfError as error:
                raise wrapped(f"fill map {held.name}, slot {slot} with {target}", error) from error
