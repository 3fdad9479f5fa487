"""What is known of the kernel's types beyond their layout: what identifies an object in a record, and what it may be besides.

Keys are names of structs; the members that identify are regular expressions of paths from the object.
"""

from __future__ import annotations

import re

_DEV = r"(^|->|\.)(s_dev|bd_dev|major|i_rdev)$"


def _rules(*alternatives: tuple[str, ...]) -> tuple[tuple[re.Pattern[str], ...], ...]:
    return tuple(tuple(re.compile(pattern) for pattern in patterns) for patterns in alternatives)


IDENTIFIED_BY = {
    "request": _rules((_DEV, r"^__sector$"),),
    "bio": _rules((_DEV, r"^bi_iter\.bi_sector$"),),
    "buffer_head": _rules((_DEV, r"^b_blocknr$"),),
    "inode": _rules((r"^i_sb->s_dev$", r"^i_ino$"), (r"^i_ino$",)),
    "super_block": _rules((r"^s_dev$",),),
    "block_device": _rules((r"^bd_dev$",),),
    "gendisk": _rules((_DEV,)),
    "request_queue": _rules((_DEV,)),
    "address_space": _rules((r"^host->i_sb->s_dev$", r"^host->i_ino$"), (r"^host->i_ino$",)),
    "dentry": _rules((_DEV, r"^d_inode->i_ino$"),),
    "file": _rules((_DEV, r"(f_inode|d_inode)->i_ino$"),),
    "journal_s": _rules((_DEV,)),
    "net_device": _rules((r"^name$",), (r"^ifindex$",)),
    "kmem_cache": _rules((r"^name$",),),
    "workqueue_struct": _rules((r"^name$",),),
    "backing_dev_info": _rules((r"^dev_name$",),),
    "bdi_writeback": _rules((r"^bdi->dev_name$",),),
    "cgroup": _rules((r"^root->hierarchy_id$", r"^kn->id$"), (r"^kn->id$",)),
    "cgroup_root": _rules((r"^hierarchy_id$",),),
    "kernfs_node": _rules((r"^id$",),),
    "pid": _rules((r"^numbers\[0\]\.nr$",),),
    "sock": _rules((r"skc_cookie\.counter$",),),
    "device": _rules((r"^(init_name|kobj\.name)$",),),
    "clk_core": _rules((r"^name$",),),
    "module": _rules((r"^name$",),),
}  # fmt: skip
"""By struct: sets of paths of which each, all together, says which object it is; the first that is recorded counts."""

SAME_AS = {
    "page": "folio",
    "inet_sock": "sock", "tcp_sock": "sock", "udp_sock": "sock", "inet_connection_sock": "sock",
    "inet_request_sock": "request_sock", "tcp_request_sock": "request_sock",
}  # fmt: skip
"""Structs that begin with, or are, another one: pointers to either are to the same object."""

ROOM_OF = {
    "sock": (
        "tcp6_sock",
        "tcp_sock",
        "udp6_sock",
        "udp_sock",
        "raw6_sock",
        "raw_sock",
        "unix_sock",
        "netlink_sock",
        "packet_sock",
    ),
    "request_sock": ("tcp_request_sock", "inet_request_sock"),
    "folio": ("page",),
}
"""By struct: what its objects may be in full, so that there is memory for it."""

IMPLIED = {
    ("inet_sock", "inet_sport"): ("sk.__sk_common.skc_num", "swap16"),
}
"""(struct, member) -> another member that has the same value in another form: a socket's local port is kept twice.
Kernel: net/ipv4/inet_connection_sock.c:inet_csk_get_port, net/ipv4/inet_hashtables.c:__inet_hash_connect
"""
