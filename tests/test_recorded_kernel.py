"""replay/recorded_kernel.py: whose types a recording is replayed with, and what is said when they are another kernel's."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from ring_pages import alpha, content, event, page

from fastrtp.btf import DEFAULT_RELEASE, default_btf, load_btf
from fastrtp.errors import BtfError
from fastrtp.kernel import Kernel
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.record.trace_dat_writer import write_v7
from fastrtp.replay.recorded_kernel import kernel_of, match, recorded_release, types_for


def recorded_by(uname: str) -> Recording:
    """A recording of nothing, by a kernel."""
    empty = [np.zeros(0, dtype) for dtype in (np.int64, np.uint16, np.uint16, np.uint32, np.int32)]
    return Recording(*empty, [], uname=uname, cpus=2)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of BTFs as BTFHub names them, in all the forms they come in."""
    plain = bytes(default_btf().data)
    deep = tmp_path / "debian" / "x86_64"
    deep.mkdir(parents=True)
    (deep / "5.10.0-30-amd64.btf").write_bytes(plain)
    (deep / "6.8.3-generic.btf.zst").write_bytes(zstandard.ZstdCompressor(level=1).compress(plain))
    with tarfile.open(deep / "5.4.17-100.el8.x86_64.btf.tar.xz", "w:xz", preset=0) as archive:
        info = tarfile.TarInfo("5.4.17-100.el8.x86_64.btf")
        info.size = len(plain)
        archive.addfile(info, io.BytesIO(plain))
    (deep / "notes.btf").write_bytes(b"not named by a release")
    monkeypatch.setenv("FASTRTP_BTF_PATH", os.pathsep.join([str(tmp_path), ""]))
    return deep


@pytest.mark.parametrize(
    ("uname", "release"),
    [
        ("Linux (none) 6.1.0-56-cloud-amd64 x86_64", "6.1.0-56-cloud-amd64"),
        ("Linux box 6.12.117+deb13-amd64 x86_64", "6.12.117+deb13-amd64"),
        ("Linux 5.4.17-100.el8.x86_64 x86_64", "5.4.17-100.el8.x86_64"),
        ("", ""),
        ("Linux", ""),
    ],
)
def test_the_release_that_was_recorded(uname: str, release: str) -> None:
    assert recorded_release(recorded_by(uname)) == release


@pytest.mark.parametrize(
    ("release", "file", "exact"),
    [
        ("5.10.0-30-amd64", "5.10.0-30-amd64.btf", True),
        ("6.8.3-generic", "6.8.3-generic.btf.zst", True),
        ("5.4.17-100.el8.x86_64", "5.4.17-100.el8.x86_64.btf.tar.xz", True),
        ("5.10.0-99-amd64", "5.10.0-30-amd64.btf", False),
        ("6.12.117-amd64", "6.8.3-generic.btf.zst", False),
        ("6.1.192", None, False),
        (DEFAULT_RELEASE, None, True),
    ],
)
def test_the_very_kernel_or_the_nearest(folder: Path, release: str, file: str | None, exact: bool) -> None:
    """By release, then by version; the shipped types are among them."""
    found = types_for(recorded_by(f"Linux box {release} x86_64"))

    assert (found.source, found.exact) == (folder / file if file else None, exact)


def test_a_recording_that_does_not_say_gets_the_shipped_types(folder: Path) -> None:
    found = types_for(recorded_by(""))

    assert (found.source, found.release, found.exact) == (None, DEFAULT_RELEASE, False)


def test_a_kernel_like_the_one_that_recorded(folder: Path) -> None:
    """Types, release, version and CPUs; what the caller says goes before."""
    with kernel_of(recorded_by("Linux box 6.8.3-generic x86_64")) as kernel:
        assert (kernel.release, kernel.version, kernel.cpus) == ("6.8.3-generic", 0x60803, 2)
        assert len(kernel.tracepoints) == 693
    with kernel_of(recorded_by("Linux box 6.12.117-amd64 x86_64"), cpus=4) as kernel:
        assert (kernel.release, kernel.version, kernel.cpus) == ("6.8.3-generic", 0x60C75, 4)
    with Kernel.of(demo_recording()) as kernel:
        assert (kernel.release, kernel.version) == (DEFAULT_RELEASE, 0x601C0)


def test_the_archives_are_read_as_files_are(folder: Path) -> None:
    (archive,) = folder.glob("*.tar.xz")

    assert load_btf(archive).digest == default_btf().digest
    archive.write_bytes(archive.read_bytes()[:500])
    with pytest.raises(BtfError, match="bad archive"):
        load_btf(archive)


def test_one_kernel_is_no_news() -> None:
    """Nothing is said where recording and types are of one kernel."""
    with Kernel(cpus=2) as kernel:
        report = kernel.replay(Recording.open(demo_recording()))

    assert report.kernels is not None
    assert not report.kernels.differ
    assert report.notes == ()


def test_two_kernels_are_named_with_what_that_means(tmp_path: Path) -> None:
    """The report has both releases, and the tracepoints that the types do not know."""
    made = content(page(0, event(1, alpha(1, 0)) + event(1, alpha(1, 1))), options=[(5, b"Linux box 6.12.117-amd64 x86_64\0")])
    path = tmp_path / "t.dat"
    path.write_bytes(write_v7(made))
    with Kernel(cpus=1) as kernel:
        report = kernel.replay(path)

    assert report.as_dict()["kernels"] == {
        "recorded": "6.12.117-amd64", "types": DEFAULT_RELEASE, "differ": True, "lacks": {"alpha": 2},
    }  # fmt: skip
    assert f"recorded by Linux 6.12.117-amd64, replayed with types of Linux {DEFAULT_RELEASE}" in report.notes[0]
    assert report.notes[1] == "tracepoints that the types' kernel does not have: alpha (2 events)"


def test_types_of_an_unknown_kernel(tmp_path: Path) -> None:
    """Not knowing is no reason to be silent."""
    path = tmp_path / "some.btf"
    path.write_bytes(bytes(default_btf().data))
    with Kernel(btf=path, cpus=2) as kernel:
        found = match(kernel, Recording.open(demo_recording()))

    assert (kernel.release, found.differ) == ("", True)
    assert "with types of a kernel whose release is not known" in found.notes()[0]
