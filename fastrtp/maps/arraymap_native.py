"""BPF_MAP_TYPE_ARRAY and PERCPU_ARRAY. Kernel: kernel/bpf/arraymap.c."""

from __future__ import annotations

from errno import E2BIG, EEXIST, EINVAL

from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import load32, native, nonnull
from fastrtp.native.records import Env
from fastrtp.native.smp_native import copy_value
from fastrtp.uapi import BPF_EXIST, BPF_NOEXIST


@native(inline=True)
def array_map_lookup_elem(map: MapRecord, key: int, env: Env, max_entries: int, elem_size: int) -> int:
    """Address of value [index], or 0."""
    index = load32(key)
    return nonnull(map.values + index * elem_size) if index < max_entries else 0


@native(inline=True)
def array_map_gen_lookup(values: int, key: int, env: Env, max_entries: int, elem_size: int) -> int:
    """The same of a map that the program names: by the address of its values. Kernel: arraymap.c:array_map_gen_lookup."""
    index = load32(key)
    return nonnull(values + index * elem_size) if index < max_entries else 0


@native(inline=True)
def percpu_array_map_lookup_elem(map: MapRecord, key: int, env: Env, max_entries: int, elem_size: int, stride: int) -> int:
    """Address of this CPU's value [index], or 0."""
    index = load32(key)
    if index >= max_entries:
        return 0
    return nonnull(map.values + env.cpu * stride + index * elem_size)


@native(inline=True)
def percpu_array_map_gen_lookup(values: int, key: int, env: Env, max_entries: int, elem_size: int, stride: int) -> int:
    """The same, by the address of the values. Kernel: arraymap.c:percpu_array_map_gen_lookup."""
    index = load32(key)
    if index >= max_entries:
        return 0
    return nonnull(values + env.cpu * stride + index * elem_size)


@native(inline=True)
def array_map_update_elem(
    map: MapRecord, key: int, value: int, flags: int, env: Env, max_entries: int, elem_size: int, value_size: int, stride: int
) -> int:
    """Update from a program, of a map without locks in its values: this CPU's value where stride is not 0.

    0, -EINVAL, -E2BIG or -EEXIST.
    """
    if flags < 0 or flags > BPF_EXIST:
        return -EINVAL
    index = load32(key)
    if index >= max_entries:
        return -E2BIG
    if flags == BPF_NOEXIST:
        return -EEXIST
    copy_value(map.values + env.cpu * stride + index * elem_size, value, value_size)
    return 0
