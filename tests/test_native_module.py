"""Objects in memory: loaded here as LLVM's loader loads them, refused when damaged, freed when closed."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest

from fastrtp.errors import JitError
from fastrtp.native import engine, module
from fastrtp.native.module import NativeModule, lay_out

SOURCE = """
declare i64 @outside(i64)
declare ptr @memcpy(ptr, ptr, i64)
@table = internal constant [4 x i64] [i64 11, i64 22, i64 33, i64 44]
@refers = internal constant [2 x ptr] [ptr @table, ptr getelementptr ([4 x i64], ptr @table, i64 0, i64 2)]
define internal i64 @square(i64 %a) noinline {
  %r = mul i64 %a, %a
  ret i64 %r
}
define i64 @pick(i64 %a) {
  %slot = getelementptr [2 x ptr], ptr @refers, i64 0, i64 %a
  %p = load ptr, ptr %slot
  %v = load i64, ptr %p
  %s = call i64 @square(i64 %v)
  ret i64 %s
}
define i64 @out(i64 %a) {
  %r = call i64 @outside(i64 %a)
  ret i64 %r
}
define void @copy(ptr %to, ptr %from, i64 %n) {
  call ptr @memcpy(ptr %to, ptr %from, i64 %n)
  ret void
}
"""
EXPORTS = ["pick", "out", "copy"]
ONE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


@ONE
def outside(number: int) -> int:
    return number + 1000


@pytest.fixture(scope="module")
def obj() -> bytes:
    return engine.emit_object(engine.parse(SOURCE))


@pytest.fixture(params=["ours", "llvm"])
def loaded(request: pytest.FixtureRequest, obj: bytes, monkeypatch: pytest.MonkeyPatch) -> NativeModule:
    if request.param == "llvm":
        monkeypatch.setattr(module, "_loads_here", lambda: False)
    return NativeModule(obj, EXPORTS, {"outside": ctypes.cast(outside, ctypes.c_void_p).value or 0})


def test_both_loaders_give_the_same(loaded: NativeModule) -> None:
    pick, out = ONE(loaded.addresses["pick"]), ONE(loaded.addresses["out"])
    target = ctypes.create_string_buffer(6)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)(loaded.addresses["copy"])(
        ctypes.addressof(target), b"bytes", 5
    )

    assert (pick(0), pick(1), out(5), target.value) == (121, 1089, 1005, b"bytes")
    loaded.close()
    loaded.close()


def test_the_fast_way_is_taken_on_linux_x86_64(obj: bytes) -> None:
    if not module._loads_here():
        pytest.skip("not Linux on x86-64")
    image = lay_out(obj)

    assert image is not None
    assert set(EXPORTS) <= set(image.exports)
    assert {symbol for _, symbol, _ in image.bound} == {"", "outside", "memcpy"}


def maps_of(address: int) -> list[str]:
    """Permissions of the mapping at an address."""
    rows = (line.split() for line in Path("/proc/self/maps").read_text().splitlines())
    return [row[1] for row in rows if int(row[0].partition("-")[0], 16) <= address < int(row[0].partition("-")[2], 16)]


def test_code_cannot_be_written_and_is_gone_when_closed(obj: bytes) -> None:
    if not module._loads_here():
        pytest.skip("not Linux on x86-64")
    made = NativeModule(obj, EXPORTS, {"outside": 1})
    address = made.addresses["pick"]
    before = maps_of(address)
    made.close()

    assert (before, maps_of(address)) == (["r-xp"], [])


def test_an_export_that_is_not_there_is_an_error(obj: bytes) -> None:
    with pytest.raises(JitError, match="absent"):
        NativeModule(obj, ["absent"], {"outside": 1})


def test_a_symbol_that_is_nowhere_is_named(obj: bytes) -> None:
    with pytest.raises(JitError, match="outside"):
        NativeModule(obj, EXPORTS, {})


def test_an_object_that_is_cut_off_is_an_error_or_not_ours(obj: bytes) -> None:
    """Never a crash, whatever is missing: tables are at the end."""
    errors = 0
    for length in range(0, len(obj), 13):
        try:
            assert lay_out(obj[:length]) is None
        except JitError:
            errors += 1
    assert errors > 50


def test_words_changed_anywhere_never_crash_the_layout(obj: bytes) -> None:
    accepted = 0
    for at in range(0, len(obj) - 8, 8):
        for value in (0xFFFFFFFFFFFFFFFF, 1 << 40):
            changed = bytearray(obj)
            struct.pack_into("<Q", changed, at, value)
            try:
                accepted += lay_out(bytes(changed)) is not None
            except JitError:
                continue
    assert accepted > 0


def test_writable_data_goes_through_llvm() -> None:
    text = "@count = internal global i64 0\ndefine i64 @next() {\n  %a = load i64, ptr @count\n  %b = add i64 %a, 1\n"
    made = engine.emit_object(engine.parse(text + "  store i64 %b, ptr @count\n  ret i64 %b\n}"))
    loaded = NativeModule(made, ["next"], {})
    following = ctypes.CFUNCTYPE(ctypes.c_int64)(loaded.addresses["next"])

    assert lay_out(made) is None
    assert [following(), following()] == [1, 2]
