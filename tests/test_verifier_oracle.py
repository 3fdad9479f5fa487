"""Verdicts of Linux 6.18 for 620 programs (oracle/verifier.jsonl)."""

from __future__ import annotations

import collections
import json
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fastrtp.btf import default_btf
from fastrtp.errors import BpfError, VerifierError
from fastrtp.isa import decode
from fastrtp.uapi import BpfProgType
from fastrtp.verifier import LoadAttr, bpf_check

VALUE_48 = struct.pack("<I6iI4i", 28, *[0] * 6, 0xABCDEF12, *[0] * 4)


@dataclass
class OracleMap:
    """A map as a case describes it."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    frozen: bool = False
    name: str = ""
    btf: object = None
    btf_value_type_id: int = 0
    data: bytes = field(default=VALUE_48)

    def read_value(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]


def load(case: dict, log_level: int = 1):
    """Run one case through the verifier."""
    maps = {
        kind: OracleMap(spec["type"], spec["key_size"], spec["value_size"], spec["max_entries"], spec["map_flags"])
        for kind, spec in case["maps"].items()
    }
    code = bytearray.fromhex(case["insns"])
    fds = {}
    for number, (index, kind) in enumerate(case["map_refs"]):
        fd = 100 + number
        fds[fd] = maps[kind]
        struct.pack_into("<i", code, index * 8 + 4, fd)
    if "array_of_maps" in maps:
        maps["array_of_maps"].inner_map = OracleMap(2, 4, 4, 1, 0)

    def fd_to_map(fd: int) -> OracleMap:
        if fd not in fds:
            raise BpfError(22 if fd in (0, 1, 2) else 9)
        return fds[fd]

    return bpf_check(
        LoadAttr(
            BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT,
            decode(bytes(code)),
            fd_to_map,
            prog_flags=case["prog_flags"],
            log_level=log_level,
            kernel_btf=default_btf(),
        )
    )


def head(text: str) -> list[str]:
    return text.split(" ")[:3]


def agreement(path: Path) -> tuple[collections.Counter, list[str]]:
    """Counts and a line per difference."""
    count: collections.Counter = collections.Counter()
    lines = []
    for text in path.read_text().splitlines():
        case = json.loads(text)
        count["cases"] += 1
        try:
            load(case)
            errno, message = 0, ""
        except VerifierError as error:
            errno = error.errno
            message = [line for line in error.log.strip().splitlines() if not line.startswith("processed")][-1]
        count["kernel accepts" if case["verdict"] == "accept" else "kernel rejects"] += 1
        if (errno == 0) != (case["verdict"] == "accept"):
            kind = "rejected, kernel accepts" if errno else "UNSAFE ACCEPT" if case["errno"] == 13 else "accepted, kernel rejects"
            count[kind] += 1
            lines.append(f"{case['id']} {kind}: {case['name']}: ours {message!r}, kernel {case['message']!r}")
            continue
        count["verdict right"] += 1
        if not errno:
            count["accepts right"] += 1
            continue
        count["errno right"] += errno == case["errno"]
        count["message head right"] += head(message) == head(case["message"])
        count["message right"] += message == case["message"]
        if errno != case["errno"] or head(message) != head(case["message"]):
            lines.append(
                f"{case['id']} differs: {case['name']}: ours {errno} {message!r}, kernel {case['errno']} {case['message']!r}"
            )
    return count, lines


def test_oracle(shared: Path) -> None:
    """No unsafe accept; the agreement that was reached is kept."""
    count, lines = agreement(shared / "oracle" / "verifier.jsonl")
    print("\n".join(lines))
    print(dict(count))

    assert count["UNSAFE ACCEPT"] == 0
    assert count["cases"] == 620
    assert count["verdict right"] >= 614


if __name__ == "__main__":
    counts, differences = agreement(Path(sys.argv[1]))
    print("\n".join(differences))
    print(dict(counts))
