"""Between open and load: variables, maps and programs of an object, and what can still be done afterwards."""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtp.btf.encode import encode
from fastrtp.btf.values import decode
from fastrtp.errors import BpfError, ObjectError, ObjectWarning, UnknownNameError, VerifierError
from fastrtp.kernel import Kernel
from fastrtp.kernel.loader.object import BpfObject
from fastrtp.kernel.loader.variables import set_text, set_variable
from fastrtp.obj import ObjectSpec
from fastrtp.uapi import BpfMapType, BpfProgType

OBJECT = Path(__file__).parent / "data" / "elf" / "setup.bpf.o"


def opened(kernel: Kernel) -> BpfObject:
    """The object, with what it cannot do without."""
    obj = kernel.open(OBJECT)
    obj.maps["start"].max_entries = 16
    obj.maps["unknown_type"].autocreate = False
    return obj


def enter(obj: BpfObject, number: int) -> int:
    """One run of on_enter with a system call's number."""
    return obj.programs["on_enter"].test_run(struct.pack("<12Q", 0, number, *range(10)))


def test_variables_have_the_types_and_values_of_the_object(kernel: Kernel) -> None:
    obj = kernel.open(OBJECT)

    assert obj.rodata() == {
        "targ_pid": 0, "per_thread": False, "mode": "IDLE", "small": -1, "letter": ord("a"), "limits": [1, 2, 0, 0],
        "filter": {"pid": 0, "comm": "", "flags": 0, "halves": [0, 0], "low": 0, "high": 0,
                   "points": [{"x": 0, "y": 0}, {"x": 0, "y": 0}]},
    }  # fmt: skip
    assert obj.data.start_at == 3
    assert obj.bss() == {"hits": 0, "last": [0, 0, 0, 0], "unused_ratio": 0.0}
    assert obj.data_extra.resized == [0]
    assert set(dir(obj.bss)) == {"hits", "last", "unused_ratio"}


def test_what_is_set_before_the_load_is_what_programs_read(kernel: Kernel) -> None:
    obj = opened(kernel)
    obj.rodata.targ_pid = 5
    obj.rodata.mode = "BUSY"
    obj.rodata.filter.points[1].y = 77
    obj.data.start_at = -9
    obj.programs["on_exit"].autoload = True
    with obj.load():
        assert [enter(obj, number) for number in (5, 6, 5)] == [1, 0, 2]
        assert obj.programs["on_exit"].test_run(bytes(96)) == 77
        assert obj.programs["anywhere"].test_run(bytes(96)) == -9 & 0xFFFFFFFF
        assert list(obj.maps["start"].items()) == [(5, 2)]


def test_the_same_in_one_call(kernel: Kernel) -> None:
    with pytest.warns(ObjectWarning, match="map unknown_type, which no program that is loaded uses, is left out"):
        obj = kernel.load(
            OBJECT, rodata={"targ_pid": 5, "filter": {"points": [{}, {"y": 7}]}, "mode": 5}, data={"start_at": 4},
            bss={"hits": 10}, max_entries={"start": 2}, programs=["on_*"],
        )  # fmt: skip
    with obj:
        assert enter(obj, 5) == 11
        assert obj.programs["on_exit"].test_run(bytes(96)) == 7
        assert sorted(obj.programs) == ["on_enter", "on_exit"]
        assert obj.maps["start"].map.max_entries == 2
        assert "unknown_type" not in obj.maps


def test_variables_of_a_loaded_object_are_its_memory(kernel: Kernel) -> None:
    with opened(kernel).load() as obj:
        enter(obj, 3)
        obj.bss.hits = 100
        obj.bss.last[2] = 6

        assert enter(obj, 4) == obj.bss.hits == 101
        assert obj.bss.last == [4, 0, 6, 0]
        assert obj.bss.last[1:3] == [0, 6]
        assert obj.rodata.limits[1] == 2


def test_constants_are_constant_once_they_are_loaded(kernel: Kernel) -> None:
    with opened(kernel).load() as obj, pytest.raises(BpfError, match="frozen: set its variables between open and load") as error:
        obj.rodata.targ_pid = 1

    assert error.value.errno == errno.EPERM


def test_structs_are_set_whole_or_member_by_member(kernel: Kernel) -> None:
    filters = kernel.open(OBJECT).rodata.filter
    filters.pid = 1
    filters.comm = "bash"
    filters.halves[1] = 2
    filters.low, filters.high = 5, 17
    filters.points = [{"x": 1}, {"y": -2}]
    whole = filters()

    assert whole == {
        "pid": 1, "comm": "bash", "flags": 2 << 32, "halves": [0, 2], "low": 5, "high": 17,
        "points": [{"x": 1, "y": 0}, {"x": 0, "y": -2}],
    }  # fmt: skip
    assert filters == whole
    assert filters["points"][1].y == -2
    assert list(filters) == ["pid", "comm", "flags", "halves", "low", "high", "points"]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("targ_pidd", 1, "no variable 'targ_pidd', there are: .*targ_pid, per_thread"),
        ("rodata.hits", 1, "no variable 'hits' in .rodata, there are: targ_pid"),
        ("targ_pid", 1 << 32, "targ_pid is volatile const u32: it holds 0 to 4294967295, not 4294967296"),
        ("targ_pid", "5", "targ_pid is volatile const u32: it holds a number, not '5'"),
        ("targ_pid.x", 5, "'targ_pid' has no parts"),
        ("small", 128, "it holds -128 to 127, not 128"),
        ("per_thread", 2, "it holds 0 to 1, not 2"),
        ("mode", "NONE", "it holds IDLE, BUSY, not 'NONE'"),
        ("letter", "zz", "it holds a number"),
        ("limits", [0] * 5, "5 elements do not fit its 4"),
        ("limits[4]", 1, "limits has 4 elements, none of them number 4"),
        ("limits", 1, "it holds a list of 4, not 1"),
        ("filter", 5, "it holds a mapping of pid, comm, flags, halves, low, high, points, not 5"),
        ("filter", {"q": 1}, "it has no member 'q', there are: pid"),
        ("filter.q", 1, "it has no member 'q', there are: pid"),
        ("filter.comm", "x" * 17, "17 bytes do not fit its 16"),
        ("filter.high", 32, "filter.high is u8: it holds 0 to 31, not 32"),
        ("filter.points[1].z", 1, r"filter.points\[1\] is struct: it has no member 'z', there are: x, y|has no member 'z'"),
        ("hits", 1.5, "it holds a number, not 1.5"),
        (".x", 1, "is no variable's name"),
        ("", 1, "the name of the variable is missing"),
    ],
)
def test_wrong_names_and_values_say_what_there_is(kernel: Kernel, path: str, value: Any, says: str) -> None:
    before = kernel.open(OBJECT)
    sections = before.sections

    with pytest.raises(ObjectError, match=says):
        set_variable(sections, path, value)
    assert before.rodata() == kernel.open(OBJECT).rodata()


def test_an_object_says_which_sections_it_has(kernel: Kernel) -> None:
    obj = kernel.open(OBJECT)

    with pytest.raises(UnknownNameError, match=r"has no section \.kconfig, its variables are in: rodata, data, data_extra, bss"):
        _ = obj.kconfig
    with pytest.raises(AttributeError, match="no 'rodatta'"):
        _ = obj.rodatta
    assert not hasattr(obj, "nothing")


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("targ_pid", "0x10", 16), ("per_thread", "true", True), ("per_thread", "1", True), ("mode", "BUSY", "BUSY"),
        ("limits", "[7, 8]", [7, 8, 0, 0]), ("limits[3]", "9", [1, 2, 0, 9]), ("filter.comm", "123", "123"),
        ("filter.points[0]", '{"x": 3}', {"x": 3, "y": 0}), ("unused_ratio", "0.5", 0.5), ("bss.hits", "4", 4),
        ("data_extra.resized", "[6]", [6]), ("letter", "z", ord("z")), ("small", "-5", -5),
    ],
)  # fmt: skip
def test_text_says_a_value(kernel: Kernel, path: str, text: str, value: object) -> None:
    obj = kernel.open(OBJECT)
    set_text(obj.sections, path, text)
    found: Any = {name: one for section in obj.sections.values() for name, one in section().items()}
    for name in path.removeprefix("bss.").removeprefix("data_extra.").replace("]", "").replace("[", ".").split("."):
        found = found if path == "limits[3]" and name == "3" else found[int(name) if name.isdigit() else name]

    assert found == value


SPEC = ObjectSpec.parse(OBJECT.read_bytes(), "setup")


@given(
    st.fixed_dictionaries({
        "pid": st.integers(0, 2**32 - 1), "comm": st.text("abcµ ", max_size=6),
        "halves": st.lists(st.integers(0, 2**32 - 1), max_size=2),
        "low": st.integers(0, 7), "high": st.integers(0, 31),
        "points": st.lists(st.fixed_dictionaries({"x": st.integers(-(2**15), 2**15 - 1)}), max_size=2),
    })
)  # fmt: skip
def test_what_is_encoded_decodes_to_the_same(value: dict[str, Any]) -> None:
    btf = SPEC.btf
    assert btf is not None
    type_id = btf.find("filter") or 0
    shown = decode(btf, type_id, encode(btf, type_id, value))

    assert (shown["pid"], shown["comm"], shown["low"], shown["high"]) == (
        value["pid"],
        value["comm"],
        value["low"],
        value["high"],
    )
    assert shown["halves"] == [*value["halves"], 0, 0][:2]
    assert [point["x"] for point in shown["points"]] == [*(point["x"] for point in value["points"]), 0, 0][:2]


def test_a_size_that_is_the_users_to_set_is_named(kernel: Kernel) -> None:
    with pytest.raises(BpfError, match=r"create map start: EINVAL: max_entries is 0.*--max-entries start=N"):
        kernel.load(OBJECT)
    assert not kernel.maps


def test_maps_are_made_as_they_are_set_up(kernel: Kernel) -> None:
    obj = opened(kernel)
    obj.maps["start"].map_type = "lru_hash"
    obj.maps["start"].max_entries = 64
    obj.maps["optional"].value_size = 24
    outer = obj.maps["outer"]
    assert outer.inner is not None
    outer.inner.max_entries = 5
    with pytest.warns(ObjectWarning, match="map optional is created without types"):
        obj.load()
    with obj:
        assert obj.maps["start"].map_type == BpfMapType.BPF_MAP_TYPE_LRU_HASH == obj.maps["start"].map.map_type
        assert obj.maps["optional"].map.value_size == 24
        fits, other = (kernel.map_create(2, 4, 8, entries) for entries in (5, 6))
        outer.update(bytes(4), fits.to_bytes(4, "little"))
        with pytest.raises(BpfError):
            outer.update(bytes(4), other.to_bytes(4, "little"))
        kernel.close(fits)
        kernel.close(other)


def test_an_array_of_global_data_grows_to_its_section(kernel: Kernel) -> None:
    obj = opened(kernel)
    obj.maps[".data.extra"].value_size = 40
    obj.data_extra.resized = range(10)
    obj.programs["reads_extra"].autoload = True
    with obj.load():
        assert obj.data_extra.resized == list(range(10))
        assert obj.maps[".data.extra"].map.value_size == 40
        assert list(obj.maps[".data.extra"].items()) == [(0, {"resized": list(range(10))})]
        obj.data_extra.resized[0] = 12
        assert obj.programs["reads_extra"].test_run(bytes(96)) == 12


def test_a_size_that_leaves_half_an_element_has_no_types(kernel: Kernel) -> None:
    obj = opened(kernel)
    obj.maps[".data.extra"].value_size = 41
    with obj.load():
        assert obj.maps[".data.extra"].map.value_size == 41


def test_a_map_that_is_not_created_is_missed_only_where_it_is_used(kernel: Kernel) -> None:
    obj = opened(kernel)
    obj.maps["optional"].autocreate = False
    obj.programs["guarded"].autoload = True
    with obj.load():
        assert obj.programs["guarded"].test_run(bytes(96)) == 7
        assert "optional" not in obj.maps
    obj = opened(kernel)
    obj.maps["optional"].autocreate = False
    obj.rodata.per_thread = True
    obj.programs["guarded"].autoload = True
    with pytest.raises(VerifierError, match=r"load program guarded: instruction \d+ uses map 'optional', which was not created"):
        obj.load()


def test_a_map_that_a_program_uses_has_to_be_made(kernel: Kernel) -> None:
    with pytest.raises(BpfError, match="create map unknown_type"):
        kernel.load(OBJECT, programs=["of_unknown"])


def test_programs_that_are_refused_may_be_left_out(kernel: Kernel) -> None:
    with pytest.warns(ObjectWarning, match="map unknown_type, is left out"):
        obj = kernel.load(OBJECT, programs=["of_unknown", "on_exit"], strict=False)
    with obj:
        assert list(obj.programs) == ["on_exit"]
        assert "uses map 'unknown_type', which was not created" in obj.skipped["of_unknown"]
    with pytest.raises(VerifierError, match="load program of_unknown"):
        kernel.load(OBJECT, programs=["of_unknown"], strict=False)


def test_a_map_of_another_object_can_stand_for_one(kernel: Kernel) -> None:
    with opened(kernel).load() as first:
        second = opened(kernel)
        second.maps["start"].reuse(first.maps["start"])
        with second.load():
            enter(first, 1)
            enter(second, 1)

            assert first.maps["start"].bpf_map is second.maps["start"].bpf_map
            assert list(first.maps["start"].items()) == [(1, 2)]
        assert list(first.maps["start"].items()) == [(1, 2)]
    with pytest.raises(BpfError, match=r"EBADF|no map"):
        opened(kernel).maps["start"].reuse(99)


def test_a_map_is_pinned_and_found_again(kernel: Kernel) -> None:
    path = f"{kernel.bpffs.mount_point}/mine"
    for run in (1, 2):
        obj = opened(kernel)
        obj.maps["start"].pin_path = path
        with obj.load():
            enter(obj, 3)
            assert list(obj.maps["start"].items()) == [(3, run)]
    obj = opened(kernel)
    obj.maps["start"].pin_path, obj.maps["start"].max_entries = path, 17
    with pytest.raises(BpfError, match="the map pinned at"):
        obj.load()
    kernel.bpffs.unmount()


def test_programs_attach_where_and_as_they_are_told(kernel: Kernel) -> None:
    obj = opened(kernel)
    obj.programs["anywhere"].attach_to = "sched_wakeup"
    obj.programs["on_exit"].type = "tp_btf"
    obj.programs["on_exit"].autoload = True
    with obj.load(), obj.attach() as links:
        assert {link.program: link.tp_name for link in links} == {
            "on_enter": "sys_enter", "anywhere": "sched_wakeup", "on_exit": "sys_exit",
        }  # fmt: skip
        assert obj.programs["on_exit"].type == BpfProgType.BPF_PROG_TYPE_TRACING


def test_programs_are_chosen_by_pattern(kernel: Kernel) -> None:
    obj = opened(kernel)
    obj.select(["guard*", "on_exit"])

    assert [program.name for program in obj.programs.values() if program.autoload] == ["on_exit", "guarded"]
    with pytest.raises(UnknownNameError, match=r"no program 'nosuch\*', there are: on_enter"):
        obj.select(["nosuch*"])


@pytest.mark.parametrize(
    "change",
    [
        lambda obj: setattr(obj.maps["start"], "max_entries", 3), lambda obj: setattr(obj.maps["start"], "pin_path", "/x"),
        lambda obj: setattr(obj.maps["start"], "map_type", 1), lambda obj: setattr(obj.maps["start"], "autocreate", False),
        lambda obj: setattr(obj.maps[".data.extra"], "value_size", 8), lambda obj: obj.maps["start"].reuse(0),
        lambda obj: setattr(obj.programs["on_enter"], "autoload", False),
        lambda obj: setattr(obj.programs["on_enter"], "type", "tp"),
        lambda obj: setattr(obj.programs["on_enter"], "attach_to", "x"),
    ],
)  # fmt: skip
def test_nothing_is_set_up_after_the_load(kernel: Kernel, change: Any) -> None:
    with opened(kernel).load() as obj, pytest.raises(BpfError, match="between open and load") as error:
        change(obj)

    assert error.value.errno == errno.EBUSY


def test_an_object_is_loaded_once(kernel: Kernel) -> None:
    with opened(kernel).load() as obj, pytest.raises(BpfError, match="loaded already"):
        obj.load()
    with pytest.raises(ObjectError, match="not loaded yet"):
        opened(kernel).attach()
    with pytest.raises(ObjectError, match="map start is not created yet"):
        _ = opened(kernel).maps["start"].map
    with pytest.raises(ObjectError, match="program on_enter is not loaded yet"):
        _ = opened(kernel).programs["on_enter"].run_cnt
