"""The headers that sources include, as a folder: vmlinux.h from BTF, bpf_helper_defs.h from a table, and the package's own.

A folder for each BTF is kept in the user's cache, since writing the kernel's types as C takes seconds. What the runtime offers
and an older kernel's BTF does not have (objects of programs, map types) is added to vmlinux.h.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from enum import IntEnum
from importlib import resources
from pathlib import Path

from fastrtp.btf import Btf, BtfKind
from fastrtp.btf.dump import VMLINUX_H_BEGIN, VMLINUX_H_END, dump_types
from fastrtp.btf.types import COMPOSITES, ENUMS
from fastrtp.entry_cache import cache_folder
from fastrtp.errors import ENOTSUPP
from fastrtp.helpers.signatures import SIGNATURES
from fastrtp.provenance import made_by
from fastrtp.uapi import BpfAttachType, BpfMapType, BpfProgType

_KEPT = 6
"""Folders of headers in the cache, one for each kernel whose types were used last."""
_PREFIX = "headers-"

_SHORT_TYPE = re.compile(r"\b([us])(8|16|32|64)\b")
_SIGNATURE = re.compile(r"(.*?\W)(\w+)\((.*)\)$")

_OBJECTS = {
    "bpf_spin_lock": "unsigned int val;",
    "bpf_timer": "unsigned long long __opaque[2];",
    "bpf_dynptr": "unsigned long long __opaque[2];",
    "bpf_list_head": "unsigned long long __opaque[2];",
    "bpf_list_node": "unsigned long long __opaque[3];",
    "bpf_rb_root": "unsigned long long __opaque[2];",
    "bpf_rb_node": "unsigned long long __opaque[4];",
    "bpf_refcount": "unsigned int __opaque[1];",
    "bpf_wq": "unsigned long long __opaque[2];",
    "bpf_iter_num": "unsigned long long __opaque[1];",
}
"""Objects that programs keep in maps and on the stack. Kernel: include/uapi/linux/bpf.h"""

_UAPI_STRUCTS = re.compile(r"bpf_|__sk_buff$|xdp_md$|sk_msg_md$|sk_reuseport_md$|btf_ptr$|bpf_raw_tracepoint_args$")
_UAPI_TYPEDEFS = re.compile(r"(__u|__s|u|s)(8|16|32|64)$|__be(16|32|64)$|__le(16|32|64)$|__wsum$|__sum16$|bool$|size_t$")
_UAPI_ENUMERATORS = ("BPF_", "XDP_", "TCA_", "SK_")


def header_folder(btf: Btf) -> Path:
    """A folder with all headers for a kernel's types, made now if need be. BtfError; OSError where it cannot be written."""
    folder = cache_folder() / f"{_PREFIX}{headers_version(btf)}"
    if folder.is_dir():
        with contextlib.suppress(OSError):
            os.utime(folder)
        return folder
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{_PREFIX}"))
    try:
        write_headers(part, btf)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _trim(folder.parent)
    return folder


def headers_version(btf: Btf) -> str:
    """Digest of all that the headers are made of."""
    facts = hashlib.blake2b(f"{made_by(__name__)} {btf.digest}".encode(), digest_size=12)
    for name, text in sorted(_own().items()):
        facts.update(f"\n{name}\n{text}".encode())
    return facts.hexdigest()


def write_headers(folder: Path, btf: Btf) -> None:
    """Write all headers into a folder. BtfError, OSError."""
    for name in ("bpf", "linux", "asm", "asm-generic"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "vmlinux.h").write_text(vmlinux_h(btf))
    (folder / "linux" / "bpf.h").write_text(uapi_h(btf))
    for name in ("types.h", "ptrace.h", "bpf_common.h"):
        (folder / "linux" / name).write_text("#include <linux/bpf.h>\n")
    (folder / "asm-generic" / "errno.h").write_text(errno_h())
    for name in ("errno.h", "linux/errno.h", "asm/errno.h", "asm-generic/errno-base.h"):
        (folder / name).write_text("#include <asm-generic/errno.h>\n")
    (folder / "bpf" / "bpf_helper_defs.h").write_text(helper_defs_h())
    for name, text in _own().items():
        (folder / "bpf" / name).write_text(text)


def vmlinux_h(btf: Btf) -> str:
    """Every type of a kernel as C, and what programs may use although that kernel did not have it yet. BtfError."""
    types = dump_types(btf)
    return "\n".join([VMLINUX_H_BEGIN, *types, *_additions(btf), VMLINUX_H_END])


def uapi_h(btf: Btf) -> str:
    """linux/bpf.h, for sources that include it in place of vmlinux.h: the types of bpf(2) and the registers, as fixed as they are
    there. BtfError.
    """
    roots = [record.id for record in map(btf.type, range(1, len(btf))) if _is_uapi(btf, record.id)]
    lines = ["#ifndef __LINUX_BPF_H__", "#define __LINUX_BPF_H__", "#ifndef __VMLINUX_H__"]
    return "\n".join([*lines, *dump_types(btf, roots), *_additions(btf), "#endif", "#endif", ""])


def _is_uapi(btf: Btf, number: int) -> bool:
    record = btf.type(number)
    if record.kind in ENUMS:
        return bool(record.values) and record.values[0].name.startswith(_UAPI_ENUMERATORS)
    if record.kind == BtfKind.TYPEDEF:
        return _UAPI_TYPEDEFS.match(record.name) is not None
    return record.kind in COMPOSITES and (record.name in _OBJECTS or record.name in _CONTEXTS)


_CONTEXTS = frozenset(
    (
        "__sk_buff", "xdp_md", "sk_msg_md", "sk_reuseport_md", "bpf_sock", "bpf_tcp_sock", "bpf_sock_tuple", "bpf_sock_addr",
        "bpf_sock_ops", "bpf_sysctl", "bpf_sockopt", "bpf_sk_lookup", "bpf_perf_event_data", "bpf_perf_event_value",
        "bpf_pidns_info", "bpf_redir_neigh", "bpf_fib_lookup", "bpf_tunnel_key", "bpf_xfrm_state", "bpf_raw_tracepoint_args",
        "bpf_cgroup_dev_ctx", "btf_ptr", "pt_regs",
    )
)  # fmt: skip


def _additions(btf: Btf) -> Iterator[str]:
    """Definitions that the runtime honours and the BTF lacks."""
    for name, members in _OBJECTS.items():
        if btf.find(name, BtfKind.STRUCT) is None:
            yield f"struct {name} {{ {members} }} __attribute__((aligned({4 if 'int ' in members else 8})));"
    known = {value.name for record in map(btf.type, range(1, len(btf))) if record.kind in ENUMS for value in record.values}
    missing = [f"\t{member.name} = {int(member)}," for one in _enums() for member in one if member.name not in known]
    if missing:
        yield "\n".join(["enum {", *missing, "};"])


def _enums() -> Iterator[type[IntEnum]]:
    """The enumerations of bpf(2) that programs name constants of."""
    yield BpfMapType
    yield BpfProgType
    yield BpfAttachType


def errno_h() -> str:
    """Numbers of errors, for sources that tell what a helper returned. Kernel: include/uapi/asm-generic/errno.h"""
    numbers = {"ENOTSUPP": ENOTSUPP, **{name: number for number, name in errno.errorcode.items()}}
    numbers |= {"EWOULDBLOCK": errno.EAGAIN, "EDEADLOCK": errno.EDEADLK}
    return "\n".join(["#pragma once", *(f"#define {name} {number}" for name, number in sorted(numbers.items())), ""])


def helper_defs_h() -> str:
    """Every helper as a pointer that is its number. Kernel: include/uapi/linux/bpf.h:___BPF_FUNC_MAPPER"""
    structs = sorted({name for row in SIGNATURES for name in re.findall(r"struct (\w+)", row)})
    lines = ["/* Every helper, by its number. Written from fastrtp's table of helpers. */", "#pragma once", ""]
    lines += [f"struct {name};" for name in structs]
    for number, row in enumerate(SIGNATURES, 1):
        found = _SIGNATURE.match(row)
        assert found is not None
        ret, name, args = (_SHORT_TYPE.sub(r"__\1\2", part) for part in found.groups())
        lines.append(f"static {ret.rstrip()} (*const bpf_{name})({args}) = (void *){number};")
    return "\n".join([*lines, ""])


def _own() -> dict[str, str]:
    """The headers that are files of the package, by name."""
    folder = resources.files(__package__).joinpath("include", "bpf")
    return {file.name: file.read_text() for file in folder.iterdir() if file.name.endswith(".h")}


def _trim(folder: Path) -> None:
    """Keep the headers that were used last, and clear what a writer that was interrupted left behind."""
    with contextlib.suppress(OSError):
        held = sorted(folder.glob(f"{_PREFIX}*"), key=lambda path: path.stat().st_mtime, reverse=True)
        old = [path for path in folder.glob(f".{_PREFIX}*") if path.stat().st_mtime < time.time() - 3600]
        for path in (*held[_KEPT:], *old):
            shutil.rmtree(path, ignore_errors=True)
