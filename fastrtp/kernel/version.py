"""Which Linux a kernel is: LINUX_VERSION_CODE, as libbpf tells programs that ask for it.

BTF does not say what kernel it describes. It is known of the running kernel, of the one whose BTF the package ships, and where
the name of a BTF file is a release that says it; otherwise the user says it.

Kernel: tools/lib/bpf/libbpf_probes.c:get_kernel_version
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from fastrtp.btf import DEFAULT_KERNEL_VERSION

HOST_BTF = Path("/sys/kernel/btf/vmlinux")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_DEBIAN = re.compile(r"Debian (\d+)\.(\d+)\.(\d+)")
_SIGNATURE = re.compile(r"\S+ \S+ (\d+)\.(\d+)\.(\d+)")
_DISTRIBUTIONS_OWN = re.compile(r"\d+\.\d+\.0-\d+-[a-z]")
"""Debian's and Ubuntu's releases have a number of the distribution's in place of the last one of Linux's."""
_MOST = 255


def version_code(version: str) -> int:
    """LINUX_VERSION_CODE of "6.1.192" or of a release that begins so. ValueError for what is no version."""
    found = _VERSION.match(version)
    if found is None:
        raise ValueError(f"version {version!r} does not begin with three numbers, as 6.1.192 does")
    return _code(found)


def version_text(code: int) -> str:
    """ "6.1.192" of LINUX_VERSION_CODE."""
    return f"{code >> 16}.{code >> 8 & 0xFF}.{code & 0xFF}"


def host_version() -> int | None:
    """The running kernel's; None where its release does not tell."""
    try:
        found = _SIGNATURE.match(Path("/proc/version_signature").read_text())
    except OSError:
        found = None
    return _code(found) if found is not None else uname_version(os.uname().release, os.uname().version)


def uname_version(release: str, version: str = "") -> int | None:
    """Of a machine whose uname says `release` and `version`; None where that does not tell."""
    found = _DEBIAN.search(version) or (None if _DISTRIBUTIONS_OWN.match(release) else _VERSION.match(release))
    return _code(found) if found is not None else None


def file_version(path: str | os.PathLike[str]) -> int | None:
    """Of the kernel whose BTF a file holds, as far as where it lies and its name tell. BTFHub names files by release."""
    if os.path.realpath(path) == str(HOST_BTF):
        return host_version()
    return uname_version(os.path.basename(path))


def file_release(path: str | os.PathLike[str]) -> str:
    """The release that a file of BTF is named by, "" for another name."""
    found = re.fullmatch(r"(\d+\.\d+\.\d+.*?)\.btf(\.zst|\.tar\.xz)?", os.path.basename(path))
    return found[1] if found is not None else ""


def default_version() -> int:
    """Of the kernel whose BTF the package ships."""
    return DEFAULT_KERNEL_VERSION


def _code(found: re.Match[str]) -> int:
    """Kernel: include/linux/version.h:KERNEL_VERSION"""
    major, minor, patch = (int(number[:6]) for number in found.groups())
    return (major << 16) + (minor << 8) + min(patch, _MOST)
