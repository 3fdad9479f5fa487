"""The records of maps, as Python, native code and the code of programs share them."""

from __future__ import annotations

from fastrtp.native.record import Array, Pointer, Record, array, i64, u8, u16, u32
from fastrtp.native.records import Backlog, Machine

IN_PLACE, REPLACE, REPLACE_FREE = range(3)
"""How a key that is there gets a value: where the old one is; in the CPU's extra element; in any free one (no preallocation)."""

ACTIVE, INACTIVE, FREE, LOCAL_FREE, LOCAL_PENDING = range(5)
"""Lists that an LRU map's element is in one of. Kernel: kernel/bpf/bpf_lru_list.h:enum bpf_lru_list_type"""
LOCAL_FREE_TARGET, PERCPU_FREE_TARGET = 128, 4
"""How many elements a CPU fetches at most, and how many a list of its own frees at a time. Kernel: bpf_lru_list.c"""


class RingConsumer(Record):
    """A reader of all rings of a machine who looks at set times: when next, and how long until then again; in events or in ns."""

    machine: Pointer[Machine]
    due: i64
    step: i64


class MapRecord(Record):
    """`struct bpf_map` with the union of what the families need, in cache lines: what is only read comes first."""

    map_type: i64
    key_size: i64
    value_size: i64
    max_entries: i64
    map_flags: i64
    cpus: i64
    elem_size: i64  # bytes of one element: header, key and value(s)
    value_at: i64  # hash: offset of the (first CPU's) value in an element
    value_stride: i64  # per-CPU: bytes from one CPU's block of values to the next
    values: i64  # array: value 0; hash: element 1; ringbuf: data
    slots: i64  # hash: HtabBuckets; perf ring: times of records (which are in `values`); storage: chains; trie: the root
    slot_mask: i64
    links: i64  # hash: by element, the link to the next of its chain
    percpu: i64  # per-CPU hash: value 0 of CPU 0
    percpu_size: i64  # per-CPU hash: bytes of one CPU's value, 0 where values stand in the elements
    pools: Pointer[Array[HtabPool]]  # hash: HtabPool[cpus]
    id: i64
    fields: i64  # special fields of a value: {u64 count; u64 row[count]}, 0 for none (maps/fields_native.py)
    machine: Pointer[Machine]
    uref: i64  # user space holds the map: timers may be made
    lru: i64  # LRU: LruList, with BPF_F_NO_COMMON_LRU LruList[cpus]
    lru_locals: Pointer[Array[LruLocal]]  # LRU: LruLocal[cpus], 0 with BPF_F_NO_COMMON_LRU
    lru_nodes: Pointer[Array[LruNode]]  # LRU: LruNode by element, and behind them the heads of lists
    lru_target: i64  # LRU: how many elements a CPU fetches at a time
    backlog: Pointer[Backlog]  # rings: what was taken out of them
    next_ring: Pointer[MapRecord]
    pad: Array[i64] = array(6)
    fresh: i64  # hash, stacks: elements never used so far (they are handed out in order); queue: the head
    count: i64  # stacks, storage, trie: elements in use; queue: the tail
    free: i64  # stacks: first of the freed elements
    lock: i64  # held while unused elements of a hash are handed out, a stack is put in, a ring is drained
    dropped: i64  # ringbuf and perf ring: records that found no room
    limit: i64  # hash: how many elements may be handed out: max_entries, and one for each CPU that replaced a value
    gap: Array[i64] = array(2)
    producer: i64  # ringbuf: positions in bytes, growing for ever
    rest: Array[i64] = array(7)
    consumer: i64
    tight: i64  # ringbuf: little room is left, so producers look before they take
    room: Array[i64] = array(6)


class HtabBucket(Record):
    """A chain of elements: a link to the first, 0 for none; and a sequence number that is odd while the chain is being changed.

    A link is the element's number, from 1, in the bits of slot_mask, and above them those bits of its key's hash.
    """

    first: u32
    seq: u32


class HtabElem(Record):
    """What an element begins with: IN_USE | REFERENCED, or of a free element the number of the next free one. A key of up to four
    bytes stands behind it, a longer one at the next multiple of eight; then, 8-aligned, the value.
    """

    state: u32


class HtabPool(Record):
    """A CPU's share of a hash map, a cache line: its first free element (0: none) with a tag that every change renews, how many
    elements it has put in less those it took out, and the element that its next replacement goes to (0: none yet). While one
    thread at a time runs, all CPUs use CPU 0's.
    """

    free: u32
    tag: u32
    count: i64
    extra: i64
    pad: Array[i64] = array(5)


class LruNode(Record):
    """`struct bpf_lru_node`: an element's place in a list, by numbers of nodes, and its key's hash (maps/lru_list_native.py)."""

    prev: u32
    next: u32
    hash: u32
    cpu: u16
    type: u8
    pad: u8


class LruList(Record):
    """`struct bpf_lru_list`, a cache line."""

    heads: i64  # number of the node that heads the active list; those of the inactive and the free one follow
    counts: Array[i64] = array(2)
    next_inactive_rotation: i64
    unused: i64  # elements never used that are still its own
    lock: i64
    pad: Array[i64] = array(2)


class LruLocal(Record):
    """`struct bpf_lru_locallist` of a CPU: heads of its free and its pending list, and whom it takes from next."""

    heads: i64
    next_steal: i64
    lock: i64
    pad: Array[i64] = array(5)


class LocalStorageElem(Record):
    """`struct bpf_local_storage_elem`: the next of its chain, the address of the object that it belongs to (0: that is gone), and
    the pid where it is a task's. The value stands behind it.
    """

    next: i64
    owner: i64
    pid: i64


class LpmNode(Record):
    """`struct lpm_trie_node`: the key's bytes stand behind it, then, 8-aligned, the value."""

    child: Array[i64] = array(2)
    prefixlen: u32
    flags: u32
