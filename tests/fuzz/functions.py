"""BTF of generated programs: what their functions are said to be, and the values of maps 13 and 15 to 17 with their fields."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from fastrtp.btf import Btf, BtfKind
from fastrtp.btf.write import BtfWriter
from fastrtp.isa import Insn

_GLOBAL = 1


def _write() -> tuple[bytes, dict[str, int]]:
    w = BtfWriter()
    ids = {"int": w.add_int("int", 4, 1), "u64": w.add_int("u64", 8), "u32": w.add_int("u32", 4)}
    pair = w.add_struct("pair", 16, [("a", ids["u64"], 0), ("b", ids["u64"], 64)])
    pointer, to_u64 = w.add_pointer(pair), w.add_pointer(ids["u64"])
    lock = w.add_struct("bpf_spin_lock", 4, [("val", ids["u32"], 0)])
    members = [("n", ids["u64"], 0), ("lock", lock, 64), ("p", ids["u32"], 96), ("m", ids["u64"], 128)]
    ids["locked"] = w.add_struct("locked", 24, members)
    timer = w.add_struct("bpf_timer", 16, [("__opaque", w.add_array(ids["u64"], 2, ids["u32"]), 0)])
    ids["timed"] = w.add_struct("timed", 24, [("n", ids["u64"], 0), ("timer", timer, 64)])
    task = w.add_struct("task_struct", 0, [])
    kptr = w.add_pointer(w.add(BtfKind.TYPE_TAG, "kptr", task))
    ids["owner"] = w.add_struct("owner", 16, [("task", kptr, 0), ("n", ids["u64"], 64)])
    opaque = {count: w.add_array(ids["u64"], count, ids["u32"]) for count in (2, 3, 4)}
    kinds = (("list_node", 3), ("rb_node", 4), ("list_head", 2), ("rb_root", 2))
    node, rb, head, root = (w.add_struct(f"bpf_{name}", 8 * n, [("__opaque", opaque[n], 0)]) for name, n in kinds)
    count = w.add_struct("bpf_refcount", 4, [("__opaque", w.add_array(ids["u32"], 1, ids["u32"]), 0)])
    members = [("key", ids["u64"], 0), ("list", node, 64), ("tree", rb, 256), ("ref", count, 512)]
    ids["node"] = w.add_struct("node", 72, members)
    members = [("lock", lock, 0), ("head", head, 64), ("root", root, 192)]
    ids["roots"] = w.add_struct("roots", 40, members)
    w.add(BtfKind.DECL_TAG, "contains:node:list", ids["roots"], extra=[1])
    w.add(BtfKind.DECL_TAG, "contains:node:tree", ids["roots"], extra=[2])

    def func(name: str, params: list[tuple[str, int]], linkage: int, *tags: str) -> None:
        proto = w.add_func_proto(ids["int"], params)
        ids[name] = w.add(BtfKind.FUNC, name, proto, vlen=linkage)
        for tag in tags:
            w.add(BtfKind.DECL_TAG, f"arg:{tag}", ids[name], extra=[0])

    func("f", [], 0)
    ids["void"] = w.add(BtfKind.FUNC, "void", w.add_func_proto(0, []), vlen=0)
    func("by_scalar", [("a", ids["int"]), ("b", ids["u64"])], _GLOBAL)
    func("by_memory", [("pair", pointer)], _GLOBAL)
    func("by_nonnull", [("pair", pointer)], _GLOBAL, "nonnull")
    func("by_ctx", [("ctx", to_u64)], _GLOBAL, "ctx")
    return w.dump(), ids


BLOB, IDS = _write()
STATIC, VOID = IDS["f"], IDS["void"]
BY_SCALAR, BY_MEMORY, BY_NONNULL, BY_CTX = (IDS[name] for name in ("by_scalar", "by_memory", "by_nonnull", "by_ctx"))


@functools.cache
def btf() -> Btf:
    """The blob, parsed."""
    return Btf.parse(BLOB)


def func_info(insns: Sequence[Insn], globals_: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(first instruction, FUNC id) of each function: those in `globals_` as they say, the others static."""
    known = dict(globals_)
    starts = {0} | {i + insn.imm + 1 for i, insn in enumerate(insns) if (insn.code, insn.src_reg) in ((0x85, 1), (0x18, 4))}
    return [(start, known.get(start, STATIC)) for start in sorted(starts)]
