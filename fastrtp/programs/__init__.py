"""BPF programs that come with the package: C sources, each with its compiled object beside it.

`runqlat` run-queue latency histograms, `syscount` system calls by process, `switches` the context-switch matrix.
`fastrtp cc -f -mcpu=v1 fastrtp/programs` compiles them again; using them needs no compiler.
"""

from __future__ import annotations

from importlib import resources

PROGRAMS = ("runqlat", "syscount", "switches")


def read_object(name: str) -> bytes:
    """The bytes of a shipped object, by its name in PROGRAMS. Raises `FileNotFoundError` for another one."""
    return resources.files(__package__).joinpath(f"{name}.bpf.o").read_bytes()
