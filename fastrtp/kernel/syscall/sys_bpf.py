"""sys_bpf: from (cmd, attr, size) to the command's function, with the checks that all commands share.

One table, `COMMANDS`: command -> function(Call) -> int. A function raises BpfError for the -1 of the system call, and
writes results into the caller's attr itself, at the point where Linux does.

Kernel counterpart: kernel/bpf/syscall.c:__sys_bpf
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError
from fastrtp.kernel.files.uaccess import check_uarg_tail_zero, copy_from_user
from fastrtp.kernel.syscall.batch import bpf_map_do_batch
from fastrtp.kernel.syscall.btf import bpf_btf_load
from fastrtp.kernel.syscall.call import Call
from fastrtp.kernel.syscall.ids import (
    bpf_btf_get_fd_by_id,
    bpf_link_get_fd_by_id,
    bpf_map_get_fd_by_id,
    bpf_obj_get_next_id,
    bpf_prog_get_fd_by_id,
)
from fastrtp.kernel.syscall.info import bpf_obj_get_info_by_fd
from fastrtp.kernel.syscall.link import bpf_raw_tracepoint_open, link_create, link_detach, link_update
from fastrtp.kernel.syscall.map import (
    map_create,
    map_delete_elem,
    map_freeze,
    map_get_next_key,
    map_lookup_and_delete_elem,
    map_lookup_elem,
    map_update_elem,
)
from fastrtp.kernel.syscall.other import (
    bpf_enable_stats,
    bpf_iter_create,
    bpf_prog_attach,
    bpf_prog_detach,
    bpf_prog_query,
    bpf_task_fd_query,
    prog_stream_read,
    token_create,
)
from fastrtp.kernel.syscall.pin import bpf_obj_get, bpf_obj_pin
from fastrtp.kernel.syscall.prog import bpf_prog_bind_map, bpf_prog_load
from fastrtp.kernel.syscall.test_run import bpf_prog_test_run
from fastrtp.uapi import ATTR_SIZE, BpfCmd

if TYPE_CHECKING:
    from fastrtp.kernel.process import Process

COMMANDS: dict[BpfCmd, Callable[[Call], int]] = {
    BpfCmd.BPF_MAP_CREATE: map_create,
    BpfCmd.BPF_MAP_LOOKUP_ELEM: map_lookup_elem,
    BpfCmd.BPF_MAP_UPDATE_ELEM: map_update_elem,
    BpfCmd.BPF_MAP_DELETE_ELEM: map_delete_elem,
    BpfCmd.BPF_MAP_GET_NEXT_KEY: map_get_next_key,
    BpfCmd.BPF_PROG_LOAD: bpf_prog_load,
    BpfCmd.BPF_OBJ_PIN: bpf_obj_pin,
    BpfCmd.BPF_OBJ_GET: bpf_obj_get,
    BpfCmd.BPF_PROG_ATTACH: bpf_prog_attach,
    BpfCmd.BPF_PROG_DETACH: bpf_prog_detach,
    BpfCmd.BPF_PROG_TEST_RUN: bpf_prog_test_run,
    BpfCmd.BPF_PROG_GET_NEXT_ID: bpf_obj_get_next_id,
    BpfCmd.BPF_MAP_GET_NEXT_ID: bpf_obj_get_next_id,
    BpfCmd.BPF_BTF_GET_NEXT_ID: bpf_obj_get_next_id,
    BpfCmd.BPF_LINK_GET_NEXT_ID: bpf_obj_get_next_id,
    BpfCmd.BPF_PROG_GET_FD_BY_ID: bpf_prog_get_fd_by_id,
    BpfCmd.BPF_MAP_GET_FD_BY_ID: bpf_map_get_fd_by_id,
    BpfCmd.BPF_BTF_GET_FD_BY_ID: bpf_btf_get_fd_by_id,
    BpfCmd.BPF_LINK_GET_FD_BY_ID: bpf_link_get_fd_by_id,
    BpfCmd.BPF_OBJ_GET_INFO_BY_FD: bpf_obj_get_info_by_fd,
    BpfCmd.BPF_PROG_QUERY: bpf_prog_query,
    BpfCmd.BPF_RAW_TRACEPOINT_OPEN: bpf_raw_tracepoint_open,
    BpfCmd.BPF_BTF_LOAD: bpf_btf_load,
    BpfCmd.BPF_TASK_FD_QUERY: bpf_task_fd_query,
    BpfCmd.BPF_MAP_LOOKUP_AND_DELETE_ELEM: map_lookup_and_delete_elem,
    BpfCmd.BPF_MAP_FREEZE: map_freeze,
    BpfCmd.BPF_MAP_LOOKUP_BATCH: bpf_map_do_batch,
    BpfCmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH: bpf_map_do_batch,
    BpfCmd.BPF_MAP_UPDATE_BATCH: bpf_map_do_batch,
    BpfCmd.BPF_MAP_DELETE_BATCH: bpf_map_do_batch,
    BpfCmd.BPF_LINK_CREATE: link_create,
    BpfCmd.BPF_LINK_UPDATE: link_update,
    BpfCmd.BPF_LINK_DETACH: link_detach,
    BpfCmd.BPF_ENABLE_STATS: bpf_enable_stats,
    BpfCmd.BPF_ITER_CREATE: bpf_iter_create,
    BpfCmd.BPF_PROG_BIND_MAP: bpf_prog_bind_map,
    BpfCmd.BPF_TOKEN_CREATE: token_create,
    BpfCmd.BPF_PROG_STREAM_READ_BY_FD: prog_stream_read,
}


def sys_bpf(current: Process, cmd: int, attr: Any, size: int | None = None) -> int:
    """bpf(2) as process `current`. `attr`: a writable buffer, or the address of one; `size`: bytes of it, all by default.

    Returns what the system call returns. BpfError: E2BIG, EFAULT, EINVAL for the attr itself; else the command's.
    Kernel: kernel/bpf/syscall.c:__sys_bpf
    """
    address, keep, length = _buffer(attr)
    size = length if size is None else size & 0xFFFFFFFF
    check_uarg_tail_zero(address, ATTR_SIZE, size)
    size = min(size, ATTR_SIZE)
    data = copy_from_user(address, size)
    if cmd not in COMMANDS:
        raise BpfError(errno.EINVAL, f"EINVAL: no command {cmd}")
    command = BpfCmd(cmd)
    try:
        with current.kernel.lock:
            return COMMANDS[command](Call(current.kernel, current, command, data, address, size))
    except MemoryError as error:
        raise BpfError(errno.ENOMEM, f"ENOMEM: {error}") from error
    finally:
        del keep


def _buffer(attr: Any) -> tuple[int, Any, int]:
    """Address, what keeps it alive, and bytes of an attr argument."""
    if attr is None:
        return 0, None, ATTR_SIZE
    if isinstance(attr, int):
        return attr & 0xFFFFFFFFFFFFFFFF, None, ATTR_SIZE
    view = memoryview(attr)
    if view.readonly:
        raise TypeError("attr must be a writable buffer: results are written back into it")
    if not view.contiguous:
        raise TypeError("attr must be a contiguous buffer")
    if view.nbytes == 0:
        return 0, view, 0
    return ctypes.addressof(ctypes.c_char.from_buffer(attr)), view, view.nbytes
