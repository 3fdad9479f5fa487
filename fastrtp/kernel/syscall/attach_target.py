"""What a tracing program is for: the type that attach_btf_id names has to be a tracepoint's.

The verifier asks this about the kernel, so the answer is a line of its log.

Kernel counterpart: kernel/bpf/verifier.c (check_attach_btf_id, bpf_check_attach_target).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fastrtp.errors import BtfError, VerifierError
from fastrtp.uapi import BPF_F_SLEEPABLE, BpfAttachType, BpfProgType

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.kernel.objects.prog import ProgAux

_PREFIX = "btf_trace_"
_NOTHING_DONE = "processed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0"


def _refuse(line: str) -> VerifierError:
    return VerifierError(errno.EINVAL, line, log=f"{line}\n{_NOTHING_DONE}\n")


def check_attach_btf_id(prog_type: int, aux: ProgAux) -> str:
    """Name of the tracepoint that a tp_btf program is for, "" for the other types. VerifierError EINVAL."""
    if aux.prog_flags & BPF_F_SLEEPABLE:
        raise _refuse("Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable")
    if prog_type != BpfProgType.BPF_PROG_TYPE_TRACING:
        return ""
    if aux.attach_btf is None:
        raise _refuse("Tracing programs must provide btf_id")
    return bpf_check_attach_target(aux.attach_btf.btf, aux.attach_btf_id, aux.expected_attach_type)


def bpf_check_attach_target(btf: Btf, btf_id: int, expected_attach_type: int) -> str:
    """Kernel: kernel/bpf/verifier.c:bpf_check_attach_target"""
    from fastrtp.btf import BtfKind

    try:
        record = btf.type(btf_id)
    except BtfError:
        raise _refuse(f"attach_btf_id {btf_id} is invalid") from None
    if not record.name:
        raise _refuse(f"attach_btf_id {btf_id} doesn't have a name")
    if expected_attach_type != BpfAttachType.BPF_TRACE_RAW_TP:
        raise _refuse(f"expected_attach_type {expected_attach_type} is not supported, BPF_TRACE_RAW_TP is")
    if record.kind != BtfKind.TYPEDEF:
        raise _refuse(f"attach_btf_id {btf_id} is not a typedef")
    if not record.name.startswith(_PREFIX):
        raise _refuse(f"attach_btf_id {btf_id} points to wrong type name {record.name}")
    return record.name.removeprefix(_PREFIX)
