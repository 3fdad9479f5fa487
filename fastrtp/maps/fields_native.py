"""What special fields hold is given back when the value or object that they are in goes: timers, objects, lists, trees.

Nothing here recurses: what is still to be dropped is linked through the objects' headers. Kernel: bpf_obj_free_fields.
"""

from __future__ import annotations

from fastrtp.maps.field_rows_native import FIELD_TIMER
from fastrtp.maps.htab_elem_native import htab_element, htab_in_use, htab_value
from fastrtp.maps.object_native import object_drop_all, object_drop_fields
from fastrtp.maps.records import HtabElem, MapRecord
from fastrtp.maps.timer_native import timer_free
from fastrtp.native.intrinsics import device, load64, native, outline, store64
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.records import Env, Machine, Timer

_free_all = outline("value_free_fields", 6)


@device
def _free_value(machine: Machine, map: MapRecord, value: int, timers_only: int) -> None:
    fields = map.fields
    pending = 0
    for number in range(load64(fields)):
        row = load64(fields + 8 + number * 8)
        field = value + (row & 0xFFFFFFFF)
        kind = row >> 32 & 0xFF
        if kind == FIELD_TIMER:
            timer = Timer(load64(field))
            if timer:
                store64(field, 0)
                timer_free(machine, timer)
        elif timers_only == 0:
            pending = object_drop_fields(field, row, pending)
    object_drop_all(machine, pending)


@device
def free_fields(machine: int, map: MapRecord, value: int, timers_only: int) -> None:
    """Give back what the fields of a value (per-CPU: of all CPUs' values) hold."""
    if map.fields != 0:
        _free_all(machine, int(map), value, timers_only, map.cpus if map.value_stride != 0 else 1, 0)


@device
def free_fields_of_cpu(machine: int, map: MapRecord, value: int) -> None:
    """Give back what the fields of one value hold, which may be a CPU's own."""
    if map.fields != 0:
        _free_all(machine, int(map), value, 0, 1, 0)


@native()
def value_free_fields(machine: Machine, map: MapRecord, value: int, timers_only: int, cpus: int, env: Env) -> int:
    """See free_fields. Out of line: few values have fields, and every program that deletes would have this inside."""
    stride = map.value_stride
    for cpu in range(cpus):
        _free_value(machine, map, value + cpu * stride, timers_only)
    return 0


@native()
def map_free_fields(machine: Machine, map: MapRecord, timers_only: int) -> int:
    """Give back what the values of a whole map hold: before its memory goes, or (timers) when user space lets it go."""
    enter(machine)
    values, size = map.values, map.elem_size
    kind = map.map_type
    if kind == 2 or kind == 6:
        for number in range(map.max_entries):
            free_fields(int(machine), map, values + number * size, timers_only)
    else:
        for number in range(1, map.fresh + 1):
            if htab_in_use(HtabElem(htab_element(map, number, size))):
                free_fields(int(machine), map, htab_value(map, number), timers_only)
    leave(machine)
    return 0
