"""What an object leaves to the kernel: options of its configuration, and functions under other names."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from fastrtp.btf import default_btf
from fastrtp.errors import ObjectError, ObjectWarning, VerifierError
from fastrtp.kernel import Kernel
from fastrtp.kernel.loader.config import config_from, first_config, host_config, read_config

ELF = Path(__file__).parent / "data" / "elf"
OPTIONS = ELF / "options.bpf.o"
FLAVOURS = ELF / "flavours.bpf.o"
GIVEN = {
    "CONFIG_HZ": 100, "CONFIG_BPF_SYSCALL": False, "CONFIG_MODULES": "m", "CONFIG_EXT4_FS": "m",
    "CONFIG_DEFAULT_HOSTNAME": "a-long-name", "CONFIG_ILLEGAL_POINTER_VALUE": 7, "CONFIG_NO_SUCH_THING": True,
}  # fmt: skip


def seen(kernel: Kernel, **setup: object) -> dict[str, object]:
    """What a program saw of the options."""
    with kernel.load(OPTIONS, **setup) as obj:  # type: ignore[arg-type]
        obj.programs["options"].test_run(bytes(96))
        return dict(obj.bss())


def test_programs_read_the_options_of_the_shipped_kernel(kernel: Kernel) -> None:
    assert seen(kernel) == {
        "seen_hz": 250, "seen_bpf": True, "seen_modules": ord("y"), "seen_ext4": "TRI_YES", "poison": 0xDEAD000000000000,
        "hostname": "(none)", "thing": False, "wrapper": True, "cookie": 1, "machine": 0,
    }  # fmt: skip


GIVEN_SEEN = {
    "seen_hz": 100, "seen_bpf": False, "seen_modules": ord("m"), "seen_ext4": "TRI_MODULE", "poison": 7,
    "hostname": "a-long-", "thing": True, "wrapper": True, "cookie": 1, "machine": 0,
}  # fmt: skip


def test_given_options_go_before_the_kernels(kernel: Kernel) -> None:
    assert seen(kernel, kconfig=GIVEN) == GIVEN_SEEN
    assert seen(kernel, kconfig="CONFIG_HZ=300")["seen_hz"] == 300


def test_a_kernel_may_be_told_its_configuration() -> None:
    kernel = Kernel(cpus=1, kconfig=GIVEN)

    assert seen(kernel) == GIVEN_SEEN


def test_options_can_be_set_one_by_one(kernel: Kernel) -> None:
    obj = kernel.open(OPTIONS)
    obj.kconfig.CONFIG_HZ = 42
    with obj.load():
        obj.programs["options"].test_run(bytes(96))

        assert obj.bss.seen_hz == obj.kconfig.CONFIG_HZ == 42


def test_an_option_that_does_not_fit_is_the_givers_fault(kernel: Kernel) -> None:
    with pytest.raises(ObjectError, match="CONFIG_HZ=y does not fit its variable, an integer of 4 bytes"):
        kernel.open(OPTIONS, kconfig={"CONFIG_HZ": "y"})


def test_without_a_configuration_nothing_is_guessed(tmp_path: Path) -> None:
    """Strong options refuse their programs, weak ones read 0, and a warning says so; given ones are known."""
    types = tmp_path / "6.7.8-some.btf"
    types.write_bytes(bytes(default_btf().data))
    kernel = Kernel(btf=types, cpus=1)

    assert kernel.config is None
    with pytest.raises(ObjectError, match=r"load program options: kernel option 'CONFIG_HZ' is not known.*--kconfig"):
        kernel.load(OPTIONS)
    with pytest.warns(ObjectWarning, match="CONFIG_NR_CPUS reads as 0"):
        assert seen(kernel, kconfig=GIVEN) == GIVEN_SEEN


def test_an_option_that_is_not_set_is_said_to_be(kernel: Kernel) -> None:
    text = "".join(f"{name}=y\n" for name in ("CONFIG_BPF_SYSCALL", "CONFIG_MODULES", "CONFIG_EXT4_FS"))
    with pytest.raises(ObjectError, match="kernel option 'CONFIG_HZ' is not set; declared __weak it reads as 0"):
        Kernel(cpus=1, kconfig=text).load(OPTIONS)


def test_a_configuration_is_read_however_it_is_packed(tmp_path: Path) -> None:
    text = b"CONFIG_HZ=250\n"
    for number, data in enumerate([text, gzip.compress(text), zstandard.compress(text)]):
        (tmp_path / str(number)).write_bytes(data)

        assert read_config(tmp_path / str(number)) == {"CONFIG_HZ": "250"}
    assert first_config(tmp_path / "none", tmp_path / "1") == {"CONFIG_HZ": "250"}
    assert config_from(tmp_path / "0") == config_from("CONFIG_HZ=250") == config_from({"CONFIG_HZ": 250})


@pytest.mark.parametrize("data", [gzip.compress(b"CONFIG_A=y\n")[:-9], zstandard.compress(b"CONFIG_A=y\n")[:-2], b"CONFIG_A\n"])
def test_a_damaged_configuration_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config").write_bytes(data)

    with pytest.raises(ObjectError, match="config"):
        read_config(tmp_path / "config")
    with pytest.raises(ObjectError, match="nosuch"):
        read_config(tmp_path / "nosuch")


def test_the_running_kernels_configuration() -> None:
    config = host_config()
    if config is None:
        pytest.skip("the running kernel does not offer its configuration")

    assert config["CONFIG_BPF_SYSCALL"] == "y"


@pytest.mark.parametrize("btf", [None, "host"])
def test_flavours_of_kernel_functions_are_called_by_their_real_name(btf: str | None) -> None:
    """A function that is there has an address, one of another prototype is not there."""
    try:
        kernel = Kernel(btf, cpus=1)
    except ValueError:
        pytest.skip("the running kernel does not offer its BTF")
    with kernel.load(FLAVOURS) as obj:
        assert obj.programs["flavour"].test_run(bytes(96)) == 7
        assert obj.programs["which"].test_run(bytes(96)) == 1


def test_a_call_of_a_function_that_is_not_there_names_it(kernel: Kernel) -> None:
    with pytest.raises(VerifierError, match="calls kfunc 'bpf_no_such_function', which the kernel does not have"):
        kernel.load(FLAVOURS, programs=["unguarded"])


def test_a_function_that_is_declared_otherwise_is_refused(kernel: Kernel) -> None:
    with pytest.raises(ObjectError, match="'bpf_rcu_read_lock___strong' is declared unlike the kernel's"):
        kernel.load(FLAVOURS, programs=["misdeclared"])
