"""BPF object files: ELF in, `ObjectSpec` out. Pure, deterministic, independent of the host.

Kernel: tools/lib/bpf/libbpf.c, up to the point where it opens its first file descriptor.
Must not know: what maps and programs do.
"""

from __future__ import annotations

from fastrtp.btf.core import CoreRelo

from .spec import MapRef, MapSpec, ObjectSpec, ProgramSpec

__all__ = ["CoreRelo", "MapRef", "MapSpec", "ObjectSpec", "ProgramSpec"]
