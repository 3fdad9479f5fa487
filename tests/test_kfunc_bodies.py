"""Kernel functions whose prototype says all: verdicts and results, ours and the running kernel's.

A program is assembly in which `kcall NAME` calls a kernel function, VALUE stands for an array of one 64-byte value, RING for a
ring buffer; what is expected is stated, and the running kernel is asked for the same where it is Linux 6.18.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

import host_object
import pytest
from host_object import last_line

import fastrtp as rtp
from fastrtp.btf import Btf, BtfKind, host_btf
from fastrtp.btf.kfuncs import BODIES, EVERY, KFUNCS, kfunc_id
from fastrtp.errors import BpfError
from fastrtp.isa import Insn, assemble, encode
from fastrtp.uapi import BpfAttachType, BpfCmd, BpfMapType, BpfProgType

U32 = 0xFFFFFFFF


def assembled(text: str, btf: Btf, value: int, ring: int) -> list[Insn]:
    text = text.replace("VALUE", f"map[fd:{value}][0]").replace("RING", f"map[fd:{ring}]")
    return assemble(re.sub(r"kcall (\w+)", lambda found: f"call kernel-function#{kfunc_id(btf, found[1])}", text))


class Ours:
    """fastrtp, with the running kernel's types where `btf` says so."""

    def __init__(self, btf: str | None = None) -> None:
        self.kernel = rtp.Kernel(btf=btf, cpus=2) if btf else rtp.Kernel(cpus=2)
        self.value = self.kernel.map_create(BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 64, 1)
        self.ring = self.kernel.map_create(BpfMapType.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096)

    def load(self, text: str, tracepoint: str = "") -> tuple[int, str]:
        code = encode(assembled(text, self.kernel.btf, self.value, self.ring))
        more: dict[str, Any] = {}
        if tracepoint:
            attach_btf_id = self.kernel.tracepoints.proto(tracepoint).btf_id
            more = {"expected_attach_type": BpfAttachType.BPF_TRACE_RAW_TP, "attach_btf_id": attach_btf_id}
        kind = BpfProgType.BPF_PROG_TYPE_TRACING if tracepoint else BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT
        try:
            return self.kernel.prog_load(kind, code, license="GPL", **more), ""
        except BpfError as error:
            return -(error.errno or 0), error.strerror or ""

    def fill(self, data: bytes) -> None:
        self.kernel.map_update_elem(self.value, bytes(4), data)

    def run(self, fd: int, ctx: bytes = bytes(96)) -> int:
        return self.kernel.prog_test_run(fd, ctx_in=ctx)

    def close(self) -> None:
        self.kernel.close_all() if hasattr(self.kernel, "close_all") else self.kernel.__exit__(None, None, None)


class Linux:
    """The running kernel: programs are loaded and run once, never attached."""

    def __init__(self) -> None:
        self.value = host_object.bpf(BpfCmd.BPF_MAP_CREATE, map_type=2, key_size=4, value_size=64, max_entries=1)
        self.ring = host_object.bpf(BpfCmd.BPF_MAP_CREATE, map_type=27, max_entries=4096)
        self.progs: list[int] = []

    def load(self, text: str, tracepoint: str = "") -> tuple[int, str]:
        code = assembled(text, host_btf(), self.value, self.ring)
        log = ctypes.create_string_buffer(1 << 20)
        kind = BpfProgType.BPF_PROG_TYPE_TRACING if tracepoint else BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT
        attach = host_btf().find(f"btf_trace_{tracepoint}", BtfKind.TYPEDEF) if tracepoint else 0
        fd = host_object.bpf(
            BpfCmd.BPF_PROG_LOAD, prog_type=kind, insns=encode(code), insn_cnt=len(code), license=b"GPL\0", log_level=1,
            log_buf=log, log_size=len(log), attach_btf_id=attach,
            expected_attach_type=BpfAttachType.BPF_TRACE_RAW_TP if tracepoint else 0,
        )  # fmt: skip
        if fd >= 0:
            self.progs.append(fd)
        return fd, "" if fd >= 0 else last_line(log.value.decode())

    def fill(self, data: bytes) -> None:
        host_object.bpf(BpfCmd.BPF_MAP_UPDATE_ELEM, map_fd=self.value, key=bytes(4), value=data)

    def run(self, fd: int, ctx: bytes = bytes(96)) -> int:
        return host_object.test_run(fd, ctx)

    def close(self) -> None:
        for fd in (*self.progs, self.value, self.ring):
            os.close(fd)


@pytest.fixture(scope="module")
def linux() -> Iterator[Linux]:
    if not host_object.usable():
        pytest.skip("compared with Linux 6.18 on x86-64 only")
    side = Linux()
    yield side
    side.close()


@pytest.fixture(scope="module")
def ours() -> Iterator[Ours]:
    side = Ours()
    yield side
    side.close()


@pytest.fixture(scope="module")
def on_host_types() -> Iterator[Ours]:
    if not os.path.exists("/sys/kernel/btf/vmlinux") or host_btf().find("bpf_cpumask", BtfKind.STRUCT) is None:
        pytest.skip("needs the types of a kernel with bpf_cpumask")
    side = Ours("host")
    yield side
    side.close()


D = "r1 = VALUE+0\nr2 = 12\nr3 = 0\nr4 = r10\nr4 += -16\ncall bpf_dynptr_from_mem\n"
NULL = D.replace("r3 = 0", "r3 = 1")
D2 = "r1 = VALUE+16\nr2 = 12\nr3 = 0\nr4 = r10\nr4 += -32\ncall bpf_dynptr_from_mem\n"
P, CLONE = "r1 = r10\nr1 += -16\n", "r2 = r10\nr2 += -32\nkcall bpf_dynptr_clone\n"
RESERVE = "r1 = RING\nr2 = 16\nr3 = 0\nr4 = r10\nr4 += -16\ncall bpf_ringbuf_reserve_dynptr\n"
SUBMIT = "r2 = 0\ncall bpf_ringbuf_submit_dynptr\n"
SLICE = "kcall bpf_dynptr_slice\n"
READ = "kcall bpf_probe_read_kernel_dynptr\n"
LOAD = "if r0 == 0 goto +1\nr0 = *(u64 *)(r0 +0)\n"
PAIR = "arg#2 arg#3 memory, len pair leads to invalid memory access"

RUN = {
    "a size": (D + P + "kcall bpf_dynptr_size\nexit", 12),
    "no size of none": (NULL + P + "kcall bpf_dynptr_size\nexit", -errno.EINVAL),
    "it is there": (D + P + "kcall bpf_dynptr_is_null\nr0 &= 255\nexit", 0),
    "it is not there": (NULL + P + "kcall bpf_dynptr_is_null\nr0 &= 255\nexit", 1),
    "it may be written": (D + P + "kcall bpf_dynptr_is_rdonly\nr0 &= 255\nexit", 0),
    "a part of it": (D + P + f"r2 = 2\nr3 = 5\nkcall bpf_dynptr_adjust\n{P}kcall bpf_dynptr_size\nexit", 3),
    "a part that ends before it begins": (D + P + "r2 = 7\nr3 = 5\nkcall bpf_dynptr_adjust\nexit", -errno.EINVAL),
    "an int has 32 bits": (D + P + "r2 = 7\nr3 = 5\nkcall bpf_dynptr_adjust\nr0 >>= 32\nexit", 0),
    "a part outside": (D + P + "r2 = 7\nr3 = 15\nkcall bpf_dynptr_adjust\nexit", -errno.ERANGE),
    "a slice": (D + P + f"r2 = 2\nr3 = 0\nr4 = 8\n{SLICE}{LOAD}exit", 0x05040302),
    "a slice of a part": (
        D + P + f"r2 = 1\nr3 = 12\nkcall bpf_dynptr_adjust\n{P}r2 = 2\nr3 = 0\nr4 = 8\n{SLICE}{LOAD}exit", 0x06050403),
    "a slice outside": (D + P + f"r2 = 6\nr3 = 0\nr4 = 8\n{SLICE}{LOAD}exit", 0),
    "a slice with a buffer": (D + P + f"r2 = 0\nr3 = r10\nr3 += -32\nr4 = 8\n{SLICE}{LOAD}exit", 0x03020100),
    "a clone": (D + P + CLONE + "r1 = r10\nr1 += -32\nkcall bpf_dynptr_size\nexit", 12),
    "a clone of none": (NULL + P + CLONE + "exit", -errno.EINVAL),
    "a clone in its own place": (D + P + "r2 = r1\nkcall bpf_dynptr_clone\nexit", 0),
    "a record that its clone gives back": (RESERVE + P + CLONE + f"r1 = r10\nr1 += -32\n{SUBMIT}r0 = 0\nexit", 0),
    "a slice outlives the record": (
        RESERVE + P + CLONE + f"r1 = r10\nr1 += -32\nr2 = 0\nr3 = 0\nr4 = 8\n{SLICE}r7 = r0\n{P}{SUBMIT}"
        "if r7 == 0 goto +1\nr0 = *(u64 *)(r7 +0)\nr0 = 0\nexit", 0),
    "a slice outlives its dynptr": (
        D + P + f"r2 = 2\nr3 = 0\nr4 = 8\n{SLICE}r7 = r0\n*(u64 *)(r10 -16) = 0\nr0 = 0\nif r7 == 0 goto +1\n"
        "r0 = *(u64 *)(r7 +0)\nexit", 0x05040302),
    "a copy": (
        D + D2 + P + "r2 = 0\nr3 = r10\nr3 += -32\nr4 = 0\nr5 = 8\nkcall bpf_dynptr_copy\n"
        f"{P}r2 = 0\nr3 = 0\nr4 = 8\n{SLICE}{LOAD}exit", 0x13121110),
    "a copy outside": (D + D2 + P + "r2 = 0\nr3 = r10\nr3 += -32\nr4 = 5\nr5 = 8\nkcall bpf_dynptr_copy\nexit", -errno.E2BIG),
    "a copy from none": (
        D + D2.replace("r3 = 0", "r3 = 1") + P + "r2 = 0\nr3 = r10\nr3 += -32\nr4 = 5\nr5 = 8\nkcall bpf_dynptr_copy\nexit",
        -errno.EINVAL),
    "bytes of one kind": (
        D + P + f"r2 = 1\nr3 = 5\nr4 = 0x41\nkcall bpf_dynptr_memset\n{P}r2 = 0\nr3 = 0\nr4 = 8\n{SLICE}{LOAD}exit", 0x41414100),
    "bytes outside": (D + P + "r2 = 1\nr3 = 15\nr4 = 0x41\nkcall bpf_dynptr_memset\nexit", -errno.E2BIG),
    "memory of the kernel": (
        D + "*(u64 *)(r10 -24) = 77\n" + P + "r2 = 1\nr3 = 8\nr4 = r10\nr4 += -24\nkcall bpf_probe_read_kernel_dynptr\n"
        f"{P}r2 = 1\nr3 = 0\nr4 = 8\n{SLICE}{LOAD}exit", 77),
    "memory that is not the kernel's": (D + P + f"r2 = 1\nr3 = 8\nr4 = 8\n{READ}exit", -errno.ERANGE),
    "too much memory": (D + P + "r2 = 1\nr3 = 18\nr4 = 8\nkcall bpf_probe_read_kernel_dynptr\nexit", -errno.E2BIG),
    "a string of the kernel": (
        D + "*(u64 *)(r10 -24) = 0x6261\n" + P + "r2 = 1\nr3 = 8\nr4 = r10\nr4 += -24\n"
        "kcall bpf_probe_read_kernel_str_dynptr\nexit", 3),
    "memory of a process": (D + P + "r2 = 1\nr3 = 8\nr4 = 8\nkcall bpf_probe_read_user_dynptr\nexit", -errno.EFAULT),
    "a string of a process": (D + P + "r2 = 1\nr3 = 8\nr4 = 8\nkcall bpf_probe_read_user_str_dynptr\nexit", -errno.EFAULT),
    "elements of a map that has none": ("r1 = RING\nkcall bpf_map_sum_elem_count\nexit", 0),
    "a string on the stack": ("*(u64 *)(r10 -8) = 0x616161\nr1 = r10\nr1 += -8\nkcall bpf_strlen\nexit", 3),
    "a string at 0": ("r1 = 0\nkcall bpf_strlen\nexit", -errno.ERANGE),
    "a string that is not there": ("r1 = -4096\nkcall bpf_strlen\nexit", -errno.EFAULT),
    "a string at a number between": ("r1 = 0x800000000000 ll\nkcall bpf_strlen\nexit", -errno.ERANGE),
}  # fmt: skip
"""Program: R0, 32 bits. The array's value counts from 0 on."""

REFUSED = {
    "a slice of a size that varies": (
        D + "call bpf_get_prandom_u32\nr6 = r0\nr6 &= 7\n" + P + f"r2 = 2\nr3 = 0\nr4 = r6\n{SLICE}exit",
        "R4 must be a known constant"),
    "past a slice": (D + P + f"r2 = 2\nr3 = 0\nr4 = 8\n{SLICE}if r0 == 0 goto +1\nr0 = *(u64 *)(r0 +4)\nexit",
                     "R0 min value is outside of the allowed memory range"),
    "a slice is written": (D + P + f"r2 = 2\nr3 = 0\nr4 = 8\n{SLICE}if r0 == 0 goto +1\n*(u64 *)(r0 +0) = 1\nr0 = 0\nexit",
                           "R0 cannot write into rdonly_mem"),
    "a slice is not checked": (D + P + f"r2 = 2\nr3 = 0\nr4 = 8\n{SLICE}r0 = *(u64 *)(r0 +0)\nexit",
                               "R0 invalid mem access 'rdonly_mem_or_null'"),
    "a slice's buffer is too small": (D + P + f"r2 = 2\nr3 = r10\nr3 += -8\nr4 = 9\n{SLICE}r0 = 0\nexit", PAIR),
    "a slice's buffer is a number": (D + P + f"r2 = 2\nr3 = 5\nr4 = 8\n{SLICE}r0 = 0\nexit", PAIR),
    "a slice's size is a pointer": (D + P + f"r2 = 2\nr3 = 0\nr4 = r10\n{SLICE}r0 = 0\nexit",
                                    "arg#2 pointer type UNKNOWN  must point to scalar, or struct with scalar"),
    "a slice to write": (D + P + "r2 = 2\nr3 = 0\nr4 = 8\nkcall bpf_dynptr_slice_rdwr\nr0 = 0\nexit",
                         "the prog does not allow writes to packet data"),
    "a record that is given back twice": (RESERVE + P + CLONE + f"r1 = r10\nr1 += -32\n{SUBMIT}{P}{SUBMIT}r0 = 0\nexit",
                                          "arg 1 is an unacquired reference"),
    "a record that is not given back": (RESERVE + P + CLONE + "r0 = 0\nexit",
                                        "BPF_EXIT instruction in main prog would lead to reference leak"),
    "a record's clone is stored over": (RESERVE + P + CLONE + f"*(u64 *)(r10 -32) = 0\n{P}{SUBMIT}r0 = 0\nexit",
                                        "cannot overwrite referenced dynptr"),
    "no dynptr": ("r1 = 0\nkcall bpf_dynptr_size\nexit", "Possibly NULL pointer passed to trusted arg0"),
    "a dynptr that was not made": (P + "kcall bpf_dynptr_size\nexit", "Expected an initialized dynptr as arg #0"),
    "a map value for a dynptr": ("r1 = VALUE+0\nkcall bpf_dynptr_size\nexit",
                                 "arg#0 expected pointer to stack or const struct bpf_dynptr"),
    "a pointer for a number": (D + P + "r2 = r10\nr3 = 5\nkcall bpf_dynptr_adjust\nexit", "R2 is not a scalar"),
    "a register that was not written": (D + P + "kcall bpf_dynptr_adjust\nexit", "R2 is not a scalar"),
    "what the compiler gave up": ("kcall __bpf_trap\nexit", "unexpected __bpf_trap() due to uninitialized variable?"),
    "what asks a device": ("kcall bpf_xdp_metadata_rx_hash\nexit", "metadata kfuncs require device-bound program"),
    "what may sleep": ("kcall bpf_copy_from_user_str\nexit",
                       "program must be sleepable to call sleepable kfunc bpf_copy_from_user_str"),
    "what is for tracing": ("r1 = 1\nkcall bpf_task_from_pid\nexit", "calling kernel function bpf_task_from_pid is not allowed"),
}  # fmt: skip
"""Raw tracepoint program: the last line of the log."""


COUNTED = "r1 = map[fd:{}]\nkcall bpf_map_sum_elem_count\nexit"
HASHES = [BpfMapType.BPF_MAP_TYPE_HASH, BpfMapType.BPF_MAP_TYPE_PERCPU_HASH, BpfMapType.BPF_MAP_TYPE_LRU_HASH]


@pytest.mark.parametrize("kind", HASHES)
def test_elements_of_hashes(ours: Ours, kind: BpfMapType) -> None:
    fd = ours.kernel.map_create(kind, 4, 8, 100)
    size = 16 if kind == BpfMapType.BPF_MAP_TYPE_PERCPU_HASH else 8
    prog, message = ours.load(COUNTED.format(fd))
    for key in (1, 2, 3, 2):
        ours.kernel.map_update_elem(fd, struct.pack("<I", key), bytes(size))
    ours.kernel.map_delete_elem(fd, struct.pack("<I", 3))

    assert message == ""
    assert ours.run(prog) == 2


@pytest.mark.parametrize("kind", HASHES)
def test_elements_of_hashes_of_the_running_kernel(linux: Linux, kind: BpfMapType) -> None:
    fd = host_object.bpf(BpfCmd.BPF_MAP_CREATE, map_type=kind, key_size=4, value_size=8, max_entries=100)
    prog, message = linux.load(COUNTED.format(fd))
    for key in (1, 2, 3, 2):
        host_object.bpf(BpfCmd.BPF_MAP_UPDATE_ELEM, map_fd=fd, key=struct.pack("<I", key), value=bytes(8 * 64))
    host_object.bpf(BpfCmd.BPF_MAP_DELETE_ELEM, map_fd=fd, key=struct.pack("<I", 3))
    counted = linux.run(prog)
    os.close(fd)

    assert message == ""
    assert counted == 2


@pytest.mark.parametrize("name", RUN)
def test_results(ours: Ours, name: str) -> None:
    text, expected = RUN[name]
    fd, message = ours.load(text)
    ours.fill(bytes(range(64)))

    assert message == ""
    assert ours.run(fd) == expected & U32


@pytest.mark.parametrize("name", RUN)
def test_results_of_the_running_kernel(linux: Linux, name: str) -> None:
    text, expected = RUN[name]
    fd, message = linux.load(text)
    linux.fill(bytes(range(64)))

    assert message == ""
    assert linux.run(fd) == expected & U32


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(ours: Ours, name: str) -> None:
    text, expected = REFUSED[name]

    assert ours.load(text)[1] == expected


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_of_the_running_kernel(linux: Linux, name: str) -> None:
    text, expected = REFUSED[name]

    assert linux.load(text)[1] == expected


CALLS = {
    "strcmp": "ss", "strcasecmp": "ss", "strchr": "sc", "strchrnul": "sc", "strrchr": "sc", "strnchr": "snc", "strlen": "s",
    "strnlen": "sn", "strspn": "ss", "strcspn": "ss", "strstr": "ss", "strnstr": "ssn",
}  # fmt: skip
"""Arguments: strings at 0 and 32 of the value, a char and a count from the context."""


def string_program(name: str) -> str:
    text, strings = "r7 = *(u64 *)(r1 +0)\nr8 = *(u64 *)(r1 +8)\n", 0
    for number, kind in enumerate(CALLS[name], 1):
        if kind == "s":
            text += f"r{number} = VALUE+{32 * strings}\n"
            strings += 1
        else:
            text += f"r{number} = {'r7' if kind == 'c' else 'r8'}\n"
    return text + f"kcall bpf_{name}\nexit"


def string_cases(count: int) -> Iterator[tuple[bytes, bytes]]:
    """(value, context)."""
    rng = random.Random(5)
    letters = [b"a", b"b", b"A", b"\xe4", b"\xc4", b"\xd7", b"\xf7"]
    for _ in range(count):
        one = b"".join(rng.choice(letters) for _ in range(rng.randint(0, 8)))
        other = rng.choice(
            [one, one[1:3], one[:2], one.swapcase(), b"".join(rng.choice(letters) for _ in range(rng.randint(0, 3)))]
        )
        char = rng.choice([0, ord("a"), 0xE4, 0xFFFFFFE4, ord("x"), 0x161, ord("b")])
        number = rng.choice([0, 1, 2, 3, 5, 8, 9, 100, 2**64 - 1, 70000])
        yield one.ljust(32, b"\0") + other.ljust(32, b"\0"), struct.pack("<12Q", char, number, *[0] * 10)


def test_strings_as_the_running_kernel(linux: Linux, ours: Ours) -> None:
    """2,400 calls with short strings."""
    progs = {name: (ours.load(string_program(name))[0], linux.load(string_program(name))[0]) for name in CALLS}
    wrong = []
    for value, ctx in string_cases(200):
        ours.fill(value)
        linux.fill(value)
        for name, (here, there) in progs.items():
            found, expected = ours.run(here, ctx), linux.run(there, ctx)
            if found != expected:
                wrong.append((name, value, ctx[:16], found, expected))

    assert wrong == []


@pytest.mark.parametrize(
    ("name", "one", "other", "char", "count", "expected"),
    [
        ("strcmp", b"abc", b"abd", 0, 0, -1),
        ("strcmp", b"\xe4", b"a", 0, 0, 1),
        ("strcasecmp", b"aBc", b"AbC", 0, 0, 0),
        ("strchr", b"abcabc", b"", ord("c"), 0, 2),
        ("strchr", b"abc", b"", ord("x"), 0, -errno.ENOENT),
        ("strchrnul", b"abc", b"", ord("x"), 0, 3),
        ("strrchr", b"abcabc", b"", ord("c"), 0, 5),
        ("strnchr", b"abcabc", b"", ord("c"), 2, -errno.ENOENT),
        ("strlen", b"abc", b"", 0, 0, 3),
        ("strnlen", b"abc", b"", 0, 2, 2),
        ("strspn", b"aabbc", b"ab", 0, 0, 4),
        ("strcspn", b"aabbc", b"cb", 0, 0, 2),
        ("strstr", b"aabbc", b"bb", 0, 0, 2),
        ("strnstr", b"aabbc", b"bb", 0, 3, -errno.ENOENT),
    ],
)
def test_strings(ours: Ours, name: str, one: bytes, other: bytes, char: int, count: int, expected: int) -> None:
    fd, message = ours.load(string_program(name))
    ours.fill(one.ljust(32, b"\0") + other.ljust(32, b"\0"))

    assert message == ""
    assert ours.run(fd, struct.pack("<12Q", char, count, *[0] * 10)) == expected & U32


MAKE = "kcall bpf_cpumask_create\nif r0 != 0 goto +2\nr0 = 0\nexit\nr6 = r0\n"
GIVE_BACK = "r1 = r6\nkcall bpf_cpumask_release\nr0 = 0\nexit"
TASK = "r1 = *(u64 *)(r1 +8)\n"
NOT_OURS = "kernel function {} args#{} expected pointer to STRUCT {} but R{} has a pointer to STRUCT {}"
MASKS = {
    "made and given back": (MAKE + GIVE_BACK, ""),
    "kept": (MAKE + "r0 = 0\nexit", "BPF_EXIT instruction in main prog would lead to reference leak"),
    "not checked": ("kcall bpf_cpumask_create\nr1 = r0\nkcall bpf_cpumask_release\nr0 = 0\nexit",
                    "Possibly NULL pointer passed to trusted arg0"),
    "given back twice": (MAKE + "r1 = r6\nkcall bpf_cpumask_release\n" + GIVE_BACK, "R1 type=scalar expected=fp"),
    "a pointer for a CPU": (MAKE + "r1 = r6\nr2 = r6\nkcall bpf_cpumask_set_cpu\n" + GIVE_BACK, "R1 is not a scalar"),
    "another owner": (MAKE + "r1 = r6\nkcall bpf_cpumask_acquire\nr1 = r0\nkcall bpf_cpumask_release\n" + GIVE_BACK, ""),
    "another owner that keeps it": (MAKE + "r1 = r6\nkcall bpf_cpumask_acquire\n" + GIVE_BACK,
                                    "BPF_EXIT instruction in main prog would lead to reference leak"),
    "a task for a mask": (TASK + "kcall bpf_cpumask_first\nr0 = 0\nexit",
                          NOT_OURS.format("bpf_cpumask_first", 0, "cpumask", 1, "task_struct")),
    "a task is given back as a mask": (TASK + "kcall bpf_cpumask_release\nr0 = 0\nexit",
                                       NOT_OURS.format("bpf_cpumask_release", 0, "bpf_cpumask", 1, "task_struct")),
    "a mask is read": (MAKE + "r1 = *(u64 *)(r6 +0)\n" + GIVE_BACK, ""),
    "a mask is written": (MAKE + "*(u64 *)(r6 +0) = 1\n" + GIVE_BACK, "only read is supported"),
    "a mask of the program's memory": ("r1 = VALUE+0\nkcall bpf_cpumask_first\nr0 = 0\nexit", ""),
    "a borrowed task is given back": (TASK + "kcall bpf_task_release\nr0 = 0\nexit",
                                      "release kernel function bpf_task_release expects refcounted PTR_TO_BTF_ID"),
}  # fmt: skip
"""tp_btf program on sched_switch: the last line of the log."""
GROUP = "r1 = *(u64 *)(r1 +0)\n"
LET_GO = "if r0 == 0 goto +2\nr1 = r0\nkcall bpf_cgroup_release\nr0 = 0\nexit"
GROUPS = {
    "an ancestor": (GROUP + "r2 = 0\nkcall bpf_cgroup_ancestor\n" + LET_GO, ""),
    "an ancestor that is kept": (GROUP + "r2 = 0\nkcall bpf_cgroup_ancestor\nr0 = 0\nexit",
                                 "BPF_EXIT instruction in main prog would lead to reference leak"),
    "whether a task is under it": (GROUP + "r6 = r1\ncall bpf_get_current_task_btf\nr1 = r0\nr2 = r6\n"
                                   "kcall bpf_task_under_cgroup\nr0 = 0\nexit", ""),
    "whether a cgroup is under it": (GROUP + "r2 = r1\nkcall bpf_task_under_cgroup\nr0 = 0\nexit",
                                     NOT_OURS.format("bpf_task_under_cgroup", 0, "task_struct", 1, "cgroup")),
    "a hierarchy of version 1": ("call bpf_get_current_task_btf\nr1 = r0\nr2 = 1\nkcall bpf_task_get_cgroup1\n" + LET_GO, ""),
    "a task by its number": (
        "r1 = 1\nkcall bpf_task_from_vpid\nif r0 == 0 goto +2\nr1 = r0\nkcall bpf_task_release\nr0 = 0\nexit", ""),
}  # fmt: skip
"""The same on cgroup_mkdir."""


@pytest.mark.parametrize("name", MASKS)
def test_verdicts_of_masks(on_host_types: Ours, name: str) -> None:
    text, expected = MASKS[name]

    assert on_host_types.load(text, "sched_switch")[1] == expected


@pytest.mark.parametrize("name", MASKS)
def test_verdicts_of_masks_of_the_running_kernel(linux: Linux, name: str) -> None:
    text, expected = MASKS[name]

    assert linux.load(text, "sched_switch")[1] == expected


@pytest.mark.parametrize("name", GROUPS)
def test_verdicts_of_cgroups(ours: Ours, name: str) -> None:
    text, expected = GROUPS[name]

    assert ours.load(text, "cgroup_mkdir")[1] == expected


@pytest.mark.parametrize("name", GROUPS)
def test_verdicts_of_cgroups_of_the_running_kernel(linux: Linux, name: str) -> None:
    text, expected = GROUPS[name]

    assert linux.load(text, "cgroup_mkdir")[1] == expected


def test_levels_of_cgroups(ours: Ours) -> None:
    """A cgroup is its own ancestor on its level, there is none below; tasks are under the root alone. The report says so."""
    text = GROUP + "r6 = r1\nr7 = VALUE+0\n"
    for place, level in enumerate((-1, 0, 3, 4)):
        text += f"r1 = r6\nr2 = {level}\nkcall bpf_cgroup_ancestor\nif r0 == 0 goto +4\nr1 = 1\n*(u8 *)(r7 +{place}) = r1\n"
        text += "r1 = r0\nkcall bpf_cgroup_release\n"
    text += "call bpf_get_current_task_btf\nr1 = r0\nr2 = r6\nkcall bpf_task_under_cgroup\n*(u8 *)(r7 +4) = r0\nr0 = 0\nexit"
    fd, message = ours.load(text, "cgroup_mkdir")
    assert message == ""
    kernel, found = ours.kernel, []
    link = kernel.raw_tracepoint_open(None, fd)
    for level in (0, 3):
        ours.fill(bytes(64))
        kernel.objects.set("cgroup", level, "level", level)
        kernel.trace("cgroup_mkdir")(kernel.objects.object("cgroup", level), 0)
        found.append(list(kernel.map_lookup_elem(ours.value, bytes(4))[:5]))
    kernel.close(link)

    assert found == [[0, 1, 0, 0, 1], [0, 0, 1, 0, 0]]


def test_masks_of_cpus(on_host_types: Ours) -> None:
    """What each function says of two masks, of CPU 0 and of CPUs 0 and 1, in a machine of two."""
    kernel = on_host_types.kernel
    asked = ("weight", "first", "first_zero", "empty", "full")
    asked_of_two = ("equal", "subset", "intersects", "first_and")
    text = (
        MAKE
        + "kcall bpf_cpumask_create\nif r0 != 0 goto +4\nr1 = r6\nkcall bpf_cpumask_release\nr0 = 0\nexit\nr7 = r0\n"
        + "r8 = VALUE+0\n"
    )
    for cpu, mask in ((0, 6), (5, 6), (0, 7), (1, 7)):
        text += f"r1 = {cpu}\nr2 = r{mask}\nkcall bpf_cpumask_set_cpu\n"
    at = 0
    for name in asked:
        for mask in (6, 7):
            text += f"r1 = r{mask}\nkcall bpf_cpumask_{name}\n*(u8 *)(r8 +{at}) = r0\n"
            at += 1
    for name in asked_of_two:
        text += f"r1 = r6\nr2 = r7\nkcall bpf_cpumask_{name}\n*(u8 *)(r8 +{at}) = r0\n"
        at += 1
    for name in ("and", "or", "xor"):
        text += (
            f"r1 = r6\nr2 = r6\nr3 = r7\nkcall bpf_cpumask_{name}\nr1 = r6\nkcall bpf_cpumask_weight\n*(u8 *)(r8 +{at}) = r0\n"
        )
        at += 1
    for name, cpu in (("test_and_set_cpu", 1), ("test_and_set_cpu", 1), ("test_and_clear_cpu", 1), ("test_cpu", 1)):
        text += f"r1 = {cpu}\nr2 = r6\nkcall bpf_cpumask_{name}\n*(u8 *)(r8 +{at}) = r0\n"
        at += 1
    text += "r1 = r6\nr2 = r7\nkcall bpf_cpumask_copy\nr1 = r7\nkcall bpf_cpumask_clear\nr1 = r7\nkcall bpf_cpumask_setall\n"
    text += f"r1 = r6\nr2 = r7\nkcall bpf_cpumask_equal\n*(u8 *)(r8 +{at}) = r0\nr1 = r7\nkcall bpf_cpumask_release\n" + GIVE_BACK
    fd, message = on_host_types.load(text, "task_rename")
    assert message == ""
    before = int(kernel.memory.heap["live"][0])
    link = kernel.raw_tracepoint_open(None, fd)
    kernel.trace("task_rename")(0, 0)
    kernel.close(link)

    found = list(kernel.map_lookup_elem(on_host_types.value, bytes(4))[: at + 1])
    bits = (
        2
        if kernel.btf.sizeof(kernel.btf.find("cpumask", BtfKind.STRUCT)) > 32
        else 8 * kernel.btf.sizeof(kernel.btf.find("cpumask", BtfKind.STRUCT))
    )
    whole = int(bits == 2)
    assert found[:10] == [1, 2, 0, 0, 1, 2, 0, 0, 0, whole]
    assert found[10:14] == [0, 1, 1, 0]
    assert found[14:17] == [1, 2, 0]
    assert found[17:21] == [0, 1, 1, 0]
    assert found[21] == whole
    assert int(kernel.memory.heap["live"][0]) == before


def test_every_function_has_a_body_or_a_reason() -> None:
    with rtp.Kernel(cpus=1) as kernel:
        bodies = set(kernel.memory.lib.parameters)

    assert BODIES - bodies == set()
    assert all(proto.why for name, proto in EVERY.items() if name not in KFUNCS)


def test_the_running_kernel_has_the_same_functions() -> None:
    """Of the functions that the table has, those with this prototype."""
    if not host_object.usable():
        pytest.skip("compared with Linux 6.18 on x86-64 only")
    btf = host_btf()
    tagged = {btf.type(record.type).name for record in btf if record.kind == BtfKind.DECL_TAG and record.name == "bpf_kfunc"}
    counts = {name: len(btf.type(btf.type(btf.find(name, BtfKind.FUNC)).type).params) for name in tagged & EVERY.keys()}

    assert {name: EVERY[name].args for name in counts} == counts
    assert len(counts) > 100
