"""bpf_probe_read and its forms: a range check and a copy, or an error. Kernel: kernel/trace/bpf_trace.c, mm/maccess.c.

Readable are the arena (kernel objects, maps) and the running program's own stack and context. Elsewhere an address that
Linux would not take for the kernel's (the lower half, or not canonical) is -ERANGE, and one of the upper half -EFAULT. A
failed read zeroes its destination.
"""

from __future__ import annotations

from errno import EFAULT, ERANGE

from fastrtp.native.intrinsics import (
    device,
    load8,
    memcpy,
    memset,
    native,
    outline,
    stack_bytes,
    store8,
    ule,
    ult,
)
from fastrtp.native.records import Env

_TASK_SIZE_MAX_SHIFT = 47


@device
def in_range(address: int, size: int, base: int, length: int) -> bool:
    """Whether [address, address + size) lies in [base, base + length), without wrapping."""
    offset = address - base
    return ult(offset, length) and ule(size, length - offset)


@device
def nofault_error(address: int) -> int:
    """Error of a kernel read at an address that is not there. Kernel: arch/x86/mm/maccess.c:copy_from_kernel_nofault_allowed."""
    return -EFAULT if address >> _TASK_SIZE_MAX_SHIFT == -1 else -ERANGE


@device
def fault(dst: int, size: int, error: int, env: Env) -> int:
    """Zero the destination, count, and give the error."""
    memset(dst, 0, size)
    env.faulted = env.faulted + 1
    return error


@device
def stack_room(here: int, env: Env) -> int:
    """Bytes from `here`, in the running helper's frame, to the end of what the program may name; 0 without a program."""
    room = int(env.run_ctx) - here
    return room if room > 0 else 0


@native()
def probe_read_slow(dst: int, size: int, src: int, env: Env) -> int:
    """A read that is not from the arena: the program's own stack (everything between here and stack_top), or a fault."""
    here = stack_bytes(16)
    if in_range(src, size, here, stack_room(here, env)):
        memcpy(dst, src, size)
        return 0
    return fault(dst, size, nofault_error(src), env)


_probe_read_slow = outline("probe_read_slow", 4)


@native()
def kernel_area(src: int, size: int, zeros: int, null: int, env: Env) -> int:
    """Memory of a kernel object for a helper that reads `size` bytes of it: `src`, or `zeros` where not all of it is there.

    `null`: what goes in place of 0. A program cannot make such an address: what is not there is what the recording does not
    have, and is counted as a load of it would be.
    """
    if size == 0 or in_range(src, size, env.arena_base, env.arena_size):
        return src
    here = stack_bytes(16)
    if in_range(src, size, here, stack_room(here, env)):
        return src
    if src == 0 and null == 0:
        return 0
    env.faulted = env.faulted + 1
    return zeros if src != 0 else null


@native(inline=True)
def bpf_probe_read_kernel(dst: int, size: int, src: int, env: Env) -> int:
    """Copy `size` bytes of kernel memory. 0, -ERANGE or -EFAULT."""
    if in_range(src, size, env.arena_base, env.arena_size):
        memcpy(dst, src, size)
        return 0
    return _probe_read_slow(dst, size, src, int(env))


@native(inline=True)
def bpf_probe_read(dst: int, size: int, src: int, env: Env) -> int:
    """The form that does not say which memory it means: the lower half is the user's. 0 or -EFAULT."""
    return -EFAULT if bpf_probe_read_kernel(dst, size, src, env) != 0 else 0


@native()
def bpf_probe_read_user(dst: int, size: int, src: int, env: Env) -> int:
    """Copy `size` bytes of user memory, which a recording seldom has. 0 or -EFAULT."""
    if in_range(src, size, env.user_base, env.user_size):
        memcpy(dst, src, size)
        return 0
    return fault(dst, size, -EFAULT, env)


@device
def _copy_string(dst: int, size: int, src: int, room: int) -> int:
    """strncpy_from_kernel_nofault: the length with its NUL, or -EFAULT when `room` readable bytes hold none."""
    at = 0
    while at < size:
        if at >= room:
            return -EFAULT
        char = load8(src + at)
        store8(dst + at, char)
        at += 1
        if char == 0:
            return at
    if size > 0:
        store8(dst + size - 1, 0)
    return size


@native()
def bpf_probe_read_kernel_str(dst: int, size: int, src: int, env: Env) -> int:
    """Copy a string; its length with the NUL (cut at `size`), -ERANGE or -EFAULT."""
    base, length = env.arena_base, env.arena_size
    if not in_range(src, 1, base, length):
        base = stack_bytes(16)
        length = stack_room(base, env)
        if not in_range(src, 1, base, length):
            return fault(dst, size, nofault_error(src), env)
    count = _copy_string(dst, size, src, base + length - src)
    return count if count >= 0 else fault(dst, size, -EFAULT, env)


@native()
def bpf_probe_read_str(dst: int, size: int, src: int, env: Env) -> int:
    """The form that does not say which memory it means. The length, or -EFAULT."""
    count = bpf_probe_read_kernel_str(dst, size, src, env)
    return count if count >= 0 else -EFAULT


@native()
def bpf_probe_read_user_str(dst: int, size: int, src: int, env: Env) -> int:
    """Copy a user string; its length with the NUL, or -EFAULT."""
    base, length = env.user_base, env.user_size
    if not in_range(src, 1, base, length):
        return fault(dst, size, -EFAULT, env)
    count = _copy_string(dst, size, src, base + length - src)
    return count if count >= 0 else fault(dst, size, -EFAULT, env)
