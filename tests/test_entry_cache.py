"""Entries on disk: nothing damaged, changed or misplaced is taken for one, whatever happens to the folder."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fastrtp import entry_cache
from fastrtp.entry_cache import EntryCache, cache_folder, write_whole

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"


@pytest.fixture
def cache(tmp_path: Path) -> EntryCache:
    made = EntryCache(tmp_path, "thing", ".bin", "maker")
    made.put(KEY, {"symbols": ["a"]}, b"body\nof lines\n")
    return made


def test_what_is_put_can_be_got(cache: EntryCache) -> None:
    assert cache.get(KEY) == ({"symbols": ["a"]}, b"body\nof lines\n")
    assert KEY in cache
    assert cache.get(OTHER) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:40],
        lambda data: b"",
        lambda data: data.replace(b"lines", b"lanes"),
        lambda data: data.replace(b'"a"', b'"b"'),
        lambda data: b"[1]\n" + data.partition(b"\n")[2],
        lambda data: b"\xff\xfe" + data,
        lambda data: b"[" * 100_000 + b"\n" + data,
    ],
)
def test_a_damaged_or_changed_entry_is_none(cache: EntryCache, damage: object) -> None:
    path = cache.path(KEY)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]

    assert cache.get(KEY) is None
    cache.put(KEY, {}, b"new")
    assert cache.get(KEY) == ({}, b"new")


def test_an_entry_under_another_name_is_none(cache: EntryCache) -> None:
    cache.path(KEY).rename(cache.path(OTHER))

    assert cache.get(OTHER) is None


def test_only_the_owner_can_read_an_entry(cache: EntryCache) -> None:
    assert stat.S_IMODE(cache.path(KEY).stat().st_mode) == 0o600


def test_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    cache = EntryCache(tmp_path, "thing", ".bin", "maker", max_bytes=2500)
    keys = [f"0001{number:012x}" for number in range(4)]
    for number, key in enumerate(keys):
        cache.put(key, {}, bytes(800))
        os.utime(cache.path(key), (number, number))
    assert cache.get(keys[0]) is not None  # used now
    cache.trim()

    assert [key in cache for key in keys] == [True, False, False, True]


def test_trimming_leaves_other_caches_alone_and_takes_what_writers_left(cache: EntryCache, tmp_path: Path) -> None:
    beside = EntryCache(tmp_path, "other", ".bin", "maker")
    beside.put(KEY, {}, bytes(5000))
    other = beside.path(KEY)
    stale, fresh = tmp_path / ".thing-x.part", tmp_path / ".thing-y.part"
    for part in (stale, fresh):
        part.touch()
    os.utime(stale, (1, 1))
    EntryCache(tmp_path, "thing", ".bin", "maker", max_bytes=0).trim()

    assert sorted(path.name for path in tmp_path.iterdir()) == [fresh.name, other.name]


def test_a_full_disk_is_no_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    cache = EntryCache(tmp_path, "thing", ".bin", "maker")
    monkeypatch.setattr(entry_cache.os, "replace", full)
    cache.put(KEY, {}, b"body")

    assert cache.get(KEY) is None
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr(entry_cache.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "file", b"new")

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


WRITER = """
import sys
from pathlib import Path
from fastrtp.entry_cache import EntryCache
cache = EntryCache(Path(sys.argv[1]), "thing", ".bin", "maker", 20_000)
seen = 0
for round in range(60):
    for number in range(8):
        key = f"{number:016x}"
        found = cache.get(key)
        if found is not None:
            seen += 1
            assert found[1] == bytes([number]) * 3000, key
        cache.put(key, {"number": number}, bytes([number]) * 3000)
    cache.trim()
print(seen)
"""


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Two write, read and trim the same entries: each reads whole ones or none."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [(*one.communicate(timeout=60), one.returncode) for one in pair]

    assert [(error, status) for _, error, status in results] == [("", 0)] * 2
    assert all(int(seen) > 0 for seen, _, _ in results)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


class TestFolder:
    """The folder is where the user says, and nobody else writes there."""

    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("FASTRTP_CACHE", raising=False)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()

    def test_what_the_environment_says(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "fastrtp"
        monkeypatch.setenv("FASTRTP_CACHE", str(tmp_path / "named" / "deep"))

        assert cache_folder() == tmp_path / "named" / "deep"
        assert stat.S_IMODE(cache_folder().stat().st_mode) == 0o700

    def test_a_folder_that_others_can_write_gets_one_of_ours_inside(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        common = tmp_path / "common"
        common.mkdir()
        common.chmod(0o777)
        monkeypatch.setenv("FASTRTP_CACHE", str(common))

        assert cache_folder() == common / f"fastrtp-{os.getuid()}"
        assert stat.S_IMODE(cache_folder().stat().st_mode) == 0o700
        assert stat.S_IMODE(common.stat().st_mode) == 0o777

    def test_a_folder_that_cannot_be_made(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("FASTRTP_CACHE", str(tmp_path / "file" / "below"))

        assert cache_folder() == tmp_path / "tmp" / f"fastrtp-{os.getuid()}"

    def test_a_temporary_folder_that_somebody_else_took(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        taken = tmp_path / "tmp" / f"fastrtp-{os.getuid()}"
        taken.mkdir()
        taken.chmod(0o777)
        (tmp_path / "file").touch()
        monkeypatch.setenv("FASTRTP_CACHE", str(tmp_path / "file" / "beneath"))
        found = cache_folder()

        assert found != taken
        assert found.parent == tmp_path / "tmp"
        assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_an_entry_of_another_maker_is_none(cache: EntryCache, tmp_path: Path) -> None:
    """Also where somebody gives it the name that this one's would have."""
    other = EntryCache(tmp_path, "thing", ".bin", "another maker")
    assert other.get(KEY) is None
    assert KEY not in other

    cache.path(KEY).rename(other.path(KEY))
    assert other.get(KEY) is None


def test_the_entry_says_what_it_is(cache: EntryCache) -> None:
    head = json.loads(cache.path(KEY).read_bytes().partition(b"\n")[0])

    assert head["facts"] == {"symbols": ["a"]}
    assert len(head["checksum"]) == 64
