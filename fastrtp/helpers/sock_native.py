"""Helpers on sockets: what kind of socket one is, and its cookie.

A kind is told by members of struct sock, whose offsets in the loaded kernel come behind env. What a recording does not know of a
socket is 0, of which kinds are not told; the reports say so. Kernel: net/core/filter.c, net/core/sock_diag.c, net/socket.c.
"""

from __future__ import annotations

from fastrtp.helpers.probe_native import in_range
from fastrtp.native.intrinsics import device, load8, load16, load64, native
from fastrtp.native.records import Env

_AF_UNIX, _AF_INET6 = 1, 10
_IPPROTO_TCP, _IPPROTO_UDP = 6, 17
_SOCK_DGRAM = 2
_NOT_FULL = 1 << 6 | 1 << 12
"""TCP_TIME_WAIT, TCP_NEW_SYN_RECV: what has no more than a sock_common."""
_ALIGN = 64


@device
def _at(object: int, offset: int, size: int, env: Env) -> int:
    """Address of a member, 0 for one that cannot be read."""
    if object == 0 or offset < 0:
        return 0
    return object + offset if in_range(object + offset, size, env.arena_base, env.arena_size) else 0


@device
def _short(object: int, offset: int, env: Env) -> int:
    address = _at(object, offset, 2, env)
    return load16(address) if address != 0 else 0


@device
def _is_full(sk: int, state: int, env: Env) -> bool:
    """Kernel: sk_fullsock."""
    address = _at(sk, state, 1, env)
    return address != 0 and (1 << (load8(address) & 31)) & ~_NOT_FULL != 0


@native()
def bpf_skc_to_tcp_sock(sk: int, env: Env, state: int, protocol: int) -> int:
    """The socket, if it is a full one of TCP; 0."""
    return sk if _is_full(sk, state, env) and _short(sk, protocol, env) == _IPPROTO_TCP else 0


@native()
def bpf_skc_to_tcp6_sock(sk: int, env: Env, state: int, protocol: int, family: int) -> int:
    """The socket, if it is a full one of TCP over IPv6; 0."""
    tcp = _is_full(sk, state, env) and _short(sk, protocol, env) == _IPPROTO_TCP
    return sk if tcp and _short(sk, family, env) == _AF_INET6 else 0


@native()
def bpf_skc_to_udp6_sock(sk: int, env: Env, state: int, protocol: int, family: int, kind: int) -> int:
    """The socket, if it is one of UDP over IPv6; 0."""
    udp = _is_full(sk, state, env) and _short(sk, protocol, env) == _IPPROTO_UDP and _short(sk, kind, env) == _SOCK_DGRAM
    return sk if udp and _short(sk, family, env) == _AF_INET6 else 0


@native()
def bpf_skc_to_unix_sock(sk: int, env: Env, state: int, family: int) -> int:
    """The socket, if it is a full one of a local family; 0."""
    return sk if _is_full(sk, state, env) and _short(sk, family, env) == _AF_UNIX else 0


@native()
def bpf_skc_to_tcp_timewait_sock(sk: int, env: Env, prot: int) -> int:
    """0: it is told by the address of the kernel's tcp_prot, which no recorded socket has."""
    return 0


@native()
def bpf_skc_to_tcp_request_sock(sk: int, env: Env, prot: int) -> int:
    """As that."""
    return 0


@native()
def bpf_sock_from_file(file: int, env: Env, f_op: int) -> int:
    """0: a socket's file is told by the address of the kernel's socket_file_ops, which no recorded file has."""
    return 0


@native()
def bpf_get_socket_cookie(sk: int, env: Env, cookie: int) -> int:
    """The socket's cookie; where there is none yet, a number that no other socket has. 0 for no socket.

    Differs: Linux takes the next number that no socket had, and keeps it in the socket.
    """
    address = _at(sk, cookie, 8, env)
    if address == 0:
        return 0
    known = load64(address)
    return known if known != 0 else (sk - env.arena_base) // _ALIGN
