"""record/switch_state.py: what sched_switch recorded as prev_state, on kernels from 2.6.35 to today."""

from __future__ import annotations

import numpy as np
import pytest
from truth import kernel_format

from fastrtp.record import EventTable
from fastrtp.record.event_format import EventFormat, FieldKind, FormatField, parse_event_format
from fastrtp.record.switch_state import SwitchState, switch_state, switch_states

FLAGS = {
    512: "SDTtZXxW",  # 3.4
    1024: "SDTtZXxKWP",  # 3.10
    2048: "SDTtZXxKWPN",  # 4.4
    4096: "SDTtXZxKWPNn",  # 4.8
}
"""Letters of the bits 1, 2, 4, ... by the bit of the "+": one format a kernel."""


def old_format(plus: int, size: int = 8) -> EventFormat:
    """sched_switch's format as kernels before 4.14 had it."""
    flags = ", ".join(f'{{ {1 << bit}, "{letter}" }}' for bit, letter in enumerate(FLAGS[plus]))
    state = f"REC->prev_state & ({plus}-1)"
    text = (
        f"name: sched_switch\nID: 7\nformat:\n\tfield:long prev_state;\toffset:8;\tsize:{size};\tsigned:1;\n"
        f'print fmt: "prev_state=%s%s ==> next_prio=%d", {state} ? __print_flags({state}, "|", {flags}) : "R", '
        f'REC->prev_state & {plus} ? "+" : "", 0\n'
    )
    return parse_event_format(text, "sched")


MEANS = {
    "S": (0x1, 0), "D": (0x2, 0), "T": (0x4, 0), "t": (0x8, 0), "X": (0x80, 0x10), "Z": (0x80, 0x20), "x": (0x80, 0),
    "P": (0x40, 0), "K": (0x100, 0), "W": (0x200, 0), "N": (0x400, 0), "n": (0x800, 0),
}  # fmt: skip
"""__state and exit_state that a letter stands for."""


@pytest.mark.parametrize("plus", FLAGS)
@pytest.mark.parametrize("size", [4, 8])
def test_every_flag_of_every_kernel(plus: int, size: int) -> None:
    """A bit means what its letter says, and "+" that the task was running and lost the CPU."""
    fmt = old_format(plus, size)

    assert switch_state(fmt, 0) == (0, 0, 0)
    assert switch_state(fmt, plus) == (1, 0, 0)
    for bit, letter in enumerate(FLAGS[plus]):
        assert switch_state(fmt, 1 << bit) == (0, *MEANS[letter]), letter


def test_flags_add_up() -> None:
    """TASK_KILLABLE is two flags; with the "+" a task was running whatever else it is."""
    fmt = old_format(1024)

    assert switch_state(fmt, 2 | 128) == (0, 0x102, 0)
    assert switch_state(fmt, 1024 | 1) == (1, 0, 0)


@pytest.mark.parametrize(
    ("value", "meant"),
    [(0, (0, 0, 0)), (1, (0, 1, 0)), (0x10, (0, 0x80, 0x10)), (0x20, (0, 0x80, 0x20)), (0x80, (0, 0x402, 0)), (0x100, (1, 0, 0))],
)
def test_modern_kernels(value: int, meant: tuple[int, int, int]) -> None:
    """The shipped kernel's format, and a table that has none."""
    assert switch_state(kernel_format("sched_switch"), value) == meant
    assert switch_state(None, value) == meant


@pytest.mark.parametrize("values", [[0, 1, 1024, 1], [-1, 1 << 40, 0, 1024], [], [1 << 20, 2]])
def test_columns_are_the_values_one_by_one(values: list[int]) -> None:
    """Whatever a column holds, each row has what its value alone gives."""
    fmt = old_format(1024)
    table = EventTable("sched_switch", "sched", {"prev_state": np.array(values, np.int64)}, fmt, {}, len(values))

    columns = switch_states(table)

    assert [SwitchState(*row) for row in zip(*(part.tolist() for part in columns), strict=True)] == [
        switch_state(fmt, value) for value in values
    ]
    assert [part.dtype for part in columns] == [np.uint8, np.uint32, np.uint32]


def test_a_format_that_cannot_be_printed_is_read_as_a_modern_one() -> None:
    """Hostile print formats change nothing but the meaning."""
    field = FormatField("prev_state", "long", 8, 8, True, FieldKind.SCALAR)
    for text in ("", '"', '"prev_state=%s", f(REC->x)', '"no state"', '"prev_state=%d+", REC->prev_state'):
        assert switch_state(EventFormat("sched_switch", 7, "sched", (field,), text), 1) == (0, 1, 0), text
