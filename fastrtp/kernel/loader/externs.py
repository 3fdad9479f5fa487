"""What a kernel supplies of what an object leaves to it: values of options, ids of functions.

Kernel counterpart: tools/lib/bpf/libbpf.c:bpf_object__resolve_externs, bpf_object__resolve_ksym_func_btf_id
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.btf.core_types import types_are_compat
from fastrtp.btf.kfuncs import KFUNCS, kfunc_id
from fastrtp.btf.types import BtfKind
from fastrtp.errors import BtfError, ObjectError
from fastrtp.obj.externs import Extern, ExternKind
from fastrtp.obj.kconfig import Config, number_bytes, option_bytes

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.kernel.kernel import Kernel
    from fastrtp.obj import ObjectSpec, ProgramSpec

KFUNC_ADDRESS = 0xFFFFFFFF81000000
"""Where functions of the kernel are said to be, 16 bytes each: a program that asks whether one is there compares with 0."""

_VERSION = "LINUX_KERNEL_VERSION"
_FACTS = {"LINUX_HAS_BPF_COOKIE": 1, "LINUX_HAS_SYSCALL_WRAPPER": 1}
"""What libbpf finds out about a kernel, as this one has it."""


class Options:
    """The options and facts of .kconfig that are known: name -> bytes. `unknown`: name -> why a value is not known."""

    def __init__(self, spec: ObjectSpec, kernel: Kernel, given: Config | None = None) -> None:
        """`given` goes before the kernel's own configuration. ObjectError for a value that its variable cannot hold."""
        self.known: dict[str, bytes] = {}
        self.unknown: dict[str, str] = {}
        self.notes: list[str] = []
        """What reads as 0 although it may be set."""
        for extern in spec.externs.values():
            if extern.kind is ExternKind.OPTION:
                self._resolve(extern, kernel, given)

    def _resolve(self, extern: Extern, kernel: Kernel, given: Config | None) -> None:
        name = extern.name
        if extern.kcfg is None:
            self.unknown[name] = f"extern {name!r} has a type that no kernel option has"
        elif name == _VERSION or name in _FACTS:
            value = kernel.version if name == _VERSION else _FACTS[name]
            if value is None:
                self.unknown[name] = (
                    f"extern {name!r}: which Linux these types are of is not known: say it with Kernel(version='6.1.192') "
                    "or --kernel-version"
                )
            else:
                self.known[name] = number_bytes(name, extern.kcfg, value)
        elif not name.startswith("CONFIG_"):
            if not extern.weak or not name.startswith("LINUX_"):
                self.unknown[name] = f"extern {name!r} is neither an option (CONFIG_*) nor a fact that libbpf knows"
        elif given is not None and name in given:
            self.known[name] = option_bytes(name, extern.kcfg, given[name])
        else:
            self._resolve_option(extern, kernel)

    def _resolve_option(self, extern: Extern, kernel: Kernel) -> None:
        name, config = extern.name, kernel.config
        if config is not None and name in config and extern.kcfg is not None:
            try:
                self.known[name] = option_bytes(name, extern.kcfg, config[name])
            except ObjectError as error:
                self.unknown[name] = str(error)
        elif extern.weak:
            if config is None:
                self.notes.append(f"{name} reads as 0: no configuration of a kernel with this BTF is known (kconfig=, --kconfig)")
        elif config is None:
            self.unknown[name] = (
                f"kernel option {name!r} is not known: no configuration of a kernel with this BTF is (kconfig=, --kconfig); "
                "declared __weak it reads as 0"
            )
        else:
            self.unknown[name] = f"kernel option {name!r} is not set; declared __weak it reads as 0"

    def fill(self, spec: ObjectSpec, initial: bytes) -> bytes:
        """The contents of the .kconfig map."""
        contents = bytearray(initial)
        for name, value in self.known.items():
            offset = spec.externs[name].offset
            contents[offset : offset + len(value)] = value
        return bytes(contents)


def resolve_function(spec: ObjectSpec, extern: Extern, btf: Btf) -> int | None:
    """The id that a call of a kernel function has; None where the kernel has none of that name and prototype.

    ObjectError for one whose prototype is another, unless the program is prepared for its absence.
    """
    ident = kfunc_id(btf, extern.essential_name)
    theirs = btf.find(extern.essential_name, BtfKind.FUNC)
    if ident is None or spec.btf is None:
        return ident
    args = KFUNCS[extern.essential_name].args
    try:
        if theirs is not None:
            compatible = types_are_compat(spec.btf, extern.type_id, btf, btf.type(theirs).type)
        else:  # a function that came later than this kernel
            compatible = len(spec.btf.type(extern.type_id).params) == args
    except BtfError as error:
        raise ObjectError(f"kernel function {extern.name!r}: {error}") from error
    if compatible:
        return ident
    if extern.weak:
        return None
    told = btf.c_proto(theirs, extern.essential_name) if theirs is not None else f"{extern.essential_name} of {args} arguments"
    raise ObjectError(f"kernel function {extern.name!r} is declared unlike the kernel's {told}")


def function_address(ident: int) -> int:
    """A made-up address of a kernel function that is there. Differs: Linux gives the real one."""
    return KFUNC_ADDRESS + 16 * (ident & 0xFFFFFF)


def missing_here(program: ProgramSpec, btf: Btf) -> list[str]:
    """Functions and variables that Linux has for this program, and would take, and that are not there here."""
    out = []
    for extern in program.externs.values():
        if extern.kind is ExternKind.FUNCTION and kfunc_id(btf, extern.essential_name) is None:
            if btf.find(extern.essential_name, BtfKind.FUNC) is not None:
                out.append(f"{extern.kind.value} {extern.essential_name!r}")
        elif extern.kind is ExternKind.VARIABLE and btf.find(extern.name, BtfKind.VAR) is not None:
            out.append(f"{extern.kind.value} {extern.name!r}")
    return out
