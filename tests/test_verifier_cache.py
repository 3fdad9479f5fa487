"""Verified programs on disk: the same program again, nothing from a damaged or unfitting entry, nothing for another program."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import static_funcs

from fastrtp.btf import default_btf
from fastrtp.entry_cache import EntryCache
from fastrtp.errors import BpfError, VerifierError
from fastrtp.isa import assemble
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfMapType, BpfProgType
from fastrtp.verifier import LoadAttr, VerifiedCache, VerifiedProgram
from fastrtp.verifier import bpf_check as verify

TEXT = """
r2 = r10
r2 += -8
*(u64 *)(r10 -8) = 0
r1 = map[fd:5]
call bpf_map_lookup_elem
if r0 == 0 goto out
r1 = 1
*(u64 *)(r0 +0) = r1
out:
r0 = 0
exit
"""


@dataclasses.dataclass
class CacheMap:
    map_type: int = BpfMapType.BPF_MAP_TYPE_HASH
    key_size: int = 8
    value_size: int = 16
    max_entries: int = 4
    map_flags: int = 0
    frozen: bool = False
    name: str = "counts"
    data: bytes = b""

    def read_value(self, offset: int, size: int) -> bytes:
        return self.data.ljust(self.value_size, b"\0")[offset : offset + size]


def attr_of(found: CacheMap, fd: int = 5, text: str = TEXT, **settings: object) -> LoadAttr:
    def fd_to_map(asked: int) -> CacheMap:
        if asked != fd:
            raise BpfError(9)
        return found

    insns = assemble(text.replace("fd:5]", f"fd:{fd}]"))
    return LoadAttr(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, insns, fd_to_map, **settings)  # type: ignore[arg-type]


class Counted:
    """A cache that counts how often the verifier itself ran."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = VerifiedCache(folder)
        self.runs = 0

        def bpf_check(attr: LoadAttr) -> VerifiedProgram:
            self.runs += 1
            return verify(attr)

        monkeypatch.setattr("fastrtp.verifier.cache.bpf_check", bpf_check)

    def __call__(self, attr: LoadAttr) -> VerifiedProgram:
        return self.cache.bpf_check(attr)

    @property
    def files(self) -> list[Path]:
        return sorted(self.cache.entries.folder.glob("verified-*.json"))


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(tmp_path, monkeypatch)


def test_the_second_load_is_the_first_one(check: Counted) -> None:
    """Everything that a verification gives comes back, with the map of the new load, whatever its descriptor is."""
    first = check(attr_of(CacheMap()))
    again = CacheMap()
    second = check(attr_of(again, fd=9))

    assert check.runs == 1
    assert second.used_maps[0] is again
    assert dataclasses.replace(second, used_maps=[]) == dataclasses.replace(first, used_maps=[])


@pytest.mark.parametrize(
    "change",
    [
        lambda: attr_of(CacheMap(value_size=8)),
        lambda: attr_of(CacheMap(map_flags=1)),
        lambda: attr_of(CacheMap(max_entries=5)),
        lambda: attr_of(CacheMap(name="other")),
        lambda: attr_of(CacheMap(), license="MIT"),
        lambda: attr_of(CacheMap(), log_level=2),
        lambda: attr_of(CacheMap(), prog_flags=1),
        lambda: attr_of(CacheMap(), btf=static_funcs.btf(), func_info=static_funcs.func_info(())),
        lambda: attr_of(CacheMap(), kernel_btf=default_btf()),
        lambda: attr_of(CacheMap(), text=TEXT.replace("r1 = 1\n", "r1 = 2\n")),
    ],
)
def test_another_program_is_verified_anew(check: Counted, change: object) -> None:
    """Each thing that a verdict may depend on is in the key."""
    check(attr_of(CacheMap()))
    check(change())  # type: ignore[operator]

    assert check.runs == 2


def test_frozen_bytes_are_in_the_key(check: Counted) -> None:
    """A load from a frozen map is a constant, on which the verdict may hang."""
    text = "r1 = map[fd:5][0]+0\nr1 = *(u64 *)(r1 +0)\nr2 = r10\nr2 += r1\nr0 = *(u8 *)(r2 -8)\nr0 = 0\nexit"
    text = "*(u64 *)(r10 -8) = 0\n" + text
    shape = {"map_type": BpfMapType.BPF_MAP_TYPE_ARRAY, "key_size": 4, "max_entries": 1, "map_flags": BPF_F_RDONLY_PROG}

    check(attr_of(CacheMap(**shape, frozen=True), text=text))  # type: ignore[arg-type]
    with pytest.raises(VerifierError):
        check(attr_of(CacheMap(**shape, frozen=True, data=b"\x40"), text=text))  # type: ignore[arg-type]


def test_rejections_are_not_kept(check: Counted) -> None:
    """A refused program is followed again, with its log."""
    for _ in range(2):
        with pytest.raises(VerifierError) as caught:
            check(attr_of(CacheMap(), text=TEXT.replace("if r0 == 0 goto out\n", "out:\n").replace("out:\nr0", "r0")))
        assert "processed" in caught.value.log

    assert check.runs == 2
    assert check.files == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:200], lambda data: b"", lambda data: b"\0" + data])
def test_a_damaged_entry_is_ignored(check: Counted, damage: object) -> None:
    """Cut, empty or changed: verified again, and stored again."""
    check(attr_of(CacheMap()))
    path = check.files[0]
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    check(attr_of(CacheMap()))
    check(attr_of(CacheMap()))

    assert check.runs == 2


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("aux", 0, 1), "elsewhere"),
        (("aux", 0, 2), 7),
        (("aux", 0, 3), 1000),
        (("aux", 0, 0), 3),
        (("which", 0), 99),
        (("which",), [0]),
        (("subprogs", 0, 1), 99),
        (("subprogs", 0, 2), 4096),
        (("subprogs",), []),
        (("stats", 0), "x"),
        (("rest", "max_ctx_offset"), -1),
        (("rest", "log"), 5),
        (("rest",), {}),
    ],
)
def test_what_does_not_fit_the_program_is_ignored(check: Counted, place: tuple[object, ...], value: object) -> None:
    """An entry with the right checksum and impossible contents is no entry."""
    check(attr_of(CacheMap()))
    path = check.files[0]
    data = json.loads(path.read_bytes().partition(b"\n")[2])
    inner = data
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    check.cache.entries.put(path.stem.rpartition("-")[2], {}, json.dumps(data).encode())
    check(attr_of(CacheMap()))

    assert check.runs == 2


def test_a_verdict_does_not_outlive_what_gave_it(check: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another library (a core that was compiled anew), or another source of the verifier's."""
    check(attr_of(CacheMap()))
    for place, judged in (("fastrtp.native.library.key", "other library"), ("fastrtp.verifier.cache.made_by", "other sources")):
        with monkeypatch.context() as patch:
            patch.setattr(place, lambda *_, judged=judged: judged)
            check.cache = VerifiedCache(tmp_path)
            check(attr_of(CacheMap()))
    check.cache = VerifiedCache(tmp_path)
    check(attr_of(CacheMap()))

    assert check.runs == 3


def test_a_folder_is_bounded(tmp_path: Path) -> None:
    """The entries that were not used for longest go."""
    entries = EntryCache(tmp_path, "verified", ".json", "maker", max_bytes=3000)
    for number in range(40):
        entries.put(f"{number:032x}", {}, bytes(500))
    entries.trim()

    assert 0 < sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A cache that cannot keep anything is none."""
    program = VerifiedCache(tmp_path / "absent").bpf_check(attr_of(CacheMap()))

    assert program.verified_insns > 0
