"""record/columnar.py: the columnar form, written, mapped again, and damaged."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ring_pages import two_cpus

from fastrtp.errors import RecordingError
from fastrtp.record import Recording
from fastrtp.record.columnar import KALLSYMS, METADATA, ORDER
from fastrtp.record.demo import demo_recording
from fastrtp.record.trace_dat_writer import write_v7


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved recording of five events."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "t.dat").write_bytes(write_v7(two_cpus()))
    Recording.open(folder / "t.dat").save(folder / "saved")
    return folder / "saved"


def assert_same(first: Recording, second: Recording) -> None:
    for name in ("time", "cpu", "event", "row", "pid"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
        assert getattr(first, name).dtype == getattr(second, name).dtype
    assert len(first.tables) == len(second.tables)
    for mine, other in zip(first.tables, second.tables, strict=True):
        assert (mine.name, mine.system, mine.fmt, len(mine)) == (other.name, other.system, other.fmt, len(other))
        assert list(mine.fields) == list(other.fields)
        for name, column in mine.fields.items():
            assert column.dtype == other.fields[name].dtype, (mine.name, name)
            assert np.array_equal(column, other.fields[name]), (mine.name, name)
        assert {name: heap.tobytes() for name, heap in mine.heaps.items()} == {
            name: heap.tobytes() for name, heap in other.heaps.items()
        }
    info, again = first.info(), second.info()
    assert info.pop("source")
    assert again.pop("source")
    assert info == again
    assert (first.comms, first.printk, first.tgids) == (second.comms, second.printk, second.tgids)
    assert first.kallsyms_text() == second.kallsyms_text()


@pytest.mark.parametrize("source", ["demo", "small"])
def test_round_trip(source: str, small: Path, tmp_path: Path) -> None:
    """What is saved is what is opened: order, columns, heaps, formats and everything beside them."""
    recording = Recording.open(demo_recording() if source == "demo" else small)

    recording.save(tmp_path / "out")

    assert_same(recording, Recording.open(tmp_path / "out"))


def test_saved_onto_itself(small: Path, tmp_path: Path) -> None:
    """A mapped recording can be saved into its own folder, and leaves no file of an older one."""
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    (folder / "099.old.arrow").write_bytes(b"x")
    mapped = Recording.open(folder)

    mapped.save(folder)

    assert_same(mapped, Recording.open(folder))
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in small.iterdir())


def test_columns_are_mapped_not_copied(tmp_path: Path) -> None:
    """Order and fixed columns are read-only views of the file."""
    Recording.open(demo_recording()).save(tmp_path / "out")

    recording = Recording.open(tmp_path / "out")

    columns = [
        recording.time,
        recording.row,
        recording.table("sched_switch").fields["prev_comm"],
        recording.table("sys_enter").fields["args"],
    ]
    for column in columns:
        assert not column.flags.owndata
        assert not column.flags.writeable


def test_other_arrow_readers_understand_it(small: Path) -> None:
    """The files are plain Arrow IPC with the event's columns."""
    import pyarrow as pa

    table = pa.ipc.open_file(str(small / "001.beta.arrow")).read_all()

    assert table.column_names == ["common_flags", "common_preempt_count", "b", "s"]
    assert table.column("b").to_pylist() == [2**63]
    assert table.column("s").to_pylist() == [b"hello\0"]


def spoil(folder: Path, edit: object) -> None:
    data = json.loads((folder / METADATA).read_text())
    edit(data)  # type: ignore[operator]
    (folder / METADATA).write_text(json.dumps(data))


DAMAGE = [
    ("no metadata", lambda f: (f / METADATA).unlink(), "recording.json: No such file"),
    ("metadata is no JSON", lambda f: (f / METADATA).write_text("{"), "no valid JSON"),
    ("another kind of JSON", lambda f: (f / METADATA).write_text("[]"), "not a fastrtp-recording file"),
    ("a newer version", lambda f: spoil(f, lambda d: d.update(version=9)), "version 9, this program reads 1"),
    ("a key is missing", lambda f: spoil(f, lambda d: d.pop("comms")), "damaged: KeyError 'comms'"),
    ("a wrong type", lambda f: spoil(f, lambda d: d.update(lost=[1])), "damaged: AttributeError"),
    ("no order file", lambda f: (f / ORDER).unlink(), "order.arrow"),
    ("order file cut", lambda f: (f / ORDER).write_bytes((f / ORDER).read_bytes()[:300]), "order.arrow"),
    ("order file empty", lambda f: (f / ORDER).write_bytes(b""), "order.arrow"),
    ("no table file", lambda f: (f / "000.alpha.arrow").unlink(), "000.alpha.arrow"),
    ("more events than order", lambda f: spoil(f, lambda d: d.update(events=6)), "5 rows, expected 6"),
    ("more rows than a table", lambda f: spoil(f, lambda d: d["tables"][0].update(rows=3)), "4 rows, expected 3"),
    ("tables swapped", lambda f: spoil(f, lambda d: d["tables"].reverse()), "event . is row . of beta, which has 1 rows"),
    ("a table dropped", lambda f: spoil(f, lambda d: d["tables"].pop()), "event number 1, but there are 1 tables"),
    (
        "a column's type",
        lambda f: spoil(f, lambda d: d["tables"][0]["fields"].update(a="i8")),
        "column a: 4 values of int32, expected 4 of int64",
    ),
    ("an unknown type", lambda f: spoil(f, lambda d: d["tables"][0]["fields"].update(a="f8")), "unknown column type 'f8'"),
    ("a column that is not there", lambda f: spoil(f, lambda d: d["tables"][0]["fields"].update(z="i4")), "000.alpha.arrow"),
    ("fixed column as variable", lambda f: spoil(f, lambda d: d["tables"][0]["fields"].update(a="var")), "expected large_binary"),
    ("a path for a file", lambda f: spoil(f, lambda d: d["tables"][0].update(file="../x")), "is not a plain name"),
    ("fewer CPUs than events have", lambda f: spoil(f, lambda d: d.update(cpus=1)), "an event of CPU 1, but there are 1 CPUs"),
    ("CPUs beyond belief", lambda f: spoil(f, lambda d: d.update(cpus=1 << 40)), "1099511627776 CPUs"),
]


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_damaged_folder(damage: object, message: str, small: Path, tmp_path: Path) -> None:
    """A damaged folder is refused with the file and the reason."""
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    damage(folder)  # type: ignore[operator]

    with pytest.raises(RecordingError, match=message):
        Recording.open(folder)


def test_damaged_symbols(small: Path, tmp_path: Path) -> None:
    """Symbols are read when asked for, and refused then."""
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    (folder / KALLSYMS).write_bytes(b"not zstd")

    recording = Recording.open(folder)

    with pytest.raises(RecordingError, match=r"kallsyms\.zst"):
        len(recording.kallsyms)


def test_mutated_files(small: Path, tmp_path: Path) -> None:
    """Files with bytes changed at random are opened or refused with a RecordingError."""
    folder = tmp_path / "copy"
    rng = random.Random(3)
    outcomes: Counter[str] = Counter()
    for _ in range(300):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(small, folder)
        path = rng.choice(sorted(folder.iterdir()))
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 3))):
            data[rng.randrange(len(data))] = rng.choice((0, 0xFF, rng.randrange(256)))
        path.write_bytes(data)
        try:
            recording = Recording.open(folder)
            for table in recording.tables:
                for name, column in table.fields.items():
                    column.tobytes()
                    if name in table.heaps:
                        table.strings(name)
            outcomes["read"] += 1
        except RecordingError:
            outcomes["refused"] += 1
    assert outcomes["read"] > 20, outcomes
    assert outcomes["refused"] > 20, outcomes


def test_a_place_that_cannot_be_written(small: Path, tmp_path: Path) -> None:
    """Saving under a file is refused by name."""
    (tmp_path / "file").write_text("")

    with pytest.raises(RecordingError, match=r"Not a directory|File exists"):
        Recording.open(small).save(tmp_path / "file" / "out")


def test_import_is_light() -> None:
    """Importing and opening a trace.dat brings in neither pyarrow nor numba."""
    code = (
        "import sys; from fastrtp.record import Recording; from fastrtp.record.demo import demo_recording;"
        "Recording.open(demo_recording()); sys.exit(any(m in sys.modules for m in ('pyarrow', 'numba', 'rich', 'IPython')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
