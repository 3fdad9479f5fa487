"""The key of compiled code: what changes the code changes the key, and nothing is left out silently."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fastrtp.isa import Insn, assemble
from fastrtp.jit.cache import CachedObject
from fastrtp.jit.key import program_key, text_key
from fastrtp.jit.lower import CallTarget, LowerInput, lower
from fastrtp.jit.options import CodeOptions
from fastrtp.jit.program import object_cache
from fastrtp.native import host
from fastrtp.native.compiler import Part
from fastrtp.verifier import InsnAux

TEXT = """
r1 = map[fd:0]
r2 = r10
r2 += -8
*(u64 *)(r10 -8) = 0
call bpf_map_lookup_elem
r1 = map[fd:1][0]+0
if r0 == 0 goto +1
r0 = *(u64 *)(r0 +0)
r0 = 0
exit
"""
INSNS = assemble(TEXT)


def resolve(index: int, insn: Insn) -> CallTarget:
    return CallTarget("lookup", ("i64 8",), 2)


def map_symbols(index: int) -> str:
    return f"map.{INSNS[index].imm}"


def program(**changes: Any) -> LowerInput:
    given: dict[str, Any] = {
        "name": "bpf_prog", "insns": INSNS, "subprogs": [(0, len(INSNS))],
        "aux": [InsnAux(seen=True) for _ in INSNS], "resolve": resolve, "map_symbols": map_symbols,
    }  # fmt: skip
    return LowerInput(**(given | changes))


def aux(place: int, **change: Any) -> list[InsnAux]:
    return [InsnAux(seen=True, **(change if index == place else {})) for index in range(len(INSNS))]


CHANGES: dict[str, dict[str, Any]] = {
    "name": {"name": "other"},
    "an immediate": {"insns": [*INSNS[:-2], INSNS[-2]._replace(imm=1), INSNS[-1]]},
    "the functions": {"subprogs": [(0, 5), (5, len(INSNS))]},
    "no verifier": {"aux": None},
    "an access": {"aux": aux(9, access="btf")},
    "a callback": {"aux": aux(6, callback=3)},
    "a call's symbol": {"resolve": lambda index, insn: CallTarget("other", ("i64 8",), 2)},
    "a map's size": {"resolve": lambda index, insn: CallTarget("lookup", ("i64 16",), 2)},
    "a call's arguments": {"resolve": lambda index, insn: CallTarget("lookup", ("i64 8",), 3)},
    "a call's kind": {"resolve": lambda index, insn: CallTarget("lookup", ("i64 8",), 2, "tail_call")},
    "a map's symbol": {"map_symbols": lambda index: "map.9"},
    "constants": {"constants": lambda index: b"\1\0\0\0\0\0\0\0"},
    "other constants": {"constants": lambda index: b"\2\0\0\0\0\0\0\0"},
    "smp": {"smp": True},
    "debug": {"debug": True},
}


def test_every_input_that_changes_the_code_changes_the_key() -> None:
    every = {program_key(program()), *(program_key(program(**change)) for change in CHANGES.values())}

    assert len(every) == len(CHANGES) + 1


def test_every_option_is_in_the_key() -> None:
    default = CodeOptions()
    names = [member.name for member in dataclasses.fields(default)]
    changed = [dataclasses.replace(default, **{name: not getattr(default, name)}) for name in names]
    every = {program_key(program(options=options)) for options in (default, *changed)}

    assert len(every) == len(changed) + 1


def test_every_field_of_the_input_is_changed_above() -> None:
    """A field that is added to LowerInput gets its line in CHANGES (options have their own test)."""
    changed = {name for change in CHANGES.values() for name in change}

    assert {member.name for member in dataclasses.fields(LowerInput)} == changed | {"options"}


def test_a_field_without_a_plain_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"LowerInput\.smp"):
        program_key(program(smp=object()))


def test_equal_inputs_have_equal_keys_and_texts() -> None:
    """Also where equal facts are one object, as in a program that comes from the verifier's cache."""
    shared = InsnAux(seen=True)
    again = program(aux=[shared for _ in INSNS], insns=list(INSNS), subprogs=((0, len(INSNS)),))

    assert program_key(again) == program_key(program())
    assert lower(again) == lower(program())


def test_a_call_that_cannot_be_resolved_has_a_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> Any:
        raise KeyError(0)

    assert program_key(program(resolve=nowhere, map_symbols=nowhere)) != program_key(program())


@pytest.mark.parametrize("place", ["fastrtp.native.library.key", "fastrtp.jit.key.made_by"])
def test_the_tools_are_the_name_of_the_cache(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """What another library or other sources have made is not there."""
    object_cache().put("0" * 32, CachedObject(b"code", ()))
    before = object_cache().get("0" * 32)
    monkeypatch.setattr(place, lambda *_: "another processor, or version, or source")

    assert before is not None
    assert object_cache().get("0" * 32) is None


def test_texts_and_parts_and_exports_are_in_the_key() -> None:
    every = {
        text_key("a"), text_key("b"), text_key("a", [Part("b")]), text_key("a", [Part("c")]), text_key("a", [], ("f",)),
        text_key("a", [Part("b", (("x", "y"),))]), text_key("a", [Part("b"), Part("c")]), text_key("a", smp=True),
    }  # fmt: skip

    assert len(every) == 8
    assert Part._fields == ("text", "names")


def test_what_is_linked_to_a_program_is_in_its_key() -> None:
    every = {
        program_key(program()), program_key(program(), [Part("b")]), program_key(program(), [Part("c")]),
        program_key(program(), [Part("b", (("x", "y"),))]), program_key(program(), (), ("f",)),
    }  # fmt: skip

    assert len(every) == 5


CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: A processor @ 2.30GHz
cpu MHz\t\t: 2300.1
apicid\t\t: 0
flags\t\t: fpu sse2 avx2

processor\t: 1
flags\t\t: fpu
"""


def test_a_processor_is_what_it_can_do_not_how_fast_it_goes_now() -> None:
    other_clock = CPUINFO.replace("2300.1", "800.0")
    other_features = CPUINFO.replace("avx2", "avx2 avx512f")

    assert host.cpu_facts(CPUINFO) == host.cpu_facts(other_clock)
    assert host.cpu_facts(CPUINFO) != host.cpu_facts(other_features)
    assert "avx2" in host.cpu_facts(CPUINFO)


def test_where_linux_does_not_say_llvm_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from fastrtp.native import engine

    monkeypatch.setattr(host, "_CPUINFO", tmp_path / "absent")

    assert engine.cpu()[1] in host.processor.__wrapped__()
