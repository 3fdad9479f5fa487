"""What BPF_BTF_LOAD asks of a BTF beyond its layout: every name, every reference and every size makes sense.

Almost every BTF is fine, which a few array operations over all records can tell; where they cannot, the types are followed
one by one, which finds the first bad one and says what is wrong with it.

Kernel: kernel/bpf/btf.c:btf_check_all_metas, btf_check_all_types
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .resolve import resolve
from .types import BTF_FUNC_EXTERN, BTF_VAR_GLOBAL_EXTERN, COMPOSITES, MAX_RESOLVE_DEPTH, MODIFIERS, SIZED, BtfKind

if TYPE_CHECKING:
    import numpy.typing as npt

    from .parse import Btf

_WITH_TYPE = (*MODIFIERS, BtfKind.TYPEDEF, BtfKind.PTR, BtfKind.FUNC, BtfKind.FUNC_PROTO, BtfKind.VAR, BtfKind.DECL_TAG)
_ELEMENTS = (
    (tuple(COMPOSITES), 3, 0, 1), ((BtfKind.FUNC_PROTO,), 2, 0, 1), ((BtfKind.ENUM,), 2, 0, None),
    ((BtfKind.ENUM64,), 3, 0, None), ((BtfKind.DATASEC,), 3, None, 0),
)  # fmt: skip
"""(kinds, words of an element, where its name is, where its type is)."""
_SIZED = tuple(SIZED - {BtfKind.DATASEC})
_NAMED = (BtfKind.TYPEDEF, BtfKind.FWD, BtfKind.FUNC, BtfKind.VAR, BtfKind.DATASEC, BtfKind.FLOAT)
_TAGGED = (*COMPOSITES, BtfKind.FUNC, BtfKind.VAR, BtfKind.TYPEDEF)
_MAX_SIZE = 1 << 31


def check(btf: Btf) -> None:
    """Raise `BtfError` for the first bad type of a blob."""
    if btf.base is not None or not _is_fine(btf):
        resolve(btf)


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
    for of, step, name, type_at in _ELEMENTS:
        chosen = np.isin(kinds, of)
        elements = _elements(at[chosen] + 3, lengths[chosen], step)
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
    kind_of = np.concatenate([np.zeros(1, kinds.dtype), kinds])
    chosen = np.isin(kinds, tuple(COMPOSITES))
    members = _elements(at[chosen] + 3, lengths[chosen], 3)
    owners = np.repeat(np.flatnonzero(chosen), lengths[chosen])
    ids = np.flatnonzero(kinds == BtfKind.ARRAY) + 1
    walked = np.isin(kind_of, (*MODIFIERS, BtfKind.TYPEDEF))
    alias_ids = np.flatnonzero(walked)
    nested = np.isin(kind_of, (*COMPOSITES, BtfKind.ARRAY)) | walked
    sources = np.concatenate([alias_ids, ids, ids, owners + 1])
    targets = np.concatenate([target[alias_ids], words[arrays + 3], words[arrays + 4], words[members + 1]])
    pointers = np.flatnonzero(kinds == BtfKind.PTR) + 1
    pointed = np.concatenate([target[alias_ids], words[at[pointers - 1] + 2]])
    if not _ends(count, sources, targets, nested):
        return False
    if not _ends(count, np.concatenate([alias_ids, pointers]), pointed, walked | (kind_of == BtfKind.PTR)):
        return False
    # bytes of each type, -1 where it has none; an array of arrays needs a round each
    size = np.full(count, -1, np.int64)
    sized = np.flatnonzero(np.isin(kinds, _SIZED))
    size[sized + 1] = words[at[sized] + 2]
    size[pointers] = 8
    element = end[words[arrays + 3]]
    for _ in range(4):
        size[ids] = np.where(size[element] < 0, -1, size[element] * words[arrays + 5])
    irregular = np.zeros(count, bool)
    ints = np.flatnonzero(kinds == BtfKind.INT)
    irregular[ints + 1] = (words[at[ints] + 3] & np.uint32(0xFF00FF)).astype(np.int64) != 8 * size[ints + 1]
    index = end[words[arrays + 4]]
    if np.any(size[ids] < 0) or np.any(size[ids] >= _MAX_SIZE) or np.any(irregular[element]):
        return False
    if np.any(kind_of[index] != BtfKind.INT) or np.any(irregular[index]):
        return False
    if np.any(words[at[np.isin(kinds, _NAMED)]] == 0):
        return False
    return _members_fit(words, members, owners, info, size, end) and _functions_fit(btf, kind_of, size, end)


def _ends(count: int, sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], followed: npt.NDArray[np.bool_]) -> bool:
    """Whether no walk along the references between `followed` types is longer than the stack that BPF_BTF_LOAD has for it."""
    chosen = followed[targets]
    sources, targets = sources[chosen], targets[chosen]
    level = np.zeros(count, np.int64)
    for _ in range(MAX_RESOLVE_DEPTH):
        before = level.copy()
        np.maximum.at(level, sources, before[targets] + 1)
        if np.array_equal(before, level):
            return True
    return False


def _members_fit(
    words: npt.NDArray[np.uint32], members: npt.NDArray[np.int64], owners: npt.NDArray[np.int64],
    info: npt.NDArray[np.uint32], size: npt.NDArray[np.int64], end: npt.NDArray[np.int64],
) -> bool:  # fmt: skip
    """Every member of a struct has a size, begins at a byte or is a bitfield, and lies in the struct."""
    flagged = (info[owners] >> np.uint32(31)).astype(bool)
    offset = words[members + 2].astype(np.int64)
    bits = np.where(flagged, offset >> 24, 0)
    offset = np.where(flagged, offset & 0xFFFFFF, offset)
    bytes_of = size[end[words[members + 1]]]
    ordered = (owners[1:] != owners[:-1]) | (offset[1:] >= offset[:-1]) | (info[owners[1:]] >> 24 & 31 == BtfKind.UNION)
    if not np.all(ordered):
        return False
    if np.any(bytes_of < 0) or np.any((bits == 0) & (offset % 8 != 0)):
        return False
    return not np.any(offset + np.where(bits > 0, bits, 8 * bytes_of) > 8 * size[owners + 1])


def _functions_fit(btf: Btf, kind_of: npt.NDArray[np.uint32], size: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> bool:
    """Functions have prototypes with names and sizes, sections hold variables that fit in order; no component is tagged."""
    words, offsets = btf.records
    at = offsets.astype(np.int64)
    kinds = kind_of[1:]
    lengths = (words[at + 1] & np.uint32(0xFFFF)).astype(np.int64)
    of = {kind: at[kinds == kind] for kind in (BtfKind.FUNC, BtfKind.FUNC_PROTO, BtfKind.VAR, BtfKind.DECL_TAG)}
    protos = kinds == BtfKind.FUNC_PROTO
    params = _elements(at[protos] + 3, lengths[protos], 2)
    last = np.zeros(len(words) + 2, bool)
    last[(at + 1 + 2 * lengths)[protos & (lengths > 0)]] = True
    plain = (words[params + 1] != 0) | ~last[params]
    returned = end[words[of[BtfKind.FUNC_PROTO] + 2]]
    tagged = kind_of[words[of[BtfKind.DECL_TAG] + 2]]
    filled = (kinds == BtfKind.DATASEC) & (words[at + 2] != 0)
    held = _elements(at[filled] + 3, lengths[filled], 3)
    variables = words[held]
    sections = np.repeat(at[filled], lengths[filled])
    size_of_section = words[sections + 2]
    defined = of[BtfKind.VAR][words[of[BtfKind.VAR] + 3] != BTF_VAR_GLOBAL_EXTERN]
    used = np.zeros(len(kind_of), bool)
    used[words[of[BtfKind.FUNC][words[of[BtfKind.FUNC] + 1] & 0xFFFF != BTF_FUNC_EXTERN] + 2]] = True
    named = _elements(at[protos & used[1:]] + 3, lengths[protos & used[1:]], 2)
    return not (
        np.any((returned != 0) & (size[returned] < 0))
        or np.any(size[end[words[params[plain] + 1]]] < 0)
        or np.any(words[params[~plain]] != 0)
        or np.any(kind_of[words[of[BtfKind.FUNC] + 2]] != BtfKind.FUNC_PROTO)
        or np.any((words[named] == 0) & (words[named + 1] != 0))
        or np.any(size[end[words[defined + 2]]] < 0)
        or np.any(~np.isin(tagged, _TAGGED))
        or np.any(words[of[BtfKind.DECL_TAG] + 3] != 0xFFFFFFFF)
        or np.any(kind_of[variables] != BtfKind.VAR)
        or np.any(words[held + 1] + words[held + 2] > size_of_section)
        or np.any((sections[1:] == sections[:-1]) & (words[held[1:] + 1] < words[held[:-1] + 1] + words[held[:-1] + 2]))
        or np.any(words[held + 2].astype(np.int64) < size[end[words[at[np.maximum(variables, 1) - 1] + 2]]])
    )


def _elements(at: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Word offsets of `counts` elements of `size` words from each of `at` on."""
    total = int(counts.sum())
    before = np.cumsum(counts) - counts
    return np.repeat(at - size * before, counts) + size * np.arange(total)
