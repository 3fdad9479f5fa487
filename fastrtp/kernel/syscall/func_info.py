"""func_info and line_info records of BPF_PROG_LOAD, read from the caller in whatever record size it has.

What they must say about the program is the verifier's to check.

Kernel counterpart: kernel/bpf/verifier.c (check_btf_func_early, check_btf_line).
"""

from __future__ import annotations

import errno
from typing import Any

import numpy as np

from fastrtp.errors import VerifierError
from fastrtp.kernel.files.uaccess import check_uarg_tail_zero, copy_from_user
from fastrtp.kernel.syscall.call import Call
from fastrtp.uapi import BPF_FUNC_INFO_SIZE, BPF_LINE_INFO_SIZE

FUNC_INFO = np.dtype([("insn_off", "<u4"), ("type_id", "<u4")])
LINE_INFO = np.dtype([("insn_off", "<u4"), ("file_name_off", "<u4"), ("line_off", "<u4"), ("line_col", "<u4")])
_MAX_RECORD_SIZE = 252


def read_func_info(call: Call) -> Any:
    """Records of `FUNC_INFO`. VerifierError EINVAL, E2BIG, EFAULT."""
    attr = call.attr
    return _read(attr.func_info, attr.func_info_cnt, attr.func_info_rec_size, FUNC_INFO, BPF_FUNC_INFO_SIZE, "func info")


def read_line_info(call: Call) -> Any:
    """Records of `LINE_INFO`. VerifierError EINVAL, E2BIG, EFAULT."""
    attr = call.attr
    return _read(attr.line_info, attr.line_info_cnt, attr.line_info_rec_size, LINE_INFO, BPF_LINE_INFO_SIZE, "line info")


def _read(address: int, count: int, rec_size: int, dtype: np.dtype[Any], known: int, noun: str) -> Any:
    if not count:
        return np.zeros(0, dtype)
    if rec_size < known or rec_size > _MAX_RECORD_SIZE or rec_size % 4:
        line = f"invalid {noun} rec size {rec_size}"
        raise VerifierError(errno.EINVAL, line, log=line + "\n")
    if rec_size == known:
        return np.frombuffer(copy_from_user(address, count * rec_size), dtype).copy()
    rows = np.zeros(count, dtype)
    for index in range(count):
        at = address + index * rec_size
        check_uarg_tail_zero(at, known, rec_size)
        rows[index] = np.frombuffer(copy_from_user(at, known), dtype)[0]
    return rows
