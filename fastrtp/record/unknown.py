"""What a file is that is no recording this package reads, and what can be done with it."""

from __future__ import annotations

from pathlib import Path

_CTF = "a CTF trace, as LTTng and babeltrace2 write them: not read; record the same events with trace-cmd or perf"
_PERFETTO = "a Perfetto trace: not read; traceconv systrace FILE OUT makes a text of its scheduling events, which is"
_PACKED = "compressed: unpack it first"
_MAGICS = (
    (b"\xc1\x1f\xfc\xc1", _CTF), (b"\x57\x1d\xd1\x75", _CTF), (b"\x75\xd1\x1d\x57", _CTF), (b"/* CTF 1.8", _CTF),
    (b"SIMPLEPERF", "a report of simpleperf: not read; its perf.data is, or what simpleperf's report prints as perf script does"),
    (b"\x1f\x8b", f"{_PACKED} (gzip)"), (b"\x28\xb5\x2f\xfd", f"{_PACKED} (zstd)"), (b"\xfd7zXZ", f"{_PACKED} (xz)"),
    (b"PK\x03\x04", f"{_PACKED} (zip)"),
    (b"\x7fELF", "a program or object (ELF)"), (b"\x9f\xeb\x01", "types (BTF): for --btf, or a folder of FASTRTP_BTF_PATH"),
    (b"ARROW1", "a table (Arrow): Recording.from_table reads it"), (b"PAR1", "a table (Parquet): Recording.from_table reads it"),
    (b'{"traceEvents"', "a trace of Chrome (JSON): there is no kernel event in it"),
    (b"\xd4\xc3\xb2\xa1", "a capture of packets (pcap)"), (b"\x0a\x0d\x0d\x0a", "a capture of packets (pcapng)"),
)  # fmt: skip


def name_of(head: bytes, path: Path) -> str:
    """What a file is by how it begins, and the way out; "" for one that nothing is known of."""
    for magic, name in _MAGICS:
        if head.startswith(magic):
            return name
    if path.suffix in (".perfetto-trace", ".pftrace", ".perfetto") or (head[:1] == b"\x0a" and path.suffix in (".pb", ".trace")):
        return _PERFETTO
    return ""


def name_of_folder(folder: Path) -> str:
    """The same of a folder: CTF traces are some, with a file called metadata in it."""
    for metadata in (folder / "metadata", folder / "kernel" / "metadata"):
        if metadata.is_file():
            return _CTF
    return ""
