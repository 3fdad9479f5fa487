"""Cases of tests/data/verifier on the running kernel: the same verdict, errno and last line of the log.

Needs Linux 6.18 with bpf(2) (root); skipped elsewhere. Programs are loaded, never attached.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator

import pytest
import static_funcs
from test_verifier import CASES, ERRNO, MAPS, Case

from fastrtp.isa import encode

SYS_BPF = 321
CREATE, UPDATE, LOAD, FREEZE = 0, 2, 5, 22
PSEUDO_MAP = (1, 2)
BTF_LOAD = 18
DIFFERS = {
    "call: snprintf with data of an odd size": "Linux says nothing",
    "call: a record of more bytes than the helper's argument holds": "Linux keeps the lower 32 bits of the size",
    "call: memory that may be NULL: the zero of one path, and any number of the other": "Linux prunes the second path",
    "form: an fd that is no map": "the descriptor's number",
    "form: a kernel function that libbpf poisoned, alive": "Linux looks at R0 first",
    "memory: one of two frozen values is not known to be the first": "Linux refuses the load itself, with ENOTSUPP and no word",
    "loop: a loop without an end around a helper that calls back": "Linux accepts it",
}
"""Cases of which Linux says something else, and why."""
libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, max(len(attr), 152))
    result = libc.syscall(SYS_BPF, cmd, buffer, len(buffer))
    return int(result) if result >= 0 else -ctypes.get_errno()


@pytest.fixture(scope="module")
def fds() -> Iterator[dict[int, int]]:
    """Number in the data files -> descriptor of such a map in the running kernel."""
    if platform.machine() != "x86_64" or platform.release().split(".")[:2] != ["6", "18"]:
        pytest.skip("compared with Linux 6.18 on x86-64 only")
    found = {}
    for number, shape in MAPS.items():
        attr = struct.pack("<5I", shape.map_type, shape.key_size, shape.value_size, shape.max_entries, shape.map_flags)
        found[number] = bpf(CREATE, attr)
        if found[number] < 0:
            pytest.skip("bpf(2) is not allowed here")
        if shape.frozen:
            key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(shape.data, shape.value_size)
            bpf(UPDATE, struct.pack("<IIQQQ", found[number], 0, ctypes.addressof(key), ctypes.addressof(value), 0))
            bpf(FREEZE, struct.pack("<I", found[number]))
    yield found
    for fd in found.values():
        os.close(fd)


def verdict(case: Case, fds: dict[int, int]) -> tuple[int, str]:
    """(errno, last line of the log) of the running kernel; (0, "") where it accepts."""
    insns = [
        insn._replace(imm=fds[insn.imm]) if insn.code == 0x18 and insn.src_reg in PSEUDO_MAP else insn for insn in case.insns
    ]
    code = ctypes.create_string_buffer(encode(insns), len(insns) * 8)
    text, log = ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(1 << 20)
    blob = ctypes.create_string_buffer(static_funcs.BLOB, len(static_funcs.BLOB))
    btf = bpf(BTF_LOAD, struct.pack("<QQIII", ctypes.addressof(blob), 0, len(static_funcs.BLOB), 0, 0))
    rows = static_funcs.func_info(insns)
    info = ctypes.create_string_buffer(b"".join(struct.pack("<II", *row) for row in rows))
    attr = struct.pack(
        "<IIQQIIQII16sIIIIQII",
        *(17, len(insns), ctypes.addressof(code), ctypes.addressof(text), 1, len(log), ctypes.addressof(log), 0, 0),
        *(b"", 0, 0, btf, 8, ctypes.addressof(info), len(rows), 0),
    )
    fd = bpf(LOAD, attr)
    os.close(btf)
    if fd >= 0:
        os.close(fd)
        return 0, ""
    lines = [line for line in log.value.decode().splitlines() if line and not line.startswith("processed")]
    return -fd, lines[-1] if lines else ""


_NOT_HERE = {"type", "license", "flags", "cpus"}
HOST_CASES = [case for case in CASES if not _NOT_HERE & set(case.settings) and case.name not in DIFFERS]


@pytest.mark.parametrize("case", HOST_CASES, ids=[case.name for case in HOST_CASES])
def test_like_the_running_kernel(case: Case, fds: dict[int, int]) -> None:
    """What the case expects is what Linux says."""
    number, message = verdict(case, fds)

    assert message == case.message
    assert ERRNO.get(number, "") == case.errno
