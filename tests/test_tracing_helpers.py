"""Helpers that tp_btf programs have besides: kinds of sockets, packets in samples, counters; and who is refused, as by Linux."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

import host_object
import pytest
from host_object import last_line

import fastrtp as rtp
from fastrtp.btf import BtfKind, host_btf
from fastrtp.errors import VerifierError
from fastrtp.isa import assemble, encode
from fastrtp.uapi import BpfAttachType, BpfCmd, BpfMapType, BpfProgType

TCP, UDP, STREAM, DGRAM = 6, 17, 1, 2
UNIX, INET, INET6 = 1, 2, 10
ESTABLISHED, TIME_WAIT = 1, 6
KINDS = ("tcp_sock", "tcp6_sock", "udp6_sock", "unix_sock", "tcp_timewait_sock", "tcp_request_sock")


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


def attach(kernel: rtp.Kernel, tracepoint: str, text: str) -> int:
    """A tp_btf program on a tracepoint; `text` may say OUT for an array of one 64-byte value, whose descriptor this is."""
    out = kernel.map_create(BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 64, 1)
    prog = kernel.prog_load(
        BpfProgType.BPF_PROG_TYPE_TRACING,
        encode(assemble(text.replace("OUT", f"map[fd:{out}][0]"))),
        license="GPL",
        expected_attach_type=BpfAttachType.BPF_TRACE_RAW_TP,
        attach_btf_id=kernel.tracepoints.proto(tracepoint).btf_id,
    )
    kernel.raw_tracepoint_open(None, prog)
    return out


def socket(kernel: rtp.Kernel, name: str, family: int, kind: int, protocol: int, state: int = ESTABLISHED) -> int:
    kernel.objects.set("sock", name, "__sk_common.skc_family", family)
    kernel.objects.set("sock", name, "__sk_common.skc_state", state)
    kernel.objects.set("sock", name, "sk_type", kind)
    kernel.objects.set("sock", name, "sk_protocol", protocol)
    return kernel.objects.object("sock", name)


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        ((INET, STREAM, TCP), {"tcp_sock"}),
        ((INET6, STREAM, TCP), {"tcp_sock", "tcp6_sock"}),
        ((INET6, DGRAM, UDP), {"udp6_sock"}),
        ((INET, DGRAM, UDP), set()),
        ((UNIX, STREAM, 0), {"unix_sock"}),
        ((INET6, STREAM, TCP, TIME_WAIT), set()),
    ],
)
def test_kinds_of_sockets(kernel: rtp.Kernel, shape: tuple[int, ...], kinds: set[str]) -> None:
    """Each kind by the members that Linux tells it by; what is found is read as what it is."""
    text = "r6 = *(u64 *)(r1 +0)\nr7 = OUT+0\n"
    for place, kind in enumerate(KINDS):
        text += f"r1 = r6\ncall bpf_skc_to_{kind}\nif r0 == 0 goto +2\nr0 = 1\n*(u8 *)(r7 +{place}) = r0\n"
    out = attach(kernel, "inet_sock_set_state", text + "r0 = 0\nexit")
    kernel.trace("inet_sock_set_state")(socket(kernel, "a", *shape), 1, 2)

    found = kernel.map_lookup_elem(out, bytes(4))
    assert {kind for kind, byte in zip(KINDS, found, strict=False) if byte} == kinds


def test_cookies_of_sockets(kernel: rtp.Kernel) -> None:
    """The one that is known, or a number of the socket's own, which stays; 0 for no socket."""
    out = attach(
        kernel,
        "inet_sock_set_state",
        """
        r6 = *(u64 *)(r1 +8)
        r1 = *(u64 *)(r1 +0)
        call bpf_get_socket_cookie
        r7 = OUT+0
        r6 &= 3
        r6 <<= 3
        r7 += r6
        *(u64 *)(r7 +0) = r0
        r1 = 0
        call bpf_get_socket_cookie
        *(u64 *)(r7 +32) = r0
        r0 = 0
        exit""",
    )
    one, other, known = (socket(kernel, name, INET, STREAM, TCP) for name in "abc")
    kernel.objects.set("sock", "c", "__sk_common.skc_cookie", 77)
    trace = kernel.trace("inet_sock_set_state")
    for place, sk in enumerate((one, other, known, one)):
        trace(sk, place, 0)

    first, second, third, again, *none = struct.unpack("<8Q", kernel.map_lookup_elem(out, bytes(4)))
    assert first == again != second
    assert 0 not in (first, second)
    assert third == 77
    assert none == [0, 0, 0, 0]


SAMPLE = """
    r6 = *(u64 *)(r1 +0)
    *(u64 *)(r10 -8) = 5
    r1 = r6
    r2 = map[fd:PERF]
    r3 = FLAGS ll
    r4 = r10
    r4 += -8
    r5 = 8
    call bpf_skb_output
    r7 = OUT+0
    *(u64 *)(r7 +0) = r0
    r0 = 0
    exit"""


@pytest.mark.parametrize(
    ("flags", "result", "sample"),
    [
        (0xFFFFFFFF, 0, struct.pack("<QI", 5, 0)),
        (6 << 32 | 0xFFFFFFFF, 0, struct.pack("<Q", 5) + b"packet" + bytes(6)),
        (6 << 32, 0, struct.pack("<Q", 5) + b"packet" + bytes(6)),
        (12 << 32, 0, struct.pack("<Q", 5) + bytes(12)),
        (21 << 32, -errno.EFAULT, None),
        (1 << 52, -errno.EINVAL, None),
        (7, -errno.E2BIG, None),
        (1, -errno.ENOENT, None),
    ],
)
def test_packets(kernel: rtp.Kernel, flags: int, result: int, sample: bytes | None) -> None:
    """A sample ends in the packet's first bytes: those of its linear part, zeros for what nobody knows."""
    perf = kernel.map_create(BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 2)
    event = kernel.perf_event_open(0)
    kernel.map_update_elem(perf, bytes(4), struct.pack("<I", event))
    out = attach(kernel, "kfree_skb", SAMPLE.replace("PERF", str(perf)).replace("FLAGS", str(flags)))
    for name, value in (("len", 20), ("data_len", 10), ("data", kernel.objects.string(b"packet, and more"))):
        kernel.objects.set("sk_buff", 1, name, value)
    kernel.trace("kfree_skb")(kernel.objects.object("sk_buff", 1), 0, 0)

    assert struct.unpack_from("<q", kernel.map_lookup_elem(out, bytes(4))) == (result,)
    assert list(kernel.perf_event_consume(event)) == ([] if sample is None else [sample])


READ = """
    r1 = map[fd:PERF]
    r2 = INDEX ll
    r3 = r10
    r3 += -24
    r4 = SIZE
    call bpf_perf_event_read_value
    r6 = r0
    r1 = map[fd:PERF]
    r2 = INDEX ll
    call bpf_perf_event_read
    if r0 != r6 goto +1
    exit
    r0 <<= 16
    r0 |= r6
    exit"""


@pytest.mark.parametrize(
    ("index", "result"),
    [(0, 0), (0xFFFFFFFF, 0), (1, -errno.EINVAL), (2, -errno.ENOENT), (3, -errno.E2BIG), (1 << 32, -errno.EINVAL)],
)
def test_counters_of_events(kernel: rtp.Kernel, index: int, result: int) -> None:
    """Events that programs write to count nothing; of another CPU's nothing is told."""
    perf = kernel.map_create(BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 3)
    for cpu in (0, 1):
        kernel.map_update_elem(perf, struct.pack("<I", cpu), struct.pack("<I", kernel.perf_event_open(cpu)))
    text = READ.replace("PERF", str(perf)).replace("INDEX", str(index)).replace("SIZE", "24")
    fd = kernel.prog_load(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, encode(assemble(text)), license="GPL")

    assert kernel.prog_test_run(fd) == result & 0xFFFFFFFF


ARG = "r1 = *(u64 *)(r1 +0)\n"
END = "\nr0 = 0\nexit"
FULL = "r2 = r10\nr2 += -8\nr3 = 8\n"
VERDICTS = [
    *((f"{ARG}call bpf_skc_to_{kind}{END}", "tcp_probe", "") for kind in KINDS),
    (f"{ARG}call bpf_get_socket_cookie{END}", "tcp_probe", ""),
    (f"r1 = 0\ncall bpf_get_socket_cookie{END}", "tcp_probe", ""),
    (f"r1 = 0\ncall bpf_skc_to_tcp_sock{END}", "tcp_probe",
     "R1 type=scalar expected=sock_common, sock, tcp_sock, xdp_sock, ptr_, trusted_ptr_"),
    (f"{ARG}call bpf_skc_to_mptcp_sock{END}", "tcp_probe",
     "R1 type=trusted_ptr_ expected=sock_common, sock, tcp_sock, xdp_sock"),
    (f"{ARG}call bpf_skc_to_tcp_sock{END}", "sched_process_exit", "R1 is of type task_struct but sock_common is expected"),
    (f"{ARG}call bpf_get_socket_cookie{END}", "sched_process_exit", "R1 is of type task_struct but sock_common is expected"),
    (f"{ARG}call bpf_sock_from_file{END}", "sched_process_exit", "R1 is of type task_struct but file is expected"),
    (f"{ARG}call bpf_xdp_get_buff_len{END}", "sched_process_exit", "R1 is of type task_struct but xdp_buff is expected"),
    (f"{ARG}{FULL}call bpf_d_path{END}", "sched_process_exit", "helper call is not allowed in probe"),
    ("call bpf_get_func_ip\nexit", "sched_process_exit",
     "func bpf_get_func_ip#173 supported only for fentry/fexit/fmod_ret programs"),
    (f"{ARG}call bpf_task_pt_regs\nr0 = *(u64 *)(r0 +0)\nexit", "sched_process_exit", ""),
    (f"{ARG}call bpf_task_pt_regs\nr0 = *(u64 *)(r0 +0)\nexit", "tcp_probe", "R1 is of type sock but task_struct is expected"),
]  # fmt: skip
"""(program, tracepoint, what is said)."""


@pytest.mark.parametrize(("text", "tracepoint", "message"), VERDICTS)
def test_verdicts(text: str, tracepoint: str, message: str) -> None:
    with rtp.Kernel(cpus=2) as kernel:
        if not message:
            attach(kernel, tracepoint, text)
            return
        with pytest.raises(VerifierError) as caught:
            attach(kernel, tracepoint, text)

    assert caught.value.strerror == message


@pytest.mark.parametrize(("text", "tracepoint", "message"), VERDICTS)
def test_verdicts_of_the_running_kernel(text: str, tracepoint: str, message: str) -> None:
    if not host_object.usable():
        pytest.skip("compared with Linux 6.18 on x86-64 only")
    import ctypes

    log = ctypes.create_string_buffer(1 << 16)
    insns = assemble(text)
    fd = host_object.bpf(
        BpfCmd.BPF_PROG_LOAD,
        prog_type=BpfProgType.BPF_PROG_TYPE_TRACING,
        insns=encode(insns),
        insn_cnt=len(insns),
        license=b"GPL\0",
        expected_attach_type=BpfAttachType.BPF_TRACE_RAW_TP,
        attach_btf_id=host_btf().find(f"btf_trace_{tracepoint}", BtfKind.TYPEDEF),
        log_level=1,
        log_buf=log,
        log_size=len(log),
    )
    if fd >= 0:
        os.close(fd)

    assert (fd >= 0) == (not message)
    assert fd >= 0 or last_line(log.value.decode()) == message
