"""`fastrtp link`: what is attached. Kernel: tools/bpf/bpftool/link.c"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from fastrtp.cli.introspect import Answer, Verb, Words, holders, holders_text, open_ids, pin, pinned
from fastrtp.uapi import BpfLinkType

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel

_NAME_SIZE = 128


def link_row(kernel: Kernel, number: int, bpffs: bool = False) -> dict[str, Any]:
    """A link with the keys of `bpftool -j link show`."""
    fd = kernel.fd_by_id("link", number)
    try:
        buffer = ctypes.create_string_buffer(_NAME_SIZE)
        info = kernel.obj_get_info_by_fd(fd, tp_name=ctypes.addressof(buffer), tp_name_len=_NAME_SIZE)
    finally:
        kernel.close(fd)
    found = {
        "id": info.id, "type": BpfLinkType(info.type).name.removeprefix("BPF_LINK_TYPE_").lower(), "prog_id": info.prog_id,
        "tp_name": buffer.value.decode(), "cookie": info.cookie,
    }  # fmt: skip
    found |= {"pinned": pinned(kernel, "link", number)} if bpffs else {}
    return found | {"pids": holders(kernel, "link", number)}


def _link_text(found: dict[str, Any]) -> str:
    cookie = f"cookie {found['cookie']}  " if found["cookie"] else ""
    return (
        f"{found['id']}: {found['type']}  prog {found['prog_id']}  \n\ttp_name '{found['tp_name']}'  {cookie}"
        + "".join(f"\n\tpinned {path}" for path in found.get("pinned", ()))
        + holders_text(found)
    )


def link_show(kernel: Kernel, words: Words, bpffs: bool) -> Answer:
    """`link show [LINK]`."""
    one = bool(words)
    ids = open_ids(kernel, "link", words, lambda number: link_row(kernel, number))
    words.end()
    rows = [link_row(kernel, number, bpffs) for number in ids]
    return Answer(rows[0] if one and len(rows) == 1 else rows, "\n".join(map(_link_text, rows)))


def link_detach(kernel: Kernel, words: Words, _bpffs: bool) -> Answer:
    """`link detach LINK`: EOPNOTSUPP, as Linux says of raw tracepoint links."""
    from fastrtp.uapi import ATTRS, BpfCmd

    words.take("handle", ["id"])
    fd = kernel.fd_by_id("link", words.number("id"))
    try:
        kernel.bpf(BpfCmd.BPF_LINK_DETACH, ATTRS[BpfCmd.BPF_LINK_DETACH].struct(link_fd=fd))
    finally:
        kernel.close(fd)
    return Answer(None, "")


VERBS: dict[str, Verb] = {"show": link_show, "list": link_show, "detach": link_detach, "pin": pin("link")}
