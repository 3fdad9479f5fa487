"""User memory is read and written without ever faulting, directly and through the pipe."""

from __future__ import annotations

import ctypes
import errno
import mmap

import pytest

from fastrtp.errors import BpfError
from fastrtp.kernel.files import uaccess

PAGE = mmap.PAGESIZE


@pytest.fixture(params=["process_vm", "pipe"])
def way(request, monkeypatch) -> str:
    if request.param == "pipe":
        monkeypatch.setattr(uaccess, "_vm_copy", lambda *_args: None)
    return request.param


@pytest.fixture
def two_pages():
    """(address, map) of a page with nothing mapped behind it."""
    area = mmap.mmap(-1, 2 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert libc.mprotect(address + PAGE, PAGE, 0) == 0
    yield address
    assert libc.mprotect(address + PAGE, PAGE, 3) == 0


def test_what_was_written_is_read(way: str):
    buffer = ctypes.create_string_buffer(3 * PAGE)
    data = bytes(range(256)) * (2 * PAGE // 256)

    uaccess.copy_to_user(ctypes.addressof(buffer) + 5, data)

    assert uaccess.copy_from_user(ctypes.addressof(buffer) + 5, len(data)) == data


@pytest.mark.parametrize("address", [0, 1, 4096, (1 << 47) - 1, 1 << 47, 1 << 63, (1 << 64) - 8])
def test_a_bad_address_is_efault(way: str, address: int):
    for function, argument in ((uaccess.copy_from_user, 8), (uaccess.copy_to_user, b"12345678")):
        with pytest.raises(BpfError) as caught:
            function(address, argument)
        assert caught.value.errno == errno.EFAULT


def test_nothing_is_copied_at_a_bad_address_of_no_bytes(way: str):
    assert uaccess.copy_from_user(0, 0) == b""
    uaccess.copy_to_user(0, b"")


def test_a_range_that_runs_into_an_unreadable_page_is_efault(way: str, two_pages: int):
    assert len(uaccess.copy_from_user(two_pages, PAGE)) == PAGE
    with pytest.raises(BpfError):
        uaccess.copy_from_user(two_pages + PAGE - 4, 8)
    with pytest.raises(BpfError):
        uaccess.copy_to_user(two_pages + PAGE - 4, b"12345678")
    uaccess.copy_to_user(two_pages, b"still")
    assert uaccess.copy_from_user(two_pages, 5) == b"still"


def test_a_string_that_ends_at_the_edge_of_memory_is_read(way: str, two_pages: int):
    uaccess.copy_to_user(two_pages + PAGE - 4, b"abc\0")

    assert uaccess.strncpy_from_user(two_pages + PAGE - 4, 127) == b"abc"
    uaccess.copy_to_user(two_pages + PAGE - 4, b"abcd")
    with pytest.raises(BpfError):
        uaccess.strncpy_from_user(two_pages + PAGE - 4, 127)


def test_a_string_is_cut_at_its_size(way: str):
    buffer = ctypes.create_string_buffer(b"abcdef")

    assert uaccess.strncpy_from_user(ctypes.addressof(buffer), 3) == b"abc"


@pytest.mark.parametrize(
    ("room", "expected", "fits"), [(4, b"abc\0", True), (3, b"ab\0", False), (1, b"\0", False), (9, b"abc\0", True)]
)
def test_a_string_is_copied_out_with_its_nul(room: int, expected: bytes, fits: bool):
    buffer = ctypes.create_string_buffer(16)

    assert uaccess.copy_string_to_user(ctypes.addressof(buffer), room, b"abc") is fits
    assert buffer.raw[: len(expected)] == expected
