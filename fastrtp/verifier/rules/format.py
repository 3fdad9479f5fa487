"""What a constant format may hold, and how many arguments it takes.

Kernel: kernel/bpf/helpers.c:bpf_bprintf_prepare, which the verifier calls for bpf_snprintf's format. At run time
helpers/bprintf_native.py reads it; a test has both read the same formats.
"""

from __future__ import annotations

import re

_ENDS = rb"(?=$|[\t-\r -/:-@\[-`{-~\xa0-\xbf\xd7\xf7])"
"""Behind a string or an address: the end, a space or a punctuation mark of the kernel's Latin-1 table."""
_CONVERSION = re.compile(
    rb"%[0+\- ]*(?:[1-9][0-9]*)?(?:p(?:[ku]s" + _ENDS + rb"|[KxsSB]|[iI][46]|" + _ENDS + rb")|s" + _ENDS + rb"|c|l{0,2}[diuxX])"
)
_PLAIN = re.compile(rb"[\t-\r -~\x80-\xff]*")


def format_is_valid(fmt: bytes, args: int) -> bool:
    """Whether `fmt` (without its NUL) is one that bpf_snprintf takes, with that many arguments at most."""
    if not _PLAIN.fullmatch(fmt):
        return False
    at = used = 0
    while (at := fmt.find(b"%", at)) >= 0:
        if fmt[at + 1 : at + 2] == b"%":
            at += 2
            continue
        found = _CONVERSION.match(fmt, at)
        used += 1
        if found is None or used > args:
            return False
        at = found.end()
    return True
