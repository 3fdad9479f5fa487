"""kernel/version.py: which Linux a kernel is, and what programs that ask for LINUX_KERNEL_VERSION read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastrtp.btf import default_btf
from fastrtp.errors import ObjectError
from fastrtp.kernel import Kernel
from fastrtp.kernel.version import HOST_BTF, file_version, host_version, uname_version, version_code, version_text

GLOBALS = Path(__file__).parent / "data" / "elf" / "globals.bpf.o"


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("6.1.192", 0x601C0),
        ("6.18.44-fc-v857", 0x6122C),
        ("4.9.337", 0x409FF),  # KERNEL_VERSION() holds the last number at 255
        ("5.10.0", 0x50A00),
    ],
)
def test_version_codes(version: str, code: int) -> None:
    """KERNEL_VERSION(a, b, c)."""
    assert version_code(version) == code


@pytest.mark.parametrize("version", ["", "6.1", "v6.1.2", "six", "-1.2.3"])
def test_what_is_no_version(version: str) -> None:
    """Three numbers in front, or an error."""
    with pytest.raises(ValueError, match="does not begin with three numbers"):
        version_code(version)


@pytest.mark.parametrize(
    ("release", "version", "expected"),
    [
        ("6.18.44-fc-v857", "#1 SMP PREEMPT_DYNAMIC", "6.18.44"),
        ("6.1.0-56-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-01)", "6.1.192"),
        ("6.1.0-56-cloud-amd64", "", None),
        ("5.4.0-42-generic", "#46-Ubuntu SMP", None),
        ("4.18.0-305.el8.x86_64", "#1 SMP", "4.18.0"),
        ("3.10.0-1160.el7.x86_64", "", "3.10.0"),
        ("", "", None),
    ],
)
def test_what_uname_tells(release: str, version: str, expected: str | None) -> None:
    """Debian's and Ubuntu's releases hide Linux's last number; Debian's version tells it."""
    found = uname_version(release, version)

    assert (version_text(found) if found is not None else None) == expected


def test_what_a_file_of_types_tells(tmp_path: Path) -> None:
    """A name is a release, as BTFHub has them; where the running kernel keeps its own it is that one's."""
    assert file_version("x/4.18.0-305.el8.x86_64.btf") == 0x41200
    assert file_version("x/5.4.0-42-generic.btf") is None
    assert file_version("x/vmlinux.btf") is None
    assert file_version(HOST_BTF) == host_version()


def asked(kernel: Kernel) -> int:
    """What the `.kconfig` map of an object says LINUX_KERNEL_VERSION is."""
    with kernel.load(GLOBALS) as obj:
        return int.from_bytes(obj.maps[".kconfig"].lookup(bytes(4))[:4], "little")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0x601C0),
        ({"btf": default_btf()}, 0x601C0),
        ({"version": "6.12.117"}, 0x60C75),
        ({"version": 0x60C75}, 0x60C75),
        ({"btf": "trimmed", "version": "5.15.3"}, 0x50F03),
    ],
)
def test_programs_read_the_version_of_their_kernel(options: dict[str, object], expected: int, tmp_path: Path) -> None:
    """The shipped types' own, or the one that was said."""
    if options.get("btf") == "trimmed":
        path = tmp_path / "some.btf"
        path.write_bytes(bytes(default_btf().data))
        options = {**options, "btf": path}

    assert asked(Kernel(cpus=1, **options)) == expected  # type: ignore[arg-type]


def test_an_unknown_version_is_no_number(tmp_path: Path) -> None:
    """A program that asks for it is refused, with the way out; others load."""
    path = tmp_path / "some.btf"
    path.write_bytes(bytes(default_btf().data))
    kernel = Kernel(btf=path, cpus=1)

    assert kernel.version is None
    with pytest.raises(ObjectError, match=r"LINUX_KERNEL_VERSION.*Kernel\(version='6.1.192'\)"):
        asked(kernel)


@pytest.mark.skipif(not os.access(HOST_BTF, os.R_OK), reason="the running kernel does not offer its BTF")
def test_the_running_kernel_has_its_own() -> None:
    """btf="host" is the kernel that runs, as its uname says."""
    assert asked(Kernel(btf="host", cpus=1)) == host_version()
