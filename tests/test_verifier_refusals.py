"""Refusals that take more than a data case has: other BTF, other maps, very long programs."""

from __future__ import annotations

from errno import ELOOP
from types import SimpleNamespace
from typing import Any

import pytest
import static_funcs

from fastrtp.btf import Btf, BtfKind, default_btf
from fastrtp.btf.kfuncs import kfunc_id
from fastrtp.btf.write import BtfWriter
from fastrtp.errors import BpfError, VerifierError
from fastrtp.isa import Insn, assemble
from fastrtp.uapi import BpfAttachType, BpfMapType, BpfProgType
from fastrtp.verifier import AttachTarget, LoadAttr, bpf_check
from fastrtp.verifier.rules import check
from tests.fuzz.shapes import SHAPES

GLOBAL, STATIC = 1, 0
CALL = "call f\nr0 = 0\nexit\nf:\nr0 = 0\nexit"


def refused(insns: str | list[Insn], **fields: Any) -> tuple[int, list[str]]:
    """(errno, lines of the log without the last)."""
    kind = BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT
    code = assemble(insns) if isinstance(insns, str) else insns
    types = {} if "btf" in fields else {"btf": static_funcs.btf(), "func_info": static_funcs.func_info(code)}
    attr: dict[str, Any] = {"prog_type": kind, "fd_to_map": _no_map, **types, **fields}
    with pytest.raises(VerifierError) as caught:
        bpf_check(LoadAttr(insns=code, **attr))
    return caught.value.errno or 0, caught.value.log.splitlines()[:-1]


def _no_map(_fd: int) -> Any:
    raise BpfError(9)


def a_map(map_type: int, **fields: Any) -> Any:
    shape = {"key_size": 4, "value_size": 8, "max_entries": 1, "map_flags": 0, "frozen": False, "name": "m"}
    return SimpleNamespace(map_type=map_type, **shape | fields)


def with_function(params: list[str], *, linkage: int = GLOBAL, tag: str = "", result: str = "int") -> dict[str, Any]:
    """BTF in which the function behind the program has such parameters."""
    w = BtfWriter()
    ids = {"int": w.add_int("int", 4, 1), "u64": w.add_int("u64", 8)}
    ids["pair"] = w.add_struct("pair", 16, [("a", ids["u64"], 0), ("b", ids["u64"], 64)])
    ids["twice"] = w.add_struct("twice", 8, [("a", ids["u64"], 0)])
    ids["pair *"], ids["twice *"] = w.add_pointer(ids["pair"]), w.add_pointer(ids["twice"])
    ids["wait *"] = w.add_pointer(w.add(BtfKind.FWD, "wait"))
    ids["void"] = 0
    main = w.add(BtfKind.FUNC, "main", w.add_func_proto(ids["int"], []), vlen=GLOBAL)
    proto = w.add_func_proto(ids[result], [(f"p{at}", ids[name]) for at, name in enumerate(params)])
    func = w.add(BtfKind.FUNC, "f", proto, vlen=linkage)
    if tag:
        w.add(BtfKind.DECL_TAG, tag, func, extra=[0])
    return {"btf": Btf.parse(w.dump()), "func_info": [(0, main), (3, func)]}


def kernel_with_two(name: str) -> Btf:
    """A kernel that has two structs of a name, and a forward declaration."""
    w = BtfWriter()
    u64 = w.add_int("u64", 8)
    for member in ("a", "b"):
        w.add_struct(name, 8, [(member, u64, 0)])
    w.add(BtfKind.FWD, "wait")
    return Btf.parse(w.dump())


PROTOTYPES = [
    ({"params": ["int"] * 6}, 22, "Global function f() with 6 > 5 args. Buggy compiler."),
    ({"params": ["pair"]}, 22, "Arg#0 type STRUCT in f() is not supported yet."),
    ({"params": [], "result": "void"}, 22, "Global function f() doesn't return scalar. Only those are supported."),
    ({"params": ["twice *"], "tag": "arg:trusted"}, 3, "arg#0 reference type('STRUCT twice') is ambiguous"),
    (
        {"params": ["wait *"], "tag": "arg:untrusted"},
        22,
        "arg#0 has type FWD 'wait', but only struct or primitive types are allowed",
    ),
]


@pytest.mark.parametrize(("function", "number", "line"), PROTOTYPES, ids=[line for *_, line in PROTOTYPES])
def test_prototypes(function: dict[str, Any], number: int, line: str) -> None:
    """What the verifier cannot use, said before the call that is refused for it."""
    kernel = kernel_with_two("twice")

    assert refused(CALL, **with_function(**function), kernel_btf=kernel) == (
        number,
        ["0: R1=ctx() R10=fp0", "0: (85) call pc+2", line, "Caller passes invalid args into func#1 ('f')"],
    )


def test_a_tag_in_a_static_function_is_nobodys_business() -> None:
    """Static functions are followed with what they are given."""
    attr = with_function(["pair *"], linkage=STATIC, tag="arg:nonnull")
    program = bpf_check(LoadAttr(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, assemble(CALL), _no_map, **attr))

    assert not program.subprogs[1].is_global


def test_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program, and what is processed of it, have limits."""
    monkeypatch.setattr(check, "BPF_COMPLEXITY_LIMIT_INSNS", 100)
    loop = "r0 = 0\nagain:\nr0 += 1\nif r0 < 1000 goto again\nexit"

    assert refused(loop, log_level=0)[0] == 7
    assert refused(loop)[1][-1] == "BPF program is too large. Processed 101 insn"
    assert refused([])[1] == ["program has 0 instructions, of 1 to 100"]


def test_too_many_functions_and_maps() -> None:
    """256 functions besides the program, 64 maps."""
    many = "r0 = 0\nexit\n"
    functions = "".join(f"call f{n}\n" for n in range(256)) + many + "".join(f"f{n}:\n{many}" for n in range(256))
    maps = {fd: a_map(BpfMapType.BPF_MAP_TYPE_ARRAY) for fd in range(65)}

    assert refused(functions)[1] == ["too many subprograms"]
    assert refused("".join(f"r1 = map[fd:{fd}]\n" for fd in maps) + many, fd_to_map=maps.__getitem__)[1] == [
        "The total number of maps per program has reached the limit of 64"
    ]


def test_kernel_variables() -> None:
    """They need BTF, and to be structs."""
    btf = default_btf()
    number = next(record for record in btf if record.kind == BtfKind.VAR and btf.type(btf.strip(record.type)).kind == BtfKind.INT)
    load = [Insn(0x18, 1, 3, 0, number.id), Insn(0, 0, 0, 0, 0), *assemble("r0 = 0\nexit")]

    assert refused(load, kernel_btf=btf)[1][-1] == f"ldimm64 failed to find the address for kernel symbol '{number.name}'."
    assert refused(load)[1][-1] == "kernel is missing BTF, make sure CONFIG_DEBUG_INFO_BTF=y is specified in Kconfig."


def test_map_pointers() -> None:
    """Loads through them need the kernel's struct of such maps."""
    text = "r1 = map[fd:1]\nr0 = *(u32 *)(r1 +0)\nexit"
    other, array = a_map(BpfMapType.BPF_MAP_TYPE_CGROUP_STORAGE), a_map(BpfMapType.BPF_MAP_TYPE_ARRAY)

    btf = default_btf()
    assert refused(text, fd_to_map=lambda _: other, kernel_btf=btf)[1][-1] == "map_ptr access not supported for map type 19"
    assert refused(text, fd_to_map=lambda _: array)[1][-1] == "map_ptr access not supported without CONFIG_DEBUG_INFO_BTF"


def test_an_index_outside_the_array_of_descriptors() -> None:
    """BPF_PSEUDO_MAP_IDX."""
    load = [Insn(0x18, 1, 5, 0, 2), Insn(0, 0, 0, 0, 0), *assemble("r0 = 0\nexit")]

    assert refused(load, fd_array=[1, 2])[1] == ["fd_idx 2 is outside fd_array of 2"]


def test_rcu_sections_do_not_nest() -> None:
    """In Linux 6.18."""
    lock = f"call kernel-function#{kfunc_id(None, 'bpf_rcu_read_lock')}\n"

    assert refused(lock * 2 + "r0 = 0\nexit")[1][-1] == "nested rcu read lock (kernel function bpf_rcu_read_lock)"


def test_stack_of_a_chain_with_a_tail_call() -> None:
    """512 bytes for all of it."""
    progs = a_map(BpfMapType.BPF_MAP_TYPE_PROG_ARRAY, value_size=4)
    text = (
        "r6 = r1\n*(u64 *)(r10 -304) = 0\ncall f\nr1 = r6\nr2 = map[fd:1]\nr3 = 0\ncall bpf_tail_call\nr0 = 0\nexit\n"
        "f:\n*(u64 *)(r10 -304) = 0\nr0 = 0\nexit"
    )

    assert refused(text, fd_to_map=lambda _: progs)[1][-1] == "combined stack size of 2 calls is 608. Too large"


TP_BTF: dict[str, Any] = {
    "prog_type": BpfProgType.BPF_PROG_TYPE_TRACING,
    "expected_attach_type": BpfAttachType.BPF_TRACE_RAW_TP,
}


def kernel_with_tag(tag: str) -> Btf:
    """A kernel with a tracepoint whose argument leads to a pointer to memory of that kind."""
    w = BtfWriter()
    u64 = w.add_int("u64", 8)
    member = w.add_pointer(w.add(BtfKind.TYPE_TAG, tag, w.add_struct("pair", 8, [("a", u64, 0)])))
    holder = w.add_pointer(w.add_struct("holder", 8, [("there", member, 0)]))
    proto = w.add_func_proto(0, [("__data", w.add_pointer(0)), ("held", holder)])
    w.add(BtfKind.TYPEDEF, "btf_trace_event", w.add_pointer(proto))
    return Btf.parse(w.dump())


FOREIGN = {
    "user": "R1 is ptr_pair access user memory: off=0",
    "percpu": "R1 is ptr_pair access percpu memory: off=0",
}


@pytest.mark.parametrize("tag", FOREIGN)
def test_memory_of_users_and_cpus(tag: str) -> None:
    """A pointer to it may be loaded, but not followed."""
    btf = kernel_with_tag(tag)
    event = AttachTarget("event", btf.find("btf_trace_event") or 0)
    text = "r1 = *(u64 *)(r1 +0)\nr1 = *(u64 *)(r1 +0)\nr0 = *(u64 *)(r1 +0)\nexit"

    assert refused(text, kernel_btf=btf, attach=event, **TP_BTF)[1][-1] == FOREIGN[tag]


def test_variables_of_each_cpu() -> None:
    """Their address is one for bpf_per_cpu_ptr only."""
    btf = default_btf()
    load = [Insn(0x18, 1, 3, 0, btf.find("runqueues", BtfKind.VAR) or 0), Insn(0, 0, 0, 0, 0)]

    log = refused([*load, *assemble("r0 = *(u32 *)(r1 +0)\nexit")], kernel_btf=btf)[1]

    assert log[-1] == "R1 is ptr_rq access percpu memory: off=0"


def test_objects_need_types_and_have_few_fields() -> None:
    """bpf_obj_new: the program's BTF says what is made, with at most 11 special fields."""
    make = f"r1 = {{}}\nr2 = 0\ncall kernel-function#{kfunc_id(None, 'bpf_obj_new_impl')}\nr0 = 0\nexit"
    w = BtfWriter()
    u64 = w.add_int("u64", 8)
    node = w.add_struct("bpf_list_node", 24, [("a", u64, 0)])
    many = w.add_struct("many", 24 * 12, [("nodes", w.add_array(node, 12), 0)])
    kernel = kernel_with_tag("user")
    event = AttachTarget("event", kernel.find("btf_trace_event") or 0)

    number, log = refused(make.format(1), btf=None, kernel_btf=kernel, attach=event, **TP_BTF)
    assert (number, log[-1]) == (22, "bpf_obj_new/bpf_percpu_obj_new requires prog BTF")
    number, log = refused(make.format(many), btf=Btf.parse(w.dump()), kernel_btf=kernel, attach=event, **TP_BTF)
    assert (number, log[-1]) == (7, "struct many has 12 special fields, of at most 11")


def test_no_object_comes_to_own_itself() -> None:
    """A struct that is put into lists holds none of those that hold lists. Linux refuses the types as such."""
    w = BtfWriter()
    u64 = w.add_int("u64", 8)
    node, head = w.add_struct("bpf_list_node", 24, [("a", u64, 0)]), w.add_struct("bpf_list_head", 16, [("a", u64, 0)])
    lock = w.add_struct("bpf_spin_lock", 4, [("val", w.add_int("u32", 4), 0)])
    nest = w.add_struct("nest", 48, [("node", node, 0), ("head", head, 192), ("lock", lock, 320)])
    w.add(BtfKind.DECL_TAG, "contains:nest:node", nest, extra=[1])
    kernel = kernel_with_tag("user")
    event = AttachTarget("event", kernel.find("btf_trace_event") or 0)
    make = f"r1 = {nest}\nr2 = 0\ncall kernel-function#{kfunc_id(None, 'bpf_obj_new_impl')}\nr0 = 0\nexit"

    number, log = refused(make, btf=Btf.parse(w.dump()), kernel_btf=kernel, attach=event, **TP_BTF)
    assert (number, log[-1]) == (ELOOP, "struct nest has nodes, and struct nest, which it holds, holds others")


def test_kptr_xchg_needs_types() -> None:
    """Of the map."""
    exchange = "r1 = map[fd:1]\nr2 = r10\nr2 += -4\n*(u32 *)(r10 -4) = 0\ncall bpf_map_lookup_elem#1\nif r0 == 0 goto end\n"
    exchange += "r1 = r0\nr2 = 0\ncall bpf_kptr_xchg#194\nend:\nr0 = 0\nexit"
    array = a_map(BpfMapType.BPF_MAP_TYPE_ARRAY, max_entries=2)

    assert refused(exchange, fd_to_map=lambda _: array)[1][-1] == "map 'm' has to have BTF in order to use bpf_kptr_xchg"


TAIL_CALL = "call f\nr0 = 0\nexit\nf:\nr2 = map[fd:1]\nr3 = 0\ncall bpf_tail_call\nr0 = 0\nexit"
ONLY_INT = "tail_call is only allowed in functions that return 'int'."


def _progs(_fd: int) -> Any:
    return a_map(BpfMapType.BPF_MAP_TYPE_PROG_ARRAY, value_size=4)


def returning(kind: str, *modifiers: BtfKind) -> dict[str, Any]:
    """BTF in which the function behind the program returns that, behind typedefs and the like."""
    w = BtfWriter()
    made = {
        "int": w.add_int("int", 4, 1), "long": w.add_int("long", 8, 1), "bool": w.add_int("_Bool", 1, 4), "void": 0,
        "int128": w.add_int("__int128", 16, 1), "enum": w.add_enum("e", 4, [("a", 1)]),
        "struct": w.add_struct("s", 8, []), "pointer": w.add_pointer(0),
    }  # fmt: skip
    result = made[kind]
    for modifier in modifiers:
        result = w.add(modifier, "name" if modifier == BtfKind.TYPEDEF else "", result)
    main = w.add(BtfKind.FUNC, "main", w.add_func_proto(0, []), vlen=GLOBAL)
    func = w.add(BtfKind.FUNC, "f", w.add_func_proto(result, []), vlen=STATIC)
    return {"btf": Btf.parse(w.dump()), "func_info": [(0, main), (3, func)]}


@pytest.mark.parametrize("kind", ["void", "int128", "struct", "pointer"])
def test_a_function_with_a_tail_call_that_returns_no_number(kind: str) -> None:
    """What the other program returns is one."""
    assert refused(TAIL_CALL, fd_to_map=_progs, **returning(kind)) == (22, [ONLY_INT])


@pytest.mark.parametrize("kind", ["int", "long", "bool", "enum"])
def test_a_function_with_a_tail_call_that_returns_a_number(kind: str) -> None:
    """Of up to 8 bytes, behind whatever modifiers; what the program itself returns does not matter."""
    types = returning(kind, BtfKind.CONST, BtfKind.TYPEDEF, BtfKind.VOLATILE)
    attr: dict[str, Any] = {"prog_type": BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, "fd_to_map": _progs, **types}

    assert bpf_check(LoadAttr(insns=assemble(TAIL_CALL), **attr)).subprogs[1].has_tail_call


@pytest.mark.parametrize("func_info", [None, []])
def test_a_function_with_a_tail_call_and_no_types(func_info: Any) -> None:
    """Nobody says what it returns."""
    number, log = refused(TAIL_CALL, fd_to_map=_progs, btf=None, func_info=func_info)

    assert (number, log) == (22, ["tail_call is not allowed in subprogs without BTF"])


FUNC_INFO = [
    ([(1, 0), (3, 0)], "nonzero insn_off 1 for the first func info record"),
    ([(0, 0), (0, 0)], "same or smaller insn offset (0) than previous func info record (0)"),
    ([(0, 0), (3, 99)], "invalid type id 99 in func info"),
    ([(0, 1), (3, 0)], "invalid type id 1 in func info"),
    ([(0, 0)], "number of funcs in func_info doesn't match number of subprogs"),
    ([(0, 0), (2, 0)], "func_info BTF section doesn't match subprog layout in BPF program"),
]


@pytest.mark.parametrize(("rows", "message"), FUNC_INFO, ids=[message for _, message in FUNC_INFO])
def test_func_info_goes_with_the_program(rows: list[tuple[int, int]], message: str) -> None:
    """A record for each function, in order, each of a FUNC (0 stands for one here)."""
    types = with_function([])
    types["func_info"] = [(at, ident or types["func_info"][0][1]) for at, ident in rows]

    assert refused(CALL, **types) == (22, [message])


def test_a_callback_of_a_timer_with_a_tail_call() -> None:
    """Even one that no path reaches. Linux finds it, and takes it for a bug of its own."""
    text = (
        "*(u32 *)(r10 -4) = 0\nr2 = r10\nr2 += -4\nr1 = map[fd:15]\ncall bpf_map_lookup_elem#1\nif r0 == 0 goto out\nr6 = r0\n"
        "r1 = r6\nr1 += 8\nr2 = map[fd:15]\nr3 = 1\ncall bpf_timer_init#169\n"
        "r1 = r6\nr1 += 8\nr2 = subprog[pc+4]\ncall bpf_timer_set_callback#170\nout:\nr0 = 0\nexit\n"
        "r0 = 0\nif r0 == 0 goto end\nr1 = r2\nr2 = map[fd:4]\nr3 = 0\ncall bpf_tail_call#12\nend:\nr0 = 0\nexit"
    )
    attach = AttachTarget("sched_switch", default_btf().find("btf_trace_sched_switch") or 0)
    number, log = refused(text, fd_to_map=SHAPES.__getitem__, attach=attach, kernel_btf=default_btf(), **TP_BTF)

    assert (number, log[-1]) == (14, "verifier bug: subprog has tail_call and async cb")
