"""What an object's `.kconfig` map holds in a kernel: the facts of that kernel that the object's externs ask for.

Kernel: tools/lib/bpf/libbpf.c:bpf_object__resolve_externs
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.errors import ObjectError

if TYPE_CHECKING:
    from fastrtp.obj import MapSpec

    from .kernel import Kernel

KERNEL_VERSION = "LINUX_KERNEL_VERSION"


def kconfig_values(kernel: Kernel, spec: MapSpec) -> bytes | None:
    """The first value of a map, as it is in this kernel. ObjectError for an extern whose value is not known."""
    place = spec.externs.get(KERNEL_VERSION)
    if place is None or spec.initial is None:
        return spec.initial
    if kernel.version is None:
        raise ObjectError(
            f"extern {KERNEL_VERSION!r}: which Linux these types are of is not known: say it with Kernel(version='6.1.192')",
            section=spec.section,
        )
    offset, size = place
    contents = bytearray(spec.initial)
    contents[offset : offset + size] = kernel.version.to_bytes(max(size, 4), "little")[:size]
    return bytes(contents)
