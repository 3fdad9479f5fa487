"""Text of /proc/PID/fdinfo/N for files of BPF objects.

Kernel counterpart: fs/proc/fd.c:seq_show and the show_fdinfo of each kind of file.
"""

from __future__ import annotations

from typing import Any

from fastrtp.kernel.files.file import O_CLOEXEC, File
from fastrtp.kernel.objects.bpf_map import BpfMap
from fastrtp.kernel.objects.link import BpfLink, BpfRawTpLink
from fastrtp.kernel.objects.prog import BpfProg

_LINK_TYPES = {1: "raw_tracepoint", 2: "tracing", 4: "iter", 7: "perf"}


def fdinfo_text(file: File, cloexec: bool) -> str:
    """The lines, tabs and all."""
    flags = file.f_flags | (O_CLOEXEC if cloexec else 0)
    rows = [("pos", "0"), ("flags", f"0{flags:o}"), ("mnt_id", "15"), ("ino", "1057")]
    obj = file.private_data
    if isinstance(obj, BpfProg):
        rows += _prog(obj)
    elif isinstance(obj, BpfMap):
        rows += _map(obj)
    elif isinstance(obj, BpfLink):
        rows += _link(obj)
    return "".join(f"{name}:\t{value}\n" for name, value in rows)


def _prog(prog: BpfProg) -> list[tuple[str, str]]:
    run_time_ns, run_cnt, misses = prog.stats()
    return [
        ("prog_type", str(prog.type)),
        ("prog_jited", "1"),
        ("prog_tag", prog.tag.hex()),
        ("memlock", "4096"),
        ("prog_id", str(prog.id)),
        ("run_time_ns", str(run_time_ns)),
        ("run_cnt", str(run_cnt)),
        ("recursion_misses", str(misses)),
        ("verified_insns", str(prog.verified.verified_insns)),
    ]


def _map(bpf_map: BpfMap) -> list[tuple[str, str]]:
    contents = bpf_map.map
    return [
        ("map_type", str(contents.map_type)),
        ("key_size", str(contents.key_size)),
        ("value_size", str(contents.value_size)),
        ("max_entries", str(contents.max_entries)),
        ("map_flags", f"{contents.map_flags:#x}"),
        ("map_extra", f"{contents.map_extra:#x}"),
        ("memlock", str(_memlock(contents))),
        ("map_id", str(bpf_map.id)),
        ("frozen", str(int(contents.frozen))),
    ] + ([("owner_prog_type", str(bpf_map.owner[0])), ("owner_jited", "1")] if bpf_map.owner is not None else [])


def _memlock(contents: Any) -> int:
    """Bytes that the map's elements take. Differs: the kernel's own figure counts its data structures."""
    return int(contents.max_entries * (contents.key_size + contents.value_size_user) or contents.max_entries)


def _link(link: BpfLink) -> list[tuple[str, str]]:
    rows = [
        ("link_type", _LINK_TYPES[link.type]),
        ("link_id", str(link.id)),
        ("prog_tag", link.prog.tag.hex()),
        ("prog_id", str(link.prog.id)),
    ]
    if isinstance(link, BpfRawTpLink):
        rows += [("tp_name", link.tp_name), ("cookie", str(link.cookie))]
    return rows
