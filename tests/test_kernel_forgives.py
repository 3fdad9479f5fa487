"""What libbpf forgives, and what it costs: a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastrtp.errors import ObjectWarning
from fastrtp.kernel import Kernel

ELF = Path(__file__).parent / "data" / "elf"


def test_an_object_loads_without_btf_that_the_kernel_refuses(kernel: Kernel) -> None:
    with pytest.warns(ObjectWarning, match=r"loaded without its BTF, which the kernel refuses: .*FUNC unnamed.*Invalid arg#1"):
        obj = kernel.load(ELF / "forgiven.bpf.o")
    with obj:
        assert obj.btf_fd == -1
        assert [obj.programs["unnamed"].test_run(bytes(96)) for _ in range(2)] == [1, 2]
        assert obj.bss.hits == 2


def test_a_map_that_is_refused_with_types_is_created_without(kernel: Kernel) -> None:
    with pytest.warns(ObjectWarning, match="map places is created without types"):
        obj = kernel.load(ELF / "enum_keys.bpf.o")
    with obj:
        obj.programs["count"].test_run(bytes(96))
        assert [value for _, value in obj.maps["places"].items()] == [0, 1]


def test_a_map_that_is_refused_either_way_is_an_error(kernel: Kernel) -> None:
    obj = kernel.open(ELF / "enum_keys.bpf.o")
    obj.maps["places"].key_size = 8

    with pytest.raises(OSError, match="create map places: "):
        obj.load()
    assert not kernel.maps
