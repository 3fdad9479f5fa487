"""`fastrtp prog`: programs, their instructions and their native code. Kernel: tools/bpf/bpftool/prog.c, xlated_dumper.c"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrtp.cli.introspect import Answer, Verb, Words, fdinfo, holders, holders_text, only_one, open_ids, pin, pinned
from fastrtp.cli.introspect_jited import OPTIONS as JITED_OPTIONS
from fastrtp.cli.introspect_jited import jited
from fastrtp.uapi import BPF_PSEUDO_CALL, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, BpfProgType

if TYPE_CHECKING:
    from fastrtp.isa import Insn
    from fastrtp.kernel import Kernel
    from fastrtp.kernel.objects.prog import BpfProg

_CALL = 0x85
_LD_IMM64 = 0x18


def row(kernel: Kernel, number: int, bpffs: bool = False) -> dict[str, Any]:
    """A program with the keys of `bpftool -j prog show`."""
    fd = kernel.fd_by_id("prog", number)
    try:
        count = kernel.obj_get_info_by_fd(fd).nr_map_ids
        map_ids = (ctypes.c_uint32 * count)()
        info = kernel.obj_get_info_by_fd(fd, nr_map_ids=count, map_ids=ctypes.addressof(map_ids) if count else 0)
        memlock = int(fdinfo(kernel, fd)["memlock"])
    finally:
        kernel.close(fd)
    boot = time.time() - _boottime()
    found: dict[str, Any] = {
        "id": info.id,
        "type": BpfProgType(info.type).name.removeprefix("BPF_PROG_TYPE_").lower(),
        **({"name": info.name.decode()} if info.name else {}),
        "tag": bytes(info.tag).hex(),
        "gpl_compatible": bool(info.gpl_compatible),
    }
    if info.run_time_ns:
        found |= {"run_time_ns": info.run_time_ns, "run_cnt": info.run_cnt}
    if info.recursion_misses:
        found |= {"recursion_misses": info.recursion_misses}
    found |= {"loaded_at": int(boot + info.load_time / 1e9), "uid": info.created_by_uid, "bytes_xlated": info.xlated_prog_len}
    found |= {"jited": True, "bytes_jited": info.jited_prog_len, "bytes_memlock": memlock}
    found |= {"map_ids": list(map_ids)} if count else {}
    found |= {"btf_id": info.btf_id} if info.btf_id else {}
    found |= {"pinned": pinned(kernel, "prog", number)} if bpffs else {}
    return found | {"pids": holders(kernel, "prog", number)}


def _boottime() -> float:
    from fastrtp.kernel.syscall.prog import boottime_ns

    return boottime_ns() / 1e9


def as_text(found: dict[str, Any]) -> str:
    """A program as `bpftool prog show` prints it."""
    counted = f" run_time_ns {found['run_time_ns']} run_cnt {found['run_cnt']}" if "run_time_ns" in found else ""
    counted += f" recursion_misses {found['recursion_misses']}" if "recursion_misses" in found else ""
    name = f"  name {found['name']}" if "name" in found else ""
    loaded = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(found["loaded_at"]))
    maps = f"  map_ids {','.join(map(str, found['map_ids']))}" if "map_ids" in found else ""
    return (
        f"{found['id']}: {found['type']}{name}  tag {found['tag']}{'  gpl' if found['gpl_compatible'] else ''}{counted}\n"
        f"\tloaded_at {loaded}  uid {found['uid']}\n"
        f"\txlated {found['bytes_xlated']}B  jited {found['bytes_jited']}B  memlock {found['bytes_memlock']}B{maps}"
        + "".join(f"\n\tpinned {path}" for path in found.get("pinned", ()))
        + (f"\n\tbtf_id {found['btf_id']}" if "btf_id" in found else "")
        + holders_text(found)
    )


def show(kernel: Kernel, words: Words, bpffs: bool) -> Answer:
    """`prog show [PROG]`."""
    one = bool(words)
    ids = open_ids(kernel, "prog", words, lambda number: row(kernel, number))
    words.end()
    rows = [row(kernel, number, bpffs) for number in ids]
    return Answer(rows[0] if one and len(rows) == 1 else rows, "\n".join(map(as_text, rows)))


def dump(kernel: Kernel, words: Words, _bpffs: bool) -> Answer:
    """`prog dump xlated PROG [file F | opcodes | linum]`, `prog dump jited PROG [file F | opcodes | linum | bpf]`."""
    what = words.take("what to dump", ["xlated", "jited"])
    rest: list[str] = []
    while words:
        rest.append(words.take("word"))
    prog_words, options = (rest[:2], rest[2:]) if rest else ([], [])
    number = only_one(open_ids(kernel, "prog", Words(prog_words), lambda number: row(kernel, number)), "program")
    prog = kernel.progs.find(number)
    assert prog is not None
    if options[:1] == ["file"] and len(options) == 2:
        Path(options[1]).write_bytes(prog.xlated() if what == "xlated" else _native_bytes(prog))
        return Answer(None, "")
    known = {"opcodes", "linum"} if what == "xlated" else JITED_OPTIONS
    if strange := set(options) - known:
        raise click.UsageError(f"nothing known about {' '.join(sorted(strange))!r}")
    if what == "jited":
        return jited(prog, {found["index"]: found for found in xlated(kernel, prog)}, options)
    rows = list(xlated(kernel, prog))
    return Answer([_plain_row(found, options) for found in rows], "\n".join(_line(found, options) for found in rows))


def _native_bytes(prog: BpfProg) -> bytes:
    from fastrtp.kernel.objects.jited import jited_functions

    return b"".join(function.code for function in jited_functions(prog))


def xlated(kernel: Kernel, prog: BpfProg) -> Iterator[dict[str, Any]]:
    """Each instruction with its index, source line and, where a function begins, its prototype."""
    from fastrtp.isa import decode

    insns = decode(prog.xlated())
    btf = prog.aux.btf.btf if prog.aux.btf is not None else None
    functions: dict[int, str] = {}
    lines: dict[int, tuple[str, str, int, int]] = {}
    if btf is not None and prog.aux.func_info is not None:
        for at, type_id in prog.aux.func_info.tolist():
            functions[at] = btf.c_proto(type_id, btf.type(type_id).name).removesuffix(";")
    if btf is not None and prog.aux.line_info is not None:
        for at, file, text, place in prog.aux.line_info.tolist():
            lines[at] = btf.string(text).strip(), btf.string(file), place >> 10, place & 0x3FF
    index = 0
    while index < len(insns):
        insn = insns[index]
        following = insns[index + 1] if insn.code == _LD_IMM64 else None
        found: dict[str, Any] = {"index": index, "insns": [insn] if following is None else [insn, following]}
        if index in functions:
            found["proto"] = functions[index]
        if index in lines:
            found["src"], found["file"], found["line_num"], found["line_col"] = lines[index]
        found["disasm"] = _disasm(insn, following)
        yield found
        index += len(found["insns"])


def _disasm(insn: Insn, following: Insn | None) -> str:
    """The instruction as bpftool prints it: maps by id. Kernel: tools/bpf/bpftool/xlated_dumper.c:print_imm, print_call"""
    from fastrtp.isa import print_bpf_insn

    if following is not None and insn.src_reg == BPF_PSEUDO_MAP_FD:
        return f"({insn.code:02x}) r{insn.dst_reg} = map[id:{insn.imm}]"
    if following is not None and insn.src_reg == BPF_PSEUDO_MAP_VALUE:
        return f"({insn.code:02x}) r{insn.dst_reg} = map[id:{insn.imm}][0]+{following.imm}"
    if insn.code == _CALL and insn.src_reg == BPF_PSEUDO_CALL:
        return f"({insn.code:02x}) call pc{insn.imm:+d}"
    return print_bpf_insn(insn, following)


def _plain_row(found: dict[str, Any], options: list[str]) -> dict[str, Any]:
    names = ["proto", "src", *(["file", "line_num", "line_col"] if "linum" in options else []), "disasm"]
    made = {name: found[name] for name in names if name in found}
    if "opcodes" in options:
        data = _bytes(found)
        made["opcodes"] = {
            "code": f"{data[0]:#04x}", "src_reg": f"{data[1] >> 4:#x}", "dst_reg": f"{data[1] & 15:#x}",
            "off": [f"{byte:#04x}" for byte in data[2:4]],
            "imm": [f"{byte:#04x}" for byte in (*data[4:8], *data[12:16])],
        }  # fmt: skip
    return made


def _bytes(found: dict[str, Any]) -> bytes:
    from fastrtp.isa import encode

    return encode(found["insns"])


def _line(found: dict[str, Any], options: list[str]) -> str:
    text = f"{found['proto']}:\n" if "proto" in found else ""
    if "src" in found:
        place = f" [file:{found['file']} line_num:{found['line_num']} line_col:{found['line_col']}]" if "linum" in options else ""
        text += f"; {found['src']}{place}\n"
    text += f"{found['index']:>4}: {found['disasm']}"
    if "opcodes" in options:
        text += f"\n       {_bytes(found).hex(' ')}"
    return text


def run(kernel: Kernel, words: Words, _bpffs: bool) -> Answer:
    """`prog run PROG [ctx_in F]`: one run on a context from a file, zeros without. BpfError, OSError.

    Kernel: tools/bpf/bpftool/prog.c:do_run
    """
    number = only_one(open_ids(kernel, "prog", words, lambda number: row(kernel, number)), "program")
    ctx = bytes(8 * _CONTEXT_WORDS)
    if words:
        words.take("option", ["ctx_in"])
        ctx = Path(words.take("file")).read_bytes()
    words.end()
    fd = kernel.fd_by_id("prog", number)
    try:
        result = kernel.prog_test_run(fd, ctx)
    finally:
        kernel.close(fd)
    return Answer({"retval": result}, f"Return value: {result}")


_CONTEXT_WORDS = 12
"""As many as a raw tracepoint has at most."""

VERBS: dict[str, Verb] = {"show": show, "list": show, "dump": dump, "pin": pin("prog"), "run": run}
