"""`.BTF.ext`: which function, source line and CO-RE relocation belongs to which instruction of a section.

Kernel: include/uapi/linux/btf.h, tools/lib/bpf/libbpf_internal.h:struct btf_ext_header. Instruction offsets in the section are
bytes; here they are indices from the start of the ELF section.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastrtp.errors import BtfError

from .parse import Btf
from .types import BTF_MAGIC

if TYPE_CHECKING:
    import numpy.typing as npt

FUNC_INFO = np.dtype([("insn_off", "<u4"), ("type_id", "<u4")])
"""Kernel: struct bpf_func_info."""
LINE_INFO = np.dtype([("insn_off", "<u4"), ("file_name_off", "<u4"), ("line_off", "<u4"), ("line_col", "<u4")])
"""Kernel: struct bpf_line_info; line_col is line << 10 | column."""
CORE_RELO = np.dtype([("insn_off", "<u4"), ("type_id", "<u4"), ("access_str_off", "<u4"), ("kind", "<u4")])
"""Kernel: struct bpf_core_relo."""

_HEADER = struct.Struct("<HBBIIIII")
_INSN_SIZE = 8
Infos: TypeAlias = "dict[str, npt.NDArray[np.void]]"
"""Records by ELF section name, in their order in the file."""


@dataclass
class BtfExt:
    """The three tables, each by ELF section name; insn_off is an instruction index within the section."""

    func_info: Infos = field(default_factory=dict)
    line_info: Infos = field(default_factory=dict)
    core_relos: Infos = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, btf: Btf) -> BtfExt:
        """Read a `.BTF.ext` section; names come from `btf`. Raises `BtfError` with the offset."""
        if len(data) < _HEADER.size:
            raise BtfError(f"BTF.ext header at offset 0: {len(data)} bytes, needs {_HEADER.size}")
        magic, version, flags, hdr_len, func_off, func_len, line_off, line_len = _HEADER.unpack_from(data)
        if magic == 0x9FEB:
            raise BtfError("BTF.ext header at offset 0: big-endian BTF is not supported")
        if magic != BTF_MAGIC or version != 1 or flags:
            raise BtfError(f"BTF.ext header at offset 0: magic {magic:#x}, version {version}, flags {flags:#x}")
        if not _HEADER.size <= hdr_len <= len(data):
            raise BtfError(f"BTF.ext header at offset 4: header length {hdr_len} of {len(data)} bytes")
        core_off = core_len = 0
        if hdr_len >= _HEADER.size + 8:
            core_off, core_len = struct.unpack_from("<II", data, _HEADER.size)
        return cls(
            _read(data, hdr_len + func_off, func_len, FUNC_INFO, "func_info", btf),
            _read(data, hdr_len + line_off, line_len, LINE_INFO, "line_info", btf),
            _read(data, hdr_len + core_off, core_len, CORE_RELO, "core_relo", btf),
        )


def _read(data: bytes, start: int, length: int, dtype: np.dtype[np.void], what: str, btf: Btf) -> Infos:
    """One table: u32 record size, then per section {u32 name, u32 count, records}. Longer records are cut to what is known."""
    out: Infos = {}
    if not length:
        return out
    end = start + length
    if end > len(data) or length < 4:
        raise BtfError(f"BTF.ext {what} at offset {start:#x}: length {length} passes the end at {len(data):#x}")
    (record_size,) = struct.unpack_from("<I", data, start)
    if record_size < dtype.itemsize or record_size % 4:
        raise BtfError(f"BTF.ext {what} at offset {start:#x}: record size {record_size}, needs {dtype.itemsize}")
    at = start + 4
    while at < end:
        if at + 8 > end:
            raise BtfError(f"BTF.ext {what} at offset {at:#x}: truncated")
        name_off, count = struct.unpack_from("<II", data, at)
        first = at + 8
        if count == 0 or first + count * record_size > end:
            raise BtfError(f"BTF.ext {what} at offset {at:#x}: {count} records of {record_size} bytes pass the end at {end:#x}")
        rows = np.frombuffer(data, np.uint8, count * record_size, first).reshape(count, record_size)
        records = rows[:, : dtype.itemsize].copy().view(dtype).reshape(count)
        bad = np.flatnonzero(records["insn_off"] % _INSN_SIZE)
        if len(bad):
            at_bad = first + int(bad[0]) * record_size
            raise BtfError(f"BTF.ext {what} at offset {at_bad:#x}: instruction offset is not a multiple of {_INSN_SIZE}")
        records["insn_off"] //= _INSN_SIZE
        name = btf.string(name_off)
        out[name] = np.concatenate([out[name], records]) if name in out else records
        at = first + count * record_size
    return out
