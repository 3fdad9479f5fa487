"""BPF_BTF_LOAD.

Kernel counterpart: kernel/bpf/syscall.c:bpf_btf_load, kernel/bpf/btf.c:btf_parse
"""

from __future__ import annotations

import errno

from fastrtp.errors import BpfError, BtfError
from fastrtp.kernel.files.uaccess import copy_from_user
from fastrtp.kernel.objects.btf_object import BtfObject
from fastrtp.kernel.syscall.call import Call
from fastrtp.kernel.syscall.vlog import VerifierLog
from fastrtp.uapi import BPF_F_TOKEN_FD

_BTF_MAX_SIZE = 16 << 20
_MIN_TYPES = 2  # void and one more


def bpf_btf_load(call: Call) -> int:
    """BPF_BTF_LOAD: a descriptor. BpfError EINVAL, EEXIST, EPERM, E2BIG, EFAULT, ENOSPC (log), EMFILE.

    Kernel: kernel/bpf/btf.c:btf_new_fd
    """
    attr = call.attr
    call.check_attr()
    if attr.btf_flags & ~BPF_F_TOKEN_FD:
        raise BpfError(errno.EINVAL, f"EINVAL: btf_flags {attr.btf_flags:#x}")
    if attr.btf_flags:
        call.token_get(attr.btf_token_fd)
    call.require_capable("BPF_BTF_LOAD")
    if attr.btf_size > _BTF_MAX_SIZE:
        raise BpfError(errno.E2BIG, f"E2BIG: BTF of {attr.btf_size} bytes, at most {_BTF_MAX_SIZE} are allowed")
    log = VerifierLog(attr.btf_log_level, attr.btf_log_buf, attr.btf_log_size)
    log.check()
    data = copy_from_user(attr.btf, attr.btf_size)
    btf = _parse(call, data, log)
    try:
        return call.btf_new_fd(btf)
    except BpfError:
        btf.put()
        raise


def _parse(call: Call, data: bytes, log: VerifierLog) -> BtfObject:
    from fastrtp.btf import object_btf

    error: BpfError | None = None
    text = ""
    try:
        btf = object_btf(data)
        if len(btf) < _MIN_TYPES:
            raise BtfError("No type found")
        btf.check()
    except BtfError as found:
        text = f"{found}\n"
        error = BpfError(found.errno, f"{errno.errorcode[found.errno]}: {found}", log=text)
        error.__cause__ = found
    true_size, cut = log.finalize(text)
    if call.size >= 32:
        call.put_user("btf_log_true_size", true_size)
    if cut:
        raise log.error(true_size, cut, text) from error
    if error is not None:
        raise error
    return BtfObject(call.kernel.btfs, btf, data)
