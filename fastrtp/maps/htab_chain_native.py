"""Chains of hash maps: buckets, the links that lead to elements, and how a key is found (hashtab_native.py has the design).

Kernel: kernel/bpf/hashtab.c:lookup_elem_raw, lookup_nulls_elem_raw, htab_lock_bucket.
"""

from __future__ import annotations

from fastrtp.maps.bytes_native import bytes_equal, bytes_hash
from fastrtp.maps.htab_elem_native import IN_USE, htab_element, htab_key_at, htab_take_out
from fastrtp.maps.records import HtabBucket, HtabElem, MapRecord
from fastrtp.native.intrinsics import cmpxchg32, device, load32, load_acquire32, opaque, smp, store32, store_release32
from fastrtp.native.smp_native import load32_shared, store32_shared, wait_turn

_BUCKET_SIZE = HtabBucket.layout.size
_SEQ = HtabBucket.layout.at("seq")
_STATE = HtabElem.layout.at("state")
_U32 = 0xFFFFFFFF
_LINK_SIZE = 4


@device
def htab_bucket(map: MapRecord, hash: int, mask: int) -> int:
    """Address of the bucket of a hash."""
    return map.slots + (hash & mask) * _BUCKET_SIZE


@device
def htab_tag(hash: int, mask: int) -> int:
    """What a link to a key has beside the element's number."""
    return hash & _U32 & ~mask


@device
def htab_link_of(map: MapRecord, number: int) -> int:
    """Address of the link from an element to the next of its chain."""
    return map.links + number * _LINK_SIZE


@device
def htab_find_link(map: MapRecord, hash: int, key: int, key_size: int, elem_size: int, mask: int) -> int:
    """Address of the link to the key's element, 0 when it is not in the chain."""
    link = htab_bucket(map, hash, mask)
    while True:
        word = load32_shared(link)
        if word == 0:
            return 0
        if (word ^ hash) & _U32 & ~mask == 0:
            element = htab_element(map, word & mask, elem_size)
            if bytes_equal(element + htab_key_at(key_size), key, key_size):
                return link
        link = htab_link_of(map, word & mask)


@device
def _walk(map: MapRecord, hash: int, key: int, key_size: int, elem_size: int, mask: int) -> int:
    """Number of the key's element in the chain, or 0."""
    word = load32_shared(htab_bucket(map, hash, mask))
    while word != 0:
        other = (word ^ hash) & _U32 & ~mask
        number = word & mask
        if smp() != 0:  # the address depends on the tag: a processor that guesses the branch would fetch another CPU's line
            number &= opaque((other - 1) >> 63)
        if other == 0:
            element = htab_element(map, number, elem_size)
            if bytes_equal(element + htab_key_at(key_size), key, key_size):
                return number
        word = load32_shared(htab_link_of(map, word & mask))
    return 0


@device
def htab_find(map: MapRecord, key: int, key_size: int, elem_size: int, mask: int) -> int:
    """Number of the key's element, or 0."""
    hash = bytes_hash(key, key_size)
    if smp() == 0:
        return _walk(map, hash, key, key_size, elem_size, mask)
    bucket = HtabBucket(htab_bucket(map, hash, mask))
    spins = 0
    while True:
        seq = load_acquire32(int(bucket) + _SEQ)
        number = _walk(map, hash, key, key_size, elem_size, mask)
        if number != 0:
            return number
        if seq & 1 == 0 and load_acquire32(int(bucket) + _SEQ) == seq:
            return 0
        wait_turn(spins)
        spins += 1


@device
def htab_lock_bucket(bucket: HtabBucket) -> None:
    """Hold a bucket: its sequence number is odd until it is given back."""
    if smp() == 0:
        return
    spins = 0
    while True:
        seq = load_acquire32(int(bucket) + _SEQ)
        if seq & 1 == 0 and cmpxchg32(int(bucket) + _SEQ, seq, seq + 1) == seq:
            return
        wait_turn(spins)
        spins += 1


@device
def htab_unlock_bucket(bucket: HtabBucket) -> None:
    """Give it back; whoever looked meanwhile sees that it has changed."""
    if smp() != 0:
        store_release32(int(bucket) + _SEQ, bucket.seq + 1)


# changes of a bucket that is held


@device
def htab_insert(map: MapRecord, bucket: int, hash: int, number: int, elem_size: int, mask: int) -> None:
    """Put an element that has its key and value at the front of a chain."""
    store32(htab_link_of(map, number), load32(bucket))
    store32_shared(htab_element(map, number, elem_size) + _STATE, IN_USE)
    store32_shared(bucket, number | htab_tag(hash, mask))


@device
def htab_replace(map: MapRecord, link: int, number: int, elem_size: int, mask: int, used: int) -> None:
    """Put an element in the place of the one that `link` leads to, which has the same key; `used`: REFERENCED or 0."""
    word = load32(link)
    store32(htab_link_of(map, number), load32(htab_link_of(map, word & mask)))
    store32_shared(htab_element(map, number, elem_size) + _STATE, IN_USE | used)
    store32_shared(link, number | (word & ~mask))


@device
def htab_remove(map: MapRecord, link: int, elem_size: int, mask: int) -> int:
    """Take the element that `link` leads to out of its chain; its number."""
    number = load32(link) & mask
    store32_shared(link, load32(htab_link_of(map, number)))
    htab_take_out(HtabElem(htab_element(map, number, elem_size)))
    return number


# walks


@device
def htab_first_from(map: MapRecord, slot: int, mask: int) -> int:
    """Number of the first element in this bucket or a later one, or 0."""
    while slot <= mask:
        number = load32_shared(htab_bucket(map, slot, mask)) & mask
        if number != 0:
            return number
        slot += 1
    return 0


@device
def htab_following(map: MapRecord, number: int, key: int, key_size: int, mask: int) -> int:
    """Number of the element behind one that has this key, or 0."""
    following = load32_shared(htab_link_of(map, number)) & mask
    if following != 0:
        return following
    return htab_first_from(map, (bytes_hash(key, key_size) & mask) + 1, mask)
