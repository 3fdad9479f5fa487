"""Special fields of a map's values, as the native code is told of them: FieldRow.

Which types have which fields is the verifier's knowledge (verifier/rules/fields.py); the rows' form is in field_rows_native.py.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class FieldKind(IntEnum):
    """What a field is. The numbers are those of field_rows_native.py."""

    LOCK = 1
    TIMER = 2
    KPTR = 3
    KPTR_LOCAL = 4
    LIST_HEAD = 5
    RB_ROOT = 6
    REFCOUNT = 7
    LIST_NODE = 8
    RB_NODE = 9

    @property
    def size(self) -> int:
        """Bytes of such a field."""
        return _SIZES[self]


_SIZES = {
    FieldKind.LOCK: 4, FieldKind.TIMER: 16, FieldKind.KPTR: 8, FieldKind.KPTR_LOCAL: 8, FieldKind.LIST_HEAD: 16,
    FieldKind.RB_ROOT: 16, FieldKind.REFCOUNT: 4, FieldKind.LIST_NODE: 24, FieldKind.RB_NODE: 32,
}  # fmt: skip


class FieldRow(NamedTuple):
    """One field at `offset` of a value. `node_at`: where in its objects a list or tree has the node."""

    offset: int
    kind: FieldKind
    node_at: int = 0

    @property
    def row(self) -> int:
        """As the native code has it."""
        return self.offset | self.kind << 32 | self.node_at << 40
