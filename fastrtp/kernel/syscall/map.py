"""BPF_MAP_CREATE, the element commands and BPF_MAP_FREEZE.

Kernel counterpart: kernel/bpf/syscall.c (map_create ... map_freeze).
"""

from __future__ import annotations

import errno

from fastrtp.errors import BpfError
from fastrtp.kernel.files.file import File
from fastrtp.kernel.files.uaccess import copy_from_user, copy_to_user
from fastrtp.kernel.objects.bpf_map import BpfMap, not_supported
from fastrtp.kernel.objects.btf_object import BtfObject
from fastrtp.kernel.objects.names import bpf_obj_name_cpy
from fastrtp.kernel.syscall.call import Call, bpf_get_file_flag
from fastrtp.kernel.syscall.map_btf import map_check_btf
from fastrtp.kernel.syscall.map_owner import owner_of
from fastrtp.kernel.syscall.map_value import bpf_map_copy_value, bpf_map_update_value, has_spin_lock
from fastrtp.maps.fields import FieldRow
from fastrtp.uapi import BPF_F_LOCK, BPF_F_NUMA_NODE, BPF_F_RDONLY, BPF_F_TOKEN_FD, BPF_F_WRONLY, BpfMapType

_SHA256_SIZE = 32


def map_create(call: Call) -> int:
    """BPF_MAP_CREATE: the descriptor. BpfError EINVAL, E2BIG, EPERM, ENOMEM, EBADF (BTF), EMFILE.

    Kernel: kernel/bpf/syscall.c:map_create
    """
    from fastrtp.maps import MAP_OPS, Holds, MapAttr, bpf_map_meta_alloc, map_alloc_check
    from fastrtp.maps import map_create as make_map

    attr = call.attr
    call.check_attr()
    map_flags = attr.map_flags & ~BPF_F_TOKEN_FD
    if attr.btf_vmlinux_value_type_id:
        raise BpfError(errno.EINVAL, "EINVAL: btf_vmlinux_value_type_id is for struct_ops maps")
    if attr.btf_key_type_id and not attr.btf_value_type_id:
        raise BpfError(errno.EINVAL, "EINVAL: btf_key_type_id without btf_value_type_id")
    ops = MAP_OPS.get(attr.map_type)
    if attr.map_extra and not (ops is not None and ops.map_extra):
        raise BpfError(errno.EINVAL, f"EINVAL: map_extra {attr.map_extra:#x} on a map type that has none")
    f_flags = bpf_get_file_flag(map_flags)
    if map_flags & BPF_F_NUMA_NODE and attr.numa_node != 0:
        raise BpfError(errno.EINVAL, f"EINVAL: no NUMA node {attr.numa_node}")
    map_attr = MapAttr(
        map_type=attr.map_type,
        key_size=attr.key_size,
        value_size=attr.value_size,
        max_entries=attr.max_entries,
        map_flags=map_flags,
        numa_node=attr.numa_node,
        map_extra=attr.map_extra,
        btf_key_type_id=attr.btf_key_type_id,
        btf_value_type_id=attr.btf_value_type_id,
    )
    map_alloc_check(map_attr)
    if attr.map_ifindex:
        raise BpfError(errno.EINVAL, f"EINVAL: no network device {attr.map_ifindex} to put the map on")
    if attr.map_flags != map_flags:
        call.token_get(attr.map_token_fd)
    call.require_capable("BPF_MAP_CREATE")
    if ops is not None and ops.holds is Holds.MAPS:
        map_attr.inner_map = bpf_map_meta_alloc(call.map_get(attr.inner_map_fd).map)
    contents = make_map(map_attr, call.kernel.memory)
    contents.map_flags &= ~(BPF_F_RDONLY | BPF_F_WRONLY)  # those belong to the descriptor: bpf_map_flags_retain_permanent
    try:
        name = contents.name = bpf_obj_name_cpy(_name_field(call, "map_name"))
        btf, rows = _map_btf(call)
        _check_excl_prog_hash(call)
    except BpfError:
        contents.close()
        raise
    if btf is not None:
        btf.get()
        contents.btf = btf.btf
        contents.btf_key_type_id = attr.btf_key_type_id
        contents.btf_value_type_id = attr.btf_value_type_id
        contents.set_fields(rows)
    bpf_map = BpfMap(call.kernel.maps, contents, name, btf)
    try:
        return call.map_new_fd(bpf_map, f_flags)
    except BpfError:
        bpf_map.put_with_uref()
        raise


def _name_field(call: Call, field: str) -> bytes:
    """The 16 bytes of a name: ctypes stops at a NUL, which is where the name ends."""
    return bytes(getattr(call.attr, field))


def _map_btf(call: Call) -> tuple[BtfObject | None, list[FieldRow]]:
    attr = call.attr
    if not (attr.btf_key_type_id or attr.btf_value_type_id):
        return None, []
    btf = call.btf_get(attr.btf_fd)
    if btf.kernel_btf:
        raise BpfError(errno.EACCES, f"EACCES: BTF {btf.id} describes the kernel, not a map")
    return btf, map_check_btf(attr, btf.btf, call.kernel.btf) if attr.btf_value_type_id else []


def _check_excl_prog_hash(call: Call) -> None:
    attr = call.attr
    if attr.excl_prog_hash:
        if attr.excl_prog_hash_size != _SHA256_SIZE:
            raise BpfError(errno.EINVAL, f"EINVAL: excl_prog_hash_size {attr.excl_prog_hash_size} is not {_SHA256_SIZE}")
        copy_from_user(attr.excl_prog_hash, _SHA256_SIZE)
    elif attr.excl_prog_hash_size:
        raise BpfError(errno.EINVAL, f"EINVAL: excl_prog_hash_size {attr.excl_prog_hash_size} without excl_prog_hash")


def check_readable(bpf_map: BpfMap, file: File) -> None:
    """BpfError EPERM."""
    if not bpf_map.readable(file):
        raise BpfError(errno.EPERM, f"EPERM: this descriptor of map {bpf_map.id} is write-only")


def check_writable(bpf_map: BpfMap, file: File) -> None:
    """BpfError EPERM, for frozen maps too."""
    if not bpf_map.writable(file):
        why = "frozen" if bpf_map.map.frozen else "read-only through this descriptor"
        raise BpfError(errno.EPERM, f"EPERM: map {bpf_map.id} is {why}")


def check_lock_flag(bpf_map: BpfMap, flags: int) -> None:
    """BPF_F_LOCK is for values with a spin lock. BpfError EINVAL."""
    if flags & BPF_F_LOCK and not has_spin_lock(bpf_map):
        raise BpfError(errno.EINVAL, f"EINVAL: BPF_F_LOCK on map {bpf_map.id}, whose values hold no bpf_spin_lock")


def copy_key(bpf_map: BpfMap, address: int) -> bytes:
    """The key at a user address. BpfError EFAULT; EINVAL for a key where the map has none. Kernel: __bpf_copy_key"""
    if bpf_map.map.key_size:
        return copy_from_user(address, bpf_map.map.key_size)
    if address:
        raise BpfError(errno.EINVAL, f"EINVAL: a key for map {bpf_map.id}, which has none")
    return b""


def map_lookup_elem(call: Call) -> int:
    """BPF_MAP_LOOKUP_ELEM. BpfError EINVAL, EBADF, EPERM, EFAULT, ENOENT, ENOTSUPP. Kernel: map_lookup_elem"""
    from fastrtp.maps import BloomFilter

    attr = call.attr
    call.check_attr()
    if attr.flags & ~BPF_F_LOCK:
        raise BpfError(errno.EINVAL, f"EINVAL: flags {attr.flags:#x} of a lookup, only BPF_F_LOCK is allowed")
    bpf_map, file = call.map_get(attr.map_fd), call.file(attr.map_fd)
    check_readable(bpf_map, file)
    check_lock_flag(bpf_map, attr.flags)
    key = copy_key(bpf_map, attr.key)
    if isinstance(bpf_map.map, BloomFilter):
        copy_to_user(attr.value, bpf_map.map.test(copy_from_user(attr.value, bpf_map.map.value_size)))
        return 0
    copy_to_user(attr.value, bpf_map_copy_value(call, bpf_map, key, attr.flags))
    return 0


def map_update_elem(call: Call) -> int:
    """BPF_MAP_UPDATE_ELEM. BpfError EINVAL, EBADF, EPERM, EFAULT, E2BIG, EEXIST, ENOENT, ENOMEM. Kernel: map_update_elem"""
    attr = call.attr
    call.check_attr()
    bpf_map, file = call.map_get(attr.map_fd), call.file(attr.map_fd)
    check_writable(bpf_map, file)
    check_lock_flag(bpf_map, attr.flags)
    key = copy_key(bpf_map, attr.key)
    value = copy_from_user(attr.value, bpf_map.value_size_user)
    bpf_map_update_value(call, bpf_map, file, key, value, attr.flags)
    return 0


def map_delete_elem(call: Call) -> int:
    """BPF_MAP_DELETE_ELEM. BpfError EINVAL, EBADF, EPERM, EFAULT, ENOENT. Kernel: map_delete_elem"""
    attr = call.attr
    call.check_attr()
    bpf_map, file = call.map_get(attr.map_fd), call.file(attr.map_fd)
    check_writable(bpf_map, file)
    key = copy_key(bpf_map, attr.key)
    if bpf_map.is_fd_array:
        bpf_map.delete_fd(int.from_bytes(key, "little"))
    elif bpf_map.is_map_of_maps:
        bpf_map.delete_inner(key)
    elif bpf_map.map.ops.owner:
        bpf_map.map.delete_owner(owner_of(call, bpf_map, key)[0])
    else:
        bpf_map.map.delete_elem(key)
    return 0


def map_get_next_key(call: Call) -> int:
    """BPF_MAP_GET_NEXT_KEY. BpfError EINVAL, EBADF, EPERM, EFAULT, ENOENT (no more). Kernel: map_get_next_key"""
    attr = call.attr
    call.check_attr()
    bpf_map, file = call.map_get(attr.map_fd), call.file(attr.map_fd)
    check_readable(bpf_map, file)
    key = copy_key(bpf_map, attr.key) if attr.key else None
    copy_to_user(attr.next_key, bpf_map.map.get_next_key(key))
    return 0


def map_lookup_and_delete_elem(call: Call) -> int:
    """BPF_MAP_LOOKUP_AND_DELETE_ELEM. BpfError as lookup and delete. Kernel: map_lookup_and_delete_elem"""
    attr = call.attr
    call.check_attr()
    if attr.flags & ~BPF_F_LOCK:
        raise BpfError(errno.EINVAL, f"EINVAL: flags {attr.flags:#x} of a lookup, only BPF_F_LOCK is allowed")
    bpf_map, file = call.map_get(attr.map_fd), call.file(attr.map_fd)
    check_readable(bpf_map, file)
    check_writable(bpf_map, file)
    if attr.flags and not bpf_map.map.key_size:
        raise BpfError(errno.EINVAL, f"EINVAL: flags {attr.flags:#x} on a queue or stack")
    check_lock_flag(bpf_map, attr.flags)
    key = copy_key(bpf_map, attr.key)
    if not bpf_map.map.ops.lookup_and_delete:
        raise not_supported(f"lookup-and-delete on a map of type {BpfMapType(bpf_map.map_type).name}")
    copy_to_user(attr.value, bpf_map.map.lookup_and_delete_elem(key, attr.flags))
    return 0


def map_freeze(call: Call) -> int:
    """BPF_MAP_FREEZE: no more changes by system call. BpfError EINVAL, EBADF, EPERM (read-only or frozen already), ENOTSUPP.

    Kernel: kernel/bpf/syscall.c:map_freeze
    """
    call.check_attr()
    bpf_map, file = call.map_get(call.attr.map_fd), call.file(call.attr.map_fd)
    if bpf_map.map.fields:
        raise not_supported("freezing a map whose values hold special fields")
    check_writable(bpf_map, file)
    bpf_map.map.frozen = True
    return 0
