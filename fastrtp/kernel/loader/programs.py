"""The programs of an object: relocated for a kernel, and loaded; what a refusal means in the object's own words.

Kernel counterpart: tools/lib/bpf/libbpf.c:bpf_object__relocate_data, bpf_object_load_prog, fixup_verifier_log
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from fastrtp.btf.core import BPF_CORE_POISON
from fastrtp.btf.types import BtfKind
from fastrtp.errors import BpfError, ObjectError, VerifierError
from fastrtp.isa import Insn, encode
from fastrtp.kernel.loader.externs import function_address, resolve_function
from fastrtp.kernel.objects.names import object_name
from fastrtp.obj.externs import ExternKind
from fastrtp.obj.link import POISON_CALL_KFUNC_BASE
from fastrtp.uapi import BPF_F_SLEEPABLE, BPF_PSEUDO_KFUNC_CALL, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, BpfProgType

if TYPE_CHECKING:
    from fastrtp.kernel.loader.object import BpfObject, ObjectProgram
    from fastrtp.kernel.process import Process
    from fastrtp.obj import ProgramSpec

_CALL = 0x85
_POISON_MAP = 2001000000
"""Helper number of a load of a map that was not created. Kernel: libbpf.c:POISON_LDIMM64_MAP_BASE"""


def load_program(process: Process, obj: BpfObject, held: ObjectProgram) -> None:
    """BPF_PROG_LOAD of one program. ObjectError for what the kernel does not have; BpfError and VerifierError, with the stage."""
    program = held.spec
    stage = f"load program {program.name}"
    insns = _with_map_fds(obj, program, obj.spec.relocated(program, process.kernel.btf))
    _resolve_functions(process, obj, program, insns, stage)
    attach_btf_id, attach_btf_obj_fd = _attach_target(process, program, stage)
    with_info = obj.btf_fd >= 0 and len(program.func_info) > 0
    process.expected = program.attach_name
    try:
        fd = process.prog_load(
            program.prog_type, encode(insns), obj.spec.license, BPF_F_SLEEPABLE if program.sleepable else 0,
            name=object_name(program.name), expected_attach_type=program.attach_type, attach_btf_id=attach_btf_id,
            attach_btf_obj_fd=attach_btf_obj_fd, btf_fd=obj.btf_fd if with_info else 0,
            func_info=program.func_info.tobytes() if with_info else b"",
            line_info=program.line_info.tobytes() if with_info else b"",
        )  # fmt: skip
    except BpfError as error:
        if isinstance(error, VerifierError) and error.report is not None and program.attach_name:
            from fastrtp.verifier.report.report import for_tracepoint

            error.report = for_tracepoint(error.report, process.kernel.btf, program.attach_name)
        raise wrapped(stage, error, _poisoned(process, obj, program, error)) from error
    finally:
        process.expected = ""
        if attach_btf_obj_fd:
            process.close(attach_btf_obj_fd)
    held.loaded(fd)


def _attach_target(process: Process, program: ProgramSpec, stage: str) -> tuple[int, int]:
    """(attach_btf_id, descriptor of the module's BTF or 0) of a tp_btf program. ObjectError (ESRCH) for an unknown tracepoint.

    Kernel: tools/lib/bpf/libbpf.c:find_kernel_btf_id, which looks through the modules last
    """
    if program.prog_type != BpfProgType.BPF_PROG_TYPE_TRACING:
        return 0, 0
    kernel, name = process.kernel, program.attach_name
    if name not in kernel.tracepoints:
        raise ObjectError(f"{stage}: the kernel has no tracepoint {name!r}", section=program.section, errno=errno.ESRCH)
    module = kernel.modules.get(name)
    btf_id = kernel.tracepoints.proto(name).btf_id
    return btf_id, process.fd_by_id("btf", module.id) if module is not None else 0


def _with_map_fds(obj: BpfObject, program: ProgramSpec, insns: list[Insn]) -> list[Insn]:
    """The descriptors of the maps in place; uses of maps that were not created are poisoned.

    Kernel: tools/lib/bpf/libbpf.c:bpf_object__relocate_data, poison_map_ldimm64
    """
    insns = list(insns)
    numbers = {name: number for number, name in enumerate(obj.spec.maps)}
    for ref in program.map_refs:
        held = obj.maps.get(ref.map_name)
        at = ref.insn_idx
        if held is None or held.fd < 0:
            poison = Insn(_CALL, 0, 0, 0, _POISON_MAP + numbers[ref.map_name])
            insns[at] = insns[at + 1] = poison
            continue
        source = BPF_PSEUDO_MAP_FD if ref.value_offset is None else BPF_PSEUDO_MAP_VALUE
        insns[at] = insns[at]._replace(src_reg=source, imm=held.fd)
        insns[at + 1] = insns[at + 1]._replace(imm=ref.value_offset or 0)
    return insns


def _resolve_functions(process: Process, obj: BpfObject, program: ProgramSpec, insns: list[Insn], stage: str) -> None:
    """Calls and addresses of kernel functions; calls of weak ones that are not there stay poisoned, as libbpf leaves them."""
    btf = process.kernel.btf
    try:
        ids = {
            name: resolve_function(obj.spec, extern, btf)
            for name, extern in program.externs.items()
            if extern.kind is ExternKind.FUNCTION
        }
    except ObjectError as error:
        raise ObjectError(f"{stage}: {error}") from error
    for index, name in program.kfunc_refs:
        ident = ids.get(name)
        if ident is not None:
            insns[index] = insns[index]._replace(src_reg=BPF_PSEUDO_KFUNC_CALL, off=0, imm=ident)
    for index, name in program.ksym_refs:
        ident = ids.get(name)
        if ident is not None:
            address = function_address(ident)
            insns[index] = insns[index]._replace(imm=_signed(address & 0xFFFFFFFF))
            insns[index + 1] = insns[index + 1]._replace(imm=_signed(address >> 32))


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def _poisoned(process: Process, obj: BpfObject, program: ProgramSpec, error: BpfError) -> str:
    """What is not there, when that is why the verifier stopped. Kernel: libbpf.c:fixup_verifier_log"""
    found = re.findall(r"^(\d+): \(85\) call unknown#(\d+)\ninvalid func unknown#\2$", error.log, re.MULTILINE)
    if not found:
        return ""
    index, number = (int(word) for word in found[-1])
    if number == BPF_CORE_POISON:
        relo = obj.spec.core_relo_at(program.name, index)
        return f"instruction {index} needs {relo}, which the kernel's BTF does not have" if relo else ""
    names = list(obj.spec.externs)
    if 0 <= number - POISON_CALL_KFUNC_BASE < len(names):
        extern = obj.spec.externs[names[number - POISON_CALL_KFUNC_BASE]]
        if process.kernel.btf.find(extern.essential_name, BtfKind.FUNC) is None:
            return f"instruction {index} calls kfunc {extern.name!r}, which the kernel does not have"
        why = "not supported here, or not as it is declared"
        return f"instruction {index} calls kernel function {extern.name!r} (kfunc), which is {why}"
    maps = list(obj.spec.maps)
    if 0 <= number - _POISON_MAP < len(maps):
        name = maps[number - _POISON_MAP]
        left_out = next((why for why in obj.warnings if why.startswith(f"map {name}")), "")
        return f"instruction {index} uses map {name!r}, which was not created{f' ({left_out})' if left_out else ''}"
    return ""


def wrapped(stage: str, error: BpfError, why: str = "") -> BpfError:
    """The same error with the stage in front."""
    kind = VerifierError if isinstance(error, VerifierError) else BpfError
    out = kind(error.errno or 0, f"{stage}: {why or error.strerror}", log=error.log)
    if isinstance(error, VerifierError) and isinstance(out, VerifierError):
        out.report = error.report
        error.__notes__ = []  # a traceback shows both errors, and the report once
    return out
