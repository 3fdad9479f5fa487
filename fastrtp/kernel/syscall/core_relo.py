"""CO-RE relocations that a caller leaves to the kernel (light skeletons do): read and applied at load.

Kernel counterpart: kernel/bpf/verifier.c:check_core_relo
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError, BtfError, VerifierError
from fastrtp.kernel.files.uaccess import check_uarg_tail_zero, copy_from_user
from fastrtp.kernel.syscall.call import Call

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.btf.core import CoreRelo
    from fastrtp.isa import Insn

_RECORD = struct.Struct("<IIII")
_MAX_RECORD_SIZE = 252
_INT_MAX = (1 << 31) - 1


def check_core_relo(call: Call, insns: Sequence[Insn], prog_btf: Btf) -> list[Insn]:
    """The instructions with `attr.core_relos` applied. BpfError EINVAL, E2BIG, EFAULT; VerifierError EINVAL with the reason."""
    attr = call.attr
    count, rec_size = attr.core_relo_cnt, attr.core_relo_rec_size
    if not count:
        return list(insns)
    if count > _INT_MAX // _RECORD.size:
        raise BpfError(errno.EINVAL, f"EINVAL: {count} CO-RE relocations")
    if not _RECORD.size <= rec_size <= _MAX_RECORD_SIZE or rec_size % 4:
        raise BpfError(errno.EINVAL, f"EINVAL: core_relo_rec_size {rec_size}")
    out = list(insns)
    for number in range(count):
        at = attr.core_relos + number * rec_size
        check_uarg_tail_zero(at, _RECORD.size, rec_size)
        out = _apply(out, number, _RECORD.unpack(copy_from_user(at, _RECORD.size)), prog_btf, call.kernel.btf)
    return out


def _apply(insns: list[Insn], number: int, record: tuple[int, ...], prog_btf: Btf, kernel_btf: Btf) -> list[Insn]:
    from fastrtp.btf.core import CoreRelo, apply_core_relos

    insn_off, type_id, access_str_off, kind = record
    if insn_off % 8 or insn_off // 8 >= len(insns):
        raise _refuse(f"Invalid core_relo[{number}].insn_off:{insn_off} prog->len:{len(insns)}")
    try:
        relo: CoreRelo = CoreRelo(insn_off // 8, type_id, prog_btf.string(access_str_off), kind)
        return apply_core_relos(insns, [relo], prog_btf, kernel_btf)
    except BtfError as error:
        raise _refuse(f"core_relo[{number}]: {error}") from error


def _refuse(line: str) -> VerifierError:
    return VerifierError(errno.EINVAL, line, log=line + "\n")
