"""What BPF_BTF_LOAD asks of a BTF beyond its layout: every name, every reference and every size makes sense.

Almost every BTF is fine, which a few array operations over all records can tell; where they cannot, the types are followed
one by one, which finds the first bad one and says what is wrong with it.

Kernel: kernel/bpf/btf.c:btf_check_all_metas, btf_check_all_types
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastrtp.errors import BtfError

from .types import COMPOSITES, MAX_RESOLVE_DEPTH, MODIFIERS, SIZED, BtfKind

if TYPE_CHECKING:
    import numpy.typing as npt

    from .parse import Btf

_WITH_TYPE = (*MODIFIERS, BtfKind.TYPEDEF, BtfKind.PTR, BtfKind.FUNC, BtfKind.FUNC_PROTO, BtfKind.VAR, BtfKind.DECL_TAG)
_ELEMENTS = (
    (tuple(COMPOSITES), 3, 0, 1), ((BtfKind.FUNC_PROTO,), 2, 0, 1), ((BtfKind.ENUM,), 2, 0, None),
    ((BtfKind.ENUM64,), 3, 0, None), ((BtfKind.DATASEC,), 3, None, 0),
)  # fmt: skip
"""(kinds, words of an element, where its name is, where its type is)."""
_SIZED = tuple(SIZED)
_MAX_SIZE = 1 << 31


def check(btf: Btf) -> None:
    """Raise `BtfError` for the first bad type of a blob."""
    if btf.base is not None or not _is_fine(btf):
        _follow(btf)


def _is_fine(btf: Btf) -> bool:
    """Whether all types are good; False also where this cannot tell."""
    words, offsets = btf.records
    count = len(btf)
    info = words[offsets + np.uint32(1)]
    kinds = info >> np.uint32(24) & np.uint32(31)
    lengths = (info & np.uint32(0xFFFF)).astype(np.int64)
    at = offsets.astype(np.int64)
    target = np.arange(count)
    refs: list[npt.NDArray[np.uint32]] = [words[at[np.isin(kinds, _WITH_TYPE)] + 2]]
    arrays = at[kinds == BtfKind.ARRAY]
    refs += [words[arrays + 3], words[arrays + 4]]
    for of, size, name, type_at in _ELEMENTS:
        chosen = np.isin(kinds, of)
        elements = _elements(at[chosen] + 3, lengths[chosen], size)
        if name is not None and np.any(words[elements + name] >= btf.str_end):
            return False
        if type_at is not None:
            refs.append(words[elements + type_at])
    if any(len(found) and int(found.max()) >= count for found in refs):
        return False
    aliases = np.isin(kinds, (*MODIFIERS, BtfKind.TYPEDEF))
    target[1:][aliases] = words[at[aliases] + 2]
    end = target
    for _ in range(MAX_RESOLVE_DEPTH):
        following = target[end]
        if np.array_equal(following, end):
            break
        end = following
    else:
        return False
    # elements with a size of their own; what is an array of something else is followed
    kind_of = np.concatenate([np.zeros(1, kinds.dtype), kinds])
    element = end[words[arrays + 3]]
    sized = np.isin(kind_of[element], _SIZED)
    size = words[at[np.maximum(element, 1) - 1] + 2].astype(np.int64)
    if np.any(size[sized] * words[arrays + 5][sized] >= _MAX_SIZE):
        return False
    try:
        for type_id in np.flatnonzero(kinds == BtfKind.ARRAY)[~sized]:
            btf.sizeof(btf.start_id + int(type_id))
    except BtfError:
        return False
    return True


def _elements(at: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Word offsets of `counts` elements of `size` words from each of `at` on."""
    total = int(counts.sum())
    before = np.cumsum(counts) - counts
    return np.repeat(at - size * before, counts) + size * np.arange(total)


def _follow(btf: Btf) -> None:
    for type_id in range(btf.start_id, len(btf)):
        record = btf.type(type_id)
        refs = [record.type, *(m.type_id for m in record.members), *(p.type_id for p in record.params)]
        refs += [info.type_id for info in record.secinfos]
        bad = next((ref for ref in refs if ref >= len(btf)), None)
        if bad is not None:
            raise BtfError(f"type [{type_id}] {record.kind.name}: type id {bad} does not exist, the last one is {len(btf) - 1}")
        if record.kind in (BtfKind.ARRAY, BtfKind.VAR) or record.kind in COMPOSITES:
            for ref in refs:
                btf.strip(ref)
        if record.kind == BtfKind.ARRAY:
            btf.sizeof(type_id)
