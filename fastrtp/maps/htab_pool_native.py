"""Free elements of hash maps that are not LRU: a list for each CPU, and those never used (hashtab_native.py).

Kernel: kernel/bpf/percpu_freelist.c.
"""

from __future__ import annotations

from fastrtp.maps.htab_elem_native import htab_element
from fastrtp.maps.records import HtabElem, HtabPool, MapRecord
from fastrtp.native.intrinsics import (
    cmpxchg64,
    device,
    load32,
    load64,
    load_acquire,
    load_acquire32,
    lshr,
    native,
    outline,
    smp,
    store32,
    store64,
)
from fastrtp.native.records import Env
from fastrtp.native.smp_native import spin_lock, spin_unlock

_LOCK = MapRecord.layout.at("lock")
_STATE = HtabElem.layout.at("state")
_POOL_COUNT = HtabPool.layout.at("count")
_U32 = 0xFFFFFFFF
_REGION = 8192

_alloc_slow = outline("htab_alloc_slow", 3)


@device
def htab_pool(map: MapRecord, own: int) -> HtabPool:
    """Address of a CPU's HtabPool."""
    return map.pools[own]


@device
def htab_own(env: Env) -> int:
    """Whose pool a CPU uses: its own while others run, else CPU 0's, so that elements go round in a small area."""
    return 0 if smp() == 0 else env.cpu


@device
def htab_push(map: MapRecord, pool: int, number: int, elem_size: int) -> None:
    """Make an element free that nothing links to."""
    state = htab_element(map, number, elem_size) + _STATE
    if smp() == 0:
        store32(state, load32(pool))
        store32(pool, number)
        return
    while True:
        head = load_acquire(pool)
        store32(state, head & _U32)
        if cmpxchg64(pool, head, ((lshr(head, 32) + 1) << 32) | number) == head:
            return


@device
def _pop(map: MapRecord, pool: int, elem_size: int) -> int:
    """A free element of a pool, or 0. The tag tells whether the list is still the one that was read."""
    if smp() == 0:
        number = load32(pool)
        if number != 0:
            store32(pool, load32(htab_element(map, number, elem_size) + _STATE))
        return number
    while True:
        head = load_acquire(pool)
        number = head & _U32
        if number == 0:
            return 0
        following = load_acquire32(htab_element(map, number, elem_size) + _STATE)
        if cmpxchg64(pool, head, ((lshr(head, 32) + 1) << 32) | following) == head:
            return number


@device
def htab_count(map: MapRecord, own: int, more: int) -> None:
    """A CPU put so many elements in."""
    address = int(htab_pool(map, own)) + _POOL_COUNT
    store64(address, load64(address) + more)


@device
def htab_alloc(map: MapRecord, elem_size: int, own: int) -> int:
    """A free element, where that is a matter of a few instructions; or 0."""
    number = _pop(map, int(htab_pool(map, own)), elem_size)
    if number == 0 and smp() == 0:
        fresh = map.fresh
        if fresh < map.limit:
            map.fresh = fresh + 1
            return fresh + 1
    return number


@device
def _take_fresh(map: MapRecord, own: int) -> int:
    """The first of a batch of elements that were never used; the others become the pool's.

    With several CPUs a batch is two pages: a processor fetches lines around those that it is asked for, and would take them
    from the CPU that counts in them.
    """
    number = 0
    spin_lock(int(map) + _LOCK)  # whoever finds none left finds those of the batch in its owner's pool
    fresh = map.fresh
    batch = map.limit - fresh
    if batch > 0:
        number = fresh + 1
        if smp() == 0:
            batch = 1
        else:
            share = max(_REGION // map.elem_size, 1)
            batch = min(batch, share - fresh % share)
        map.fresh = fresh + batch
        while batch > 1:
            htab_push(map, int(htab_pool(map, own)), fresh + batch, map.elem_size)
            batch -= 1
    spin_unlock(int(map) + _LOCK)
    return number


@native()
def htab_alloc_slow(map: MapRecord, own: int, env: Env) -> int:
    """An element to fill: never used, or freed by another CPU. 0 when the map is full."""
    elem_size = map.elem_size
    number = _take_fresh(map, own)
    cpu = 0
    while number == 0 and cpu < map.cpus:
        number = _pop(map, int(htab_pool(map, cpu)), elem_size)
        cpu += 1
    return number


@device
def _take_extra(map: MapRecord, own: int) -> int:
    pool = htab_pool(map, own)
    number = pool.extra
    if number == 0:
        spin_lock(int(map) + _LOCK)
        number = map.fresh + 1
        map.fresh = number
        map.limit = map.limit + 1
        spin_unlock(int(map) + _LOCK)
        pool.extra = number
    return number


@device
def htab_swap_in(map: MapRecord, own: int, elem_size: int, any_free: bool) -> int:
    """An element for the new value of a key that is there. Kernel: kernel/bpf/hashtab.c:alloc_htab_elem with an old_elem.

    The one that the CPU's last replacement set free; `any_free`: one that an insertion would get, where the map is not full.
    """
    number = 0
    if any_free:
        number = htab_alloc(map, elem_size, own)
        if number == 0:
            number = _alloc_slow(int(map), own, 0)
    return number if number != 0 else _take_extra(map, own)


@device
def htab_swap_out(map: MapRecord, own: int, new: int, old: int, elem_size: int) -> None:
    """The element that the key had before goes where the new one came from."""
    pool = htab_pool(map, own)
    if pool.extra == new:
        pool.extra = old
    else:
        htab_push(map, int(pool), old, elem_size)


@native()
def bpf_map_sum_elem_count(map: MapRecord, env: Env) -> int:
    """Elements of a hash map, 0 for a map of another family. Kernel: kernel/bpf/map_iter.c:bpf_map_sum_elem_count"""
    count = 0
    if map.pools:
        for cpu in range(map.cpus):
            count += map.pools[cpu].count
    return count
