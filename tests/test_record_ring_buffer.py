"""record/ring_buffer.py: what a page's bytes say, case by case."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from ring_pages import (
    MISSED_EVENTS,
    MISSED_STORED,
    alpha,
    beta,
    content,
    discarded,
    event,
    page,
    time_extend,
    time_stamp,
)  # fmt: skip

from fastrtp.errors import RecordingError
from fastrtp.record import Recording
from fastrtp.record.trace_dat_writer import write_v6, write_v7


def opened(tmp_path: Path, *cpus: bytes, kernel_long: int = 8) -> Recording:
    path = tmp_path / "t.dat"
    path.write_bytes(write_v6(content(*cpus, kernel_long=kernel_long)))
    return Recording.open(path)


TIMES = [
    ("deltas add up from the page's time stamp", event(3, alpha(1, 0)) + event(4, alpha(1, 0)), [1003, 1007]),
    (
        "a time extend is added to the next event",
        event(1, alpha(1, 0)) + time_extend(5 << 27 | 9) + event(2, alpha(1, 0)),
        [1001, 1001 + (5 << 27) + 9 + 2],
    ),
    ("an absolute time stamp replaces the time", time_stamp(123456789) + event(1, alpha(1, 0)), [123456790]),
    ("a discarded event's delta counts", discarded(5, 20) + event(1, alpha(1, 0)), [1006]),
    ("padding without a delta ends the page", event(1, alpha(1, 0)) + b"\x1d\0\0\0" + bytes(40), [1001]),
    ("a length in array[0] holds itself", event(1, alpha(1, 0), long_form=True) + event(1, alpha(1, 0)), [1001, 1002]),
    ("a record longer than 112 bytes", event(1, beta(1, 2, b"x" * 200)) + event(1, alpha(1, 0)), [1001, 1002]),
    ("an empty page", b"", []),
]


@pytest.mark.parametrize(("body", "times"), [case[1:] for case in TIMES], ids=[case[0] for case in TIMES])
@pytest.mark.parametrize("kernel_long", [4, 8])
def test_times(body: bytes, times: list[int], kernel_long: int, tmp_path: Path) -> None:
    """Each kind of ring-buffer event moves the time as the kernel says, with 32- and 64-bit longs."""
    recording = opened(tmp_path, page(1000, body, long_size=kernel_long), kernel_long=kernel_long)

    assert recording.time.tolist() == times


def test_absolute_time_stamp_keeps_the_high_bits(tmp_path: Path) -> None:
    """An absolute time stamp has 59 bits: the rest comes from the time before it, and wraps."""
    high = 3 << 59
    body = time_stamp(50) + event(0, alpha(1, 0)) + time_stamp(20) + event(0, alpha(1, 0))

    recording = opened(tmp_path, page(high + 40, body))

    assert recording.time.tolist() == [high + 50, (4 << 59) + 20]


def test_cpus_merge_by_time(tmp_path: Path) -> None:
    """Events of all CPUs come in time order; equal times in CPU order; a CPU's own order is never changed."""
    first = page(100, event(0, alpha(1, 1)) + event(10, alpha(1, 2)) + event(10, alpha(1, 3)))
    second = page(100, event(0, alpha(2, 11)) + event(10, alpha(2, 12)) + time_stamp(105) + event(0, alpha(2, 13)))

    recording = opened(tmp_path, first, second)

    values = recording.tables[0].fields["a"][recording.row].tolist()
    assert [value for value in values if value > 10] == [11, 12, 13]
    assert values[:4] == [1, 11, 2, 12]
    assert recording.cpu.tolist()[:4] == [0, 1, 0, 1]


def test_columns_and_heap(tmp_path: Path) -> None:
    """Integers keep their sign, strings their bytes, and every row is found through the order columns."""
    body = (
        event(1, beta(5, 2**64 - 1, b"one")) + event(1, alpha(6, -2)) + event(1, beta(7, 0, b"")) + event(1, beta(8, 9, b"three"))
    )

    recording = opened(tmp_path, page(0, body))

    table = recording.table("made:beta")
    assert table.fields["b"].tolist() == [2**64 - 1, 0, 9]
    assert table.strings("s").tolist() == [b"one", b"", b"three"]
    assert table.bytes_at("s", 2) == b"three\0"
    assert recording.table("alpha").fields["a"].tolist() == [-2]
    assert recording.pid.tolist() == [5, 6, 7, 8]
    assert [recording.tables[e].name for e in recording.event] == ["beta", "alpha", "beta", "beta"]
    assert recording.row.tolist() == [0, 0, 1, 2]
    assert [p.tolist() for p in recording.positions] == [[1], [0, 2, 3]]


@pytest.mark.parametrize("kernel_long", [4, 8])
def test_lost_events(kernel_long: int, tmp_path: Path) -> None:
    """A page says that events were lost before it, and how many where there was room to store it."""
    one = event(1, alpha(1, 0))
    counted = page(0, one, flags=MISSED_EVENTS | MISSED_STORED, lost=41, long_size=kernel_long)
    uncounted = page(10, one, flags=MISSED_EVENTS, long_size=kernel_long)

    recording = opened(tmp_path, counted + uncounted, page(0, one, long_size=kernel_long), kernel_long=kernel_long)

    assert (recording.lost, recording.gaps) == ({0: 41, 1: 0}, {0: 1, 1: 0})
    assert recording.info()["lost"] == {0: 41}
    assert recording.info()["gaps"] == {0: 1}
    assert recording.events == 3


BAD = [
    (
        "commit over the page",
        b"\0" * 8 + b"\xff\xff\x00\x00\0\0\0\0" + bytes(4080),
        "byte 0x0 of the pages: a page's commit passes the end",
    ),
    (
        "record over the commit",
        page(0, event(1, alpha(1, 0))[:-4]),
        "byte 0x10 of the pages: a record passes the end of its page",
    ),
    ("length below its own word", page(0, b"\x20\0\0\0\x02\0\0\0" + bytes(20)), "a record passes the end of its page"),
    ("record without common fields", page(0, b"\x21\0\0\0" + bytes(4)), "a record too short for the common fields"),
    (
        "record below its format",
        page(0, b"\x22\0\0\0" + alpha(1, 0)[:8]),
        "event made/alpha: record 0 at byte .* has 8 bytes, its format needs 12",
    ),
    ("padding of length 0", page(0, b"\x3d\0\0\0\0\0\0\0" + bytes(20)), "a record passes the end of its page"),
    ("cut word", page(0, event(1, alpha(1, 0)) + b"\x01\0"), "a record passes the end of its page"),
    (
        "string outside the record",
        page(0, event(1, beta(1, 2, b"abc")[:16] + b"\x14\x00\x09\x00" + b"abc\0")),
        "made/beta: record 0: s takes 9 bytes at 20, the record has 24",
    ),
    ("time stamp beyond 63 bits", page(1 << 63, event(1, alpha(1, 0))), "a time stamp is beyond 63 bits"),
]


@pytest.mark.parametrize(("pages", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_damaged_pages(pages: bytes, message: str, tmp_path: Path) -> None:
    """A recording that is nothing but a page that contradicts itself is refused with the CPU, the byte and the reason."""
    with pytest.raises(RecordingError, match=message):
        opened(tmp_path, pages)


@pytest.mark.parametrize(("pages", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_damaged_page_costs_itself(pages: bytes, message: str, tmp_path: Path) -> None:
    """What is around it is read, what it held is not, and both places that tell of losses say so."""
    first, last = page(0, event(1, alpha(1, 7))), page(9000, event(1, alpha(1, 8)) + event(1, alpha(1, 9)))

    recording = opened(tmp_path, first + pages.ljust(4096, b"\0") + last, page(5, event(1, beta(2, 3, b"x"))))

    assert recording.time.tolist() == [1, 6, 9001, 9002]
    assert recording.table("alpha").fields["a"].tolist() == [7, 8, 9]
    assert len(recording.notes) == 1
    told = message.removeprefix("byte 0x0 of the pages: ").removeprefix("byte 0x10 of the pages: ")
    assert re.search(told.replace("record 0", "record [01]"), recording.notes[0])
    left_out = recording.damaged.get(0, 0) or int(recording.notes[0].split()[0])
    assert left_out == 1
    recording.check()


def test_a_tail_of_a_page_is_counted(tmp_path: Path) -> None:
    """A last page that is cut within its header."""
    recording = opened(tmp_path, page(0, event(1, alpha(1, 0))) + bytes(10))

    assert (recording.events, recording.damaged) == (1, {0: 1})
    assert "byte 0x1000 of the pages: truncated: a page without its header" in recording.notes[0]


def test_a_page_that_breaks_off_is_left_out_whole(tmp_path: Path) -> None:
    """What of it looks sound is not trusted: where it went wrong is not known."""
    broken = page(50, event(1, alpha(1, 1)) + event(1, alpha(1, 2))[:-4])

    recording = opened(tmp_path, page(0, event(1, alpha(1, 0))) + broken + page(99, event(1, alpha(1, 3))))

    assert recording.table("alpha").fields["a"].tolist() == [0, 3]
    assert recording.damaged == {0: 1}


@pytest.mark.parametrize("algorithm", ["zstd", "zlib"])
def test_a_damaged_chunk_costs_its_pages(algorithm: str, tmp_path: Path) -> None:
    """Compressed pages come ten to a chunk."""
    pages = b"".join(page(10 * number, event(1, alpha(1, number))) for number in range(25))
    data = bytearray(write_v7(content(pages), algorithm))
    chunks = data.index(struct.pack("<I", 40960), data.index(struct.pack("<I", 3) + b"", 4096))
    packed = struct.unpack_from("<I", data, chunks - 4)[0]
    second = chunks + 4 + packed + 8
    data[second : second + 8] = b"\xff" * 8
    path = tmp_path / "t.dat"
    path.write_bytes(bytes(data))

    recording = Recording.open(path)

    assert recording.table("alpha").fields["a"].tolist() == [*range(10), *range(20, 25)]
    assert recording.damaged == {0: 10}
    assert recording.info()["damaged"] == {0: 10}


def test_records_of_unknown_type_are_counted(tmp_path: Path) -> None:
    """A type id without a format is left out and reported, the others stay in order."""
    strange = b"\x63\0\0\0\x01\0\0\0" + bytes(4)

    recording = opened(tmp_path, page(0, event(1, strange) + event(1, alpha(3, 4)) + event(1, strange)))

    assert recording.unknown == {0x63: 2}
    assert (recording.time.tolist(), recording.pid.tolist(), recording.row.tolist()) == ([2], [3], [0])


def test_partial_last_page(tmp_path: Path) -> None:
    """A last page that is cut behind its committed bytes is read."""
    whole = page(0, event(1, alpha(1, 0)) + event(1, alpha(1, 1)))

    recording = opened(tmp_path, whole[:64])

    assert recording.events == 2
