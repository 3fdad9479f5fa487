"""Free elements of hash maps: a list for each CPU, those never used, and the clock that frees an LRU map's (hashtab_native.py).

Kernel: kernel/bpf/percpu_freelist.c, kernel/bpf/bpf_lru_list.c.
"""

from __future__ import annotations

from fastrtp.maps.bytes_native import bytes_hash
from fastrtp.maps.fields_native import free_fields
from fastrtp.maps.htab_chain_native import htab_bucket, htab_link_of, htab_lock_bucket, htab_unlock_bucket
from fastrtp.maps.htab_elem_native import IN_USE, REFERENCED, htab_element, htab_key_at, htab_take_out, htab_value
from fastrtp.native.intrinsics import (
    cmpxchg32,
    cmpxchg64,
    device,
    load32,
    load64,
    load_acquire,
    load_acquire32,
    lshr,
    native,
    smp,
    store32,
    store64,
)
from fastrtp.native.layout import ENV, HTAB_ELEM, HTAB_POOL, MAP, at
from fastrtp.native.smp_native import spin_lock, spin_unlock, store32_shared, wait_turn

_TYPE = at(MAP, "map_type")
_MASK = at(MAP, "slot_mask")
_ELEM_SIZE = at(MAP, "elem_size")
_MAX_ENTRIES = at(MAP, "max_entries")
_KEY_SIZE = at(MAP, "key_size")
_POOLS = at(MAP, "pools")
_FRESH = at(MAP, "fresh")
_LOCK = at(MAP, "lock")
_CPUS = at(MAP, "cpus")
_MAP_MACHINE = at(MAP, "machine")
_CPU = at(ENV, "cpu")
_STATE = at(HTAB_ELEM, "state")
_POOL_SIZE = HTAB_POOL.itemsize
_POOL_COUNT = at(HTAB_POOL, "count")
_POOL_HAND = at(HTAB_POOL, "hand")
_U32 = 0xFFFFFFFF
_REGION = 8192
_PATIENCE = 1000
_LRU_HASH, _LRU_PERCPU_HASH = 9, 10


@device
def htab_pool(map: int, own: int) -> int:
    """Address of a CPU's HTAB_POOL."""
    return load64(map + _POOLS) + own * _POOL_SIZE


@device
def htab_own(env: int) -> int:
    """Whose pool a CPU uses: its own while others run, else CPU 0's, so that elements go round in a small area."""
    return 0 if smp() == 0 else load64(env + _CPU)


@device
def htab_push(map: int, pool: int, number: int, elem_size: int) -> None:
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
def _pop(map: int, pool: int, elem_size: int) -> int:
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
def htab_count(map: int, own: int, more: int) -> None:
    """A CPU put so many elements in."""
    address = htab_pool(map, own) + _POOL_COUNT
    store64(address, load64(address) + more)


@device
def htab_alloc(map: int, elem_size: int, max_entries: int, own: int) -> int:
    """A free element, where that is a matter of a few instructions; or 0."""
    number = _pop(map, htab_pool(map, own), elem_size)
    if number == 0 and smp() == 0:
        fresh = load64(map + _FRESH)
        if fresh < max_entries:
            store64(map + _FRESH, fresh + 1)
            return fresh + 1
    return number


@device
def _take_fresh(map: int, own: int) -> int:
    """The first of a batch of elements that were never used; the others become the pool's.

    With several CPUs a batch is two pages: a processor fetches lines around those that it is asked for, and would take them
    from the CPU that counts in them.
    """
    number = 0
    spin_lock(map + _LOCK)  # whoever finds none left finds those of the batch in its owner's pool
    fresh = load64(map + _FRESH)
    batch = load64(map + _MAX_ENTRIES) - fresh
    if batch > 0:
        number = fresh + 1
        if smp() == 0:
            batch = 1
        else:
            share = max(_REGION // load64(map + _ELEM_SIZE), 1)
            batch = min(batch, share - fresh % share)
        store64(map + _FRESH, fresh + batch)
        while batch > 1:
            htab_push(map, htab_pool(map, own), fresh + batch, load64(map + _ELEM_SIZE))
            batch -= 1
    spin_unlock(map + _LOCK)
    return number


@device
def _evict(map: int, own: int) -> int:
    """Take the first element out that was not used since the hand last passed. 0: none could be had."""
    elem_size = load64(map + _ELEM_SIZE)
    key_size = load64(map + _KEY_SIZE)
    mask = load64(map + _MASK)
    entries = load64(map + _MAX_ENTRIES)
    pool = htab_pool(map, own)
    hand = load64(pool + _POOL_HAND)
    steps = 0
    while steps <= 2 * entries:
        steps += 1
        hand += 1
        if hand > entries:
            hand = 1
        element = htab_element(map, hand, elem_size)
        state = load32(element + _STATE)
        if state == IN_USE | REFERENCED:
            cmpxchg32(element + _STATE, state, IN_USE)
        elif state == IN_USE:
            # the key may change while it is read: whether the element is in the chain decides
            bucket = htab_bucket(map, bytes_hash(element + htab_key_at(key_size), key_size), mask)
            htab_lock_bucket(bucket)
            link = bucket
            number = load32(link) & mask
            while number != 0 and number != hand:
                link = htab_link_of(map, number)
                number = load32(link) & mask
            if number != 0:
                store32_shared(link, load32(htab_link_of(map, hand)))
                htab_take_out(element)
                htab_unlock_bucket(bucket)
                store64(pool + _POOL_HAND, hand)
                htab_count(map, own, -1)
                free_fields(load64(map + _MAP_MACHINE), map, htab_value(map, hand), 0)
                return hand
            htab_unlock_bucket(bucket)
    store64(pool + _POOL_HAND, hand)
    return 0


@native()
def htab_alloc_slow(map: int, own: int, env: int) -> int:
    """An element to fill: never used, freed by another CPU, or evicted. 0 when the map is full. No bucket may be held."""
    kind = load64(map + _TYPE)
    lru = kind == _LRU_HASH or kind == _LRU_PERCPU_HASH
    elem_size = load64(map + _ELEM_SIZE)
    spins = 0
    while True:
        number = _take_fresh(map, own)
        cpu = 0
        while number == 0 and cpu < load64(map + _CPUS):
            number = _pop(map, htab_pool(map, cpu), elem_size)
            cpu += 1
        if number == 0 and lru:
            number = _evict(map, own)
        if number != 0 or not lru or spins > _PATIENCE:
            return number
        wait_turn(spins)
        spins += 1
