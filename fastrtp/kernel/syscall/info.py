"""BPF_OBJ_GET_INFO_BY_FD: what a program, map, link or BTF is, in the caller's structure of whatever length.

Kernel counterpart: kernel/bpf/syscall.c (bpf_*_get_info_by_fd), kernel/bpf/btf.c:btf_get_info_by_fd
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
from typing import Any

from fastrtp.errors import BpfError
from fastrtp.kernel.files.file import signed
from fastrtp.kernel.files.uaccess import (
    check_uarg_tail_zero,
    copy_from_user,
    copy_string_to_user,
    copy_to_user,
    put_user_u32,
    put_user_u64,
)
from fastrtp.kernel.objects.bpf_map import BpfMap
from fastrtp.kernel.objects.btf_object import BtfObject
from fastrtp.kernel.objects.jited import jited_functions, jited_linfo
from fastrtp.kernel.objects.link import BpfLink, BpfRawTpLink
from fastrtp.kernel.objects.prog import BpfProg
from fastrtp.kernel.syscall.call import Call
from fastrtp.uapi import (
    BPF_FUNC_INFO_SIZE,
    BPF_LINE_INFO_SIZE,
    BpfMapType,
    bpf_btf_info,
    bpf_link_info_raw_tracepoint,
    bpf_map_info,
    bpf_prog_info,
)

_SHA256_SIZE = 32
_HASHABLE = frozenset({BpfMapType.BPF_MAP_TYPE_ARRAY})


def bpf_obj_get_info_by_fd(call: Call) -> int:
    """BPF_OBJ_GET_INFO_BY_FD. BpfError EINVAL, EBADFD (not open), E2BIG, EFAULT, ENOSPC. Kernel: bpf_obj_get_info_by_fd"""
    call.check_attr()
    try:
        obj = call.file(call.attr.bpf_fd).private_data
    except BpfError as error:
        raise BpfError(errno.EBADFD, f"EBADFD: file descriptor {signed(call.attr.bpf_fd)} is not open") from error
    if isinstance(obj, BpfProg):
        _fill(call, bpf_prog_info, lambda info: _prog(call, obj, info))
    elif isinstance(obj, BpfMap):
        _fill(call, bpf_map_info, lambda info: _map(obj, info))
    elif isinstance(obj, BtfObject):
        if not _fill(call, bpf_btf_info, lambda info: _btf(obj, info)):
            raise BpfError(errno.ENOSPC, f"ENOSPC: name {obj.name!r} does not fit")
    elif isinstance(obj, BpfLink):
        _fill(call, bpf_link_info_raw_tracepoint, lambda info: _link(obj, info))
    else:
        raise BpfError(errno.EINVAL, f"EINVAL: file descriptor {call.attr.bpf_fd} is of no BPF object")
    return 0


def _fill(call: Call, struct: type[ctypes.Structure], fill: Any) -> Any:
    """Read the caller's structure, let `fill` change it, write back as much as the caller has room for."""
    address, known = call.attr.info, ctypes.sizeof(struct)
    check_uarg_tail_zero(address, known, call.attr.info_len)
    length = min(known, call.attr.info_len)
    info = struct.from_buffer_copy(copy_from_user(address, length).ljust(known, b"\0"))
    result = fill(info)
    copy_to_user(address, bytes(info)[:length])
    call.put_user("info_len", length)
    return result


def _copy_array(address: int, room: int, data: bytes, item: int) -> None:
    """As many items as there is room for."""
    copy_to_user(address, data[: room * item])


def _prog(call: Call, prog: BpfProg, info: Any) -> None:
    """Kernel: kernel/bpf/syscall.c:bpf_prog_get_info_by_fd"""
    aux = prog.aux
    info.type, info.id = prog.type, prog.id
    info.load_time, info.created_by_uid, info.gpl_compatible = aux.load_time, aux.created_by_uid, int(aux.gpl_compatible)
    info.tag = type(info.tag)(*prog.tag)
    info.name = prog.name.encode()
    room, info.nr_map_ids = info.nr_map_ids, len(prog.used_maps)
    for index, bpf_map in enumerate(prog.used_maps[:room]):
        put_user_u32(info.map_ids + 4 * index, bpf_map.id)
    _set_info_rec_size(info)
    info.run_time_ns, info.run_cnt, info.recursion_misses = prog.stats()
    info.verified_insns = prog.verified.verified_insns
    if aux.btf is not None:
        info.btf_id = aux.btf.id
    xlated = prog.xlated()
    room, info.xlated_prog_len = info.xlated_prog_len, len(xlated)
    if room:
        copy_to_user(info.xlated_prog_insns, xlated[:room])
    functions = jited_functions(prog)
    code = b"".join(function.code for function in functions)
    room, info.jited_prog_len = info.jited_prog_len, len(code)
    if room:
        copy_to_user(info.jited_prog_insns, code[:room])
    room, info.nr_jited_ksyms = info.nr_jited_ksyms, len(functions)
    for index, function in enumerate(functions[:room]):
        put_user_u64(info.jited_ksyms + 8 * index, function.address)
    room, info.nr_jited_func_lens = info.nr_jited_func_lens, len(functions)
    for index, function in enumerate(functions[:room]):
        put_user_u32(info.jited_func_lens + 4 * index, len(function.code))
    info.attach_btf_id = aux.attach_btf_id
    if aux.attach_btf is not None:
        info.attach_btf_obj_id = aux.attach_btf.id
    for noun, rows, size in (("func_info", aux.func_info, BPF_FUNC_INFO_SIZE), ("line_info", aux.line_info, BPF_LINE_INFO_SIZE)):
        room = getattr(info, "nr_" + noun)
        setattr(info, "nr_" + noun, 0 if rows is None else len(rows))
        if room and rows is not None and len(rows):
            _copy_array(getattr(info, noun), room, rows.tobytes(), size)
    room = info.nr_jited_line_info
    info.nr_jited_line_info = info.nr_line_info if code else 0
    if room and info.nr_jited_line_info:
        for index, address in enumerate(jited_linfo(prog)[:room]):
            put_user_u64(info.jited_line_info + 8 * index, address)
    room, info.nr_prog_tags = info.nr_prog_tags, len(functions)
    for index, function in enumerate(functions[:room]):
        copy_to_user(info.prog_tags + 8 * index, function.tag)


def _set_info_rec_size(info: Any) -> None:
    """Record sizes that the caller states have to be ours. Kernel: kernel/bpf/syscall.c:set_info_rec_size"""
    for noun, size in (("func_info", BPF_FUNC_INFO_SIZE), ("line_info", BPF_LINE_INFO_SIZE), ("jited_line_info", 8)):
        stated = getattr(info, noun + "_rec_size")
        if (getattr(info, "nr_" + noun) or stated) and stated != size:
            raise BpfError(errno.EINVAL, f"EINVAL: {noun}_rec_size {stated} is not {size}")
        setattr(info, noun + "_rec_size", size)


def _map(bpf_map: BpfMap, info: Any) -> None:
    """Kernel: kernel/bpf/syscall.c:bpf_map_get_info_by_fd"""
    contents = bpf_map.map
    info.id = bpf_map.id
    info.type, info.key_size, info.value_size = contents.map_type, contents.key_size, contents.value_size
    info.max_entries, info.map_flags, info.map_extra = contents.max_entries, contents.map_flags, contents.map_extra
    info.name = bpf_map.name.encode()
    if bpf_map.btf is not None:
        info.btf_id = bpf_map.btf.id
        info.btf_key_type_id, info.btf_value_type_id = contents.btf_key_type_id, contents.btf_value_type_id
    if info.hash:
        if contents.map_type not in _HASHABLE:
            raise BpfError(errno.EINVAL, "EINVAL: only arrays have a hash of their contents")
        if info.hash_size != _SHA256_SIZE:
            raise BpfError(errno.EINVAL, f"EINVAL: hash_size {info.hash_size} is not {_SHA256_SIZE}")
        if not contents.frozen:
            raise BpfError(errno.EPERM, f"EPERM: map {bpf_map.id} is not frozen, its contents may change")
        copy_to_user(info.hash, hashlib.sha256(b"".join(value for _key, value in contents.raw_items())).digest())
    elif info.hash_size:
        raise BpfError(errno.EINVAL, f"EINVAL: hash_size {info.hash_size} without hash")


def _link(link: BpfLink, info: Any) -> None:
    """Kernel: kernel/bpf/syscall.c:bpf_link_get_info_by_fd, bpf_raw_tp_link_fill_link_info"""
    info.type, info.id, info.prog_id = link.type, link.id, link.prog.id
    if not isinstance(link, BpfRawTpLink):
        return
    room = info.tp_name_len
    if bool(room) != bool(info.tp_name):
        raise BpfError(errno.EINVAL, f"EINVAL: tp_name buffer of {room} bytes at address {info.tp_name:#x}")
    name = link.tp_name.encode()
    info.tp_name_len = len(name) + 1
    info.cookie = link.cookie
    if room and not copy_string_to_user(info.tp_name, room, name):
        raise BpfError(errno.ENOSPC, f"ENOSPC: name of {len(name)} bytes and a NUL, the buffer has {room}")


def _btf(btf: BtfObject, info: Any) -> bool:
    """Whether the name fitted. Kernel: kernel/bpf/btf.c:btf_get_info_by_fd"""
    info.id = btf.id
    copy_to_user(info.btf, btf.data[: info.btf_size])
    info.btf_size = len(btf.data)
    info.kernel_btf = int(btf.kernel_btf)
    if bool(info.name) != bool(info.name_len):
        raise BpfError(errno.EINVAL, f"EINVAL: name buffer of {info.name_len} bytes at address {info.name:#x}")
    name = btf.name.encode()
    room, info.name_len = info.name_len, len(name)
    return copy_string_to_user(info.name, room, name) if room else True
