"""perf.data files made by hand, for the reader's tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import zstandard
from ring_pages import FORMATS, alpha, beta

from bench.perf_data import EVENT_DESC, OSRELEASE, SAMPLE, TRACING_DATA, Event, event_desc, raw, record, text, tracing_data
from bench.perf_data import write_file as write_file
from bench.perf_data import write_pipe as write_pipe

IDENTIFIER, IP, TID, TIME, ADDR, READ, CALLCHAIN, ID, CPU, PERIOD = (1 << bit for bit in (16, 0, 1, 2, 3, 4, 5, 6, 7, 8))
STREAM_ID, RAW, BRANCH_STACK, REGS_USER, STACK_USER, WEIGHT, DATA_SRC, TRANSACTION, REGS_INTR, PHYS_ADDR = (
    1 << bit for bit in (9, 10, 11, 12, 13, 14, 15, 17, 18, 19)
)
LOST, COMM, EXIT, THROTTLE, FORK, MMAP, MMAP2, LOST_SAMPLES = 2, 3, 4, 5, 7, 1, 10, 13
EVENT_UPDATE, FINISHED_ROUND, AUXTRACE, TIME_CONV, COMPRESSED, COMPRESSED2 = 78, 68, 71, 79, 81, 83
KERNEL_CONTEXT, USER_CONTEXT = (1 << 64) - 128, (1 << 64) - 512

ALPHA = Event(10, (101, 102), "made:alpha")
BETA = Event(11, (103, 104), "made:beta")
EVENTS = (ALPHA, BETA)
FEATURES = {
    TRACING_DATA: tracing_data(
        FORMATS, b"7 old\n9 nine\n", b'0xffffffff82000000 : "hi"\n', b"ffffffff81000000 T _text\nffffffffc0001000 t init\t[mod]\n"
    ),
    3: text("box"),
    OSRELEASE: text("6.1.0-made"),
    5: text("6.1.192"),
    6: text("x86_64"),
    7: struct.pack("<II", 4, 2),
    8: text("Some CPU"),
    10: struct.pack("<Q", 1024),
    11: struct.pack("<I", 2) + text("perf") + text("record"),
    EVENT_DESC: event_desc(EVENTS),
    14: struct.pack("<I", 0),
    29: struct.pack("<IIQQ", 1, 1, 1_700_000_000_000_000_000, 1000),
}
PACKED = {**FEATURES, 27: struct.pack("<5I", 1, 1, 1, 5, 1 << 19)}
"""The features of a file with compressed records."""


def sample(
    event: Event, time: int, data: bytes, cpu: int = 0, tgid: int | None = None, tid: int | None = None,
    chain: Sequence[int] = (), members: int = 2, behind: bytes = b"", ident: int | None = None,
) -> bytes:  # fmt: skip
    """A sample with all words that the event asks for. `data`: the raw record; `members`: of the group that is read."""
    bits = event.sample_type
    pid = struct.unpack_from("<i", data, 4)[0]
    number = struct.pack("<Q", event.ids[cpu % len(event.ids)] if ident is None else ident) if event.ids else bytes(8)
    task = (pid if tgid is None else tgid, pid if tid is None else tid)
    words = (
        (IDENTIFIER, number), (IP, b"\x11" * 8), (TID, struct.pack("<ii", *task)),
        (TIME, struct.pack("<Q", time)), (ADDR, b"\x22" * 8), (ID, number), (STREAM_ID, b"\x33" * 8),
        (CPU, struct.pack("<II", cpu, 0)), (PERIOD, struct.pack("<Q", 1)), (READ, _read(event.read_format, members)),
        (CALLCHAIN, struct.pack(f"<Q{len(chain)}Q", len(chain), *chain)), (RAW, raw(data)),
    )  # fmt: skip
    return record(SAMPLE, b"".join(word for bit, word in words if bits & bit) + behind)


def _read(read_format: int, members: int) -> bytes:
    times = b"\x44" * 8 * (read_format & 3).bit_count()
    value = b"\x55" * 8 * (1 + (read_format & (4 | 16)).bit_count())
    return struct.pack("<Q", members) + times + value * members if read_format & 8 else value[:8] + times + value[8:]


def trailer(event: Event, time: int = 0, cpu: int = 0, pid: int = 0) -> bytes:
    """What records other than samples end with under sample_id_all."""
    words = (
        (TID, struct.pack("<II", pid, pid)), (TIME, struct.pack("<Q", time)), (ID, struct.pack("<Q", event.ids[0])),
        (STREAM_ID, bytes(8)), (CPU, struct.pack("<II", cpu, 0)), (IDENTIFIER, struct.pack("<Q", event.ids[0])),
    )  # fmt: skip
    return b"".join(word for bit, word in words if event.sample_type & bit) if event.flags & 1 << 18 else b""


def comm(tgid: int, tid: int, name: str, time: int = 0, event: Event = ALPHA) -> bytes:
    data = name.encode() + b"\0"
    return record(COMM, struct.pack("<II", tgid, tid) + data + bytes(-len(data) % 8) + trailer(event, time))


def fork(tgid: int, tid: int, parent: int, time: int, event: Event = ALPHA) -> bytes:
    return record(FORK, struct.pack("<IIIIQ", tgid, parent, tid, parent, time) + trailer(event, time))


def lost(count: int, cpu: int, event: Event = ALPHA) -> bytes:
    return record(LOST, struct.pack("<QQ", event.ids[0], count) + trailer(event, cpu=cpu))


def lost_samples(count: int, cpu: int, misc: int = 0, event: Event = ALPHA) -> bytes:
    return record(LOST_SAMPLES, struct.pack("<Q", count) + trailer(event, cpu=cpu), misc)


def throttle(cpu: int, event: Event = ALPHA) -> bytes:
    return record(THROTTLE, bytes(24) + trailer(event, cpu=cpu))


def auxtrace(payload: bytes) -> bytes:
    """A record whose data follows it."""
    return record(AUXTRACE, struct.pack("<QQQIIII", len(payload), 0, 0, 0, 0, 0, 0)) + payload


def compressed(records: bytes, kind: int = COMPRESSED, piece: int = 50) -> bytes:
    """`records` as one zstd stream, flushed every `piece` bytes without regard to where a record ends."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    out = b""
    for at in range(0, len(records), piece):
        data = packer.compress(records[at : at + piece]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if kind == COMPRESSED2:
            data = struct.pack("<Q", len(data)) + data + bytes(-len(data) % 8)
        out += record(kind, data)
    return out


def two_cpus() -> tuple[bytes, bytes]:
    """Five samples on two CPUs and what goes with them: what is synthesized, what the buffers held."""
    before = comm(7, 7, "seven") + comm(8, 8, "eight of them") + record(TIME_CONV, bytes(48))
    first = sample(ALPHA, 1000, alpha(7, -1)) + sample(BETA, 1010, beta(7, 2**63, b"hello"))
    second = (
        sample(ALPHA, 1005, alpha(8, 5), 1)
        + sample(ALPHA, 1010, alpha(8, 6), 1)
        + sample(ALPHA, 1011 + (1 << 30), alpha(0, 7), 1)
    )
    return before, first + second + record(FINISHED_ROUND, b"")


def whole(events: Sequence[Event], records: bytes) -> bytes:
    """A file with these events and records."""
    return write_file(events, records, FEATURES)


def write_folder(folder: Path, events: Sequence[Event], before: bytes, *files: bytes) -> None:
    """What perf record --threads writes."""
    folder.mkdir(exist_ok=True)
    (folder / "data").write_bytes(write_file(events, before, {**FEATURES, 24: struct.pack("<Q", 1)}))
    for number, data in enumerate(files):
        (folder / f"data.{number}").write_bytes(data)
