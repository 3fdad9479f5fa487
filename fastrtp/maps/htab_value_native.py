"""How an update writes the value of an element, and gives back what the special fields of a replaced one hold.

Kernel: kernel/bpf/hashtab.c:pcpu_copy_value, pcpu_init_value, check_and_free_fields.
"""

from __future__ import annotations

from fastrtp.maps.field_rows_native import check_and_init_map_value, copy_map_value
from fastrtp.maps.fields_native import free_fields, free_fields_of_cpu
from fastrtp.maps.htab_elem_native import htab_value
from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import device, memset, native, outline
from fastrtp.native.records import Env
from fastrtp.native.smp_native import copy_value

_write_fields = outline("htab_write_fields", 6)


@device
def _write(map: int, target: int, value: int, size: int, fields: int, fresh: bool) -> None:
    if fields == 0:
        copy_value(target, value, size)
    else:
        _write_fields(map, target, value, size, 1 if fresh else 0, 0)


@native()
def htab_write_fields(map: MapRecord, target: int, value: int, size: int, fresh: int, env: Env) -> int:
    """Write a value that has special fields. Kernel: copy_map_value, check_and_init_map_value."""
    if fresh != 0:
        check_and_init_map_value(map, target)
    copy_map_value(map, target, value, size)
    return 0


@device
def htab_write_value(
    map: MapRecord,
    number: int,
    element: int,
    value: int,
    value_size: int,
    value_at: int,
    stride: int,
    cpus: int,
    cpu: int,
    fields: int,
    fresh: bool,
) -> None:
    """`cpu` < 0: a plain value, or all CPUs' at `value`; else that CPU's (in a fresh element the others are zeroed).

    `fields`: the values may have special fields, which are left alone (in a fresh element: zeroed).
    """
    if stride == 0:
        _write(int(map), element + value_at, value, value_size, fields, fresh)
        return
    size = (value_size + 7) & ~7
    first = map.percpu - size + number * size
    for other in range(cpus):
        if cpu < 0:
            _write(int(map), first + other * stride, value + other * size, size, fields, fresh)
        elif other == cpu:
            _write(int(map), first + other * stride, value, value_size, fields, fresh)
        elif fresh:
            memset(first + other * stride, 0, size)


@device
def htab_free_fields(map: MapRecord, number: int, cpu: int) -> None:
    """Give back what the special fields of an element's value hold; of a per-CPU one: of that CPU's, or of all (`cpu` < 0)."""
    machine = map.machine
    value = htab_value(map, number)
    if cpu < 0:
        free_fields(int(machine), map, value, 0)
    else:
        free_fields_of_cpu(int(machine), map, value + cpu * map.value_stride)
