"""Global functions (tests/data/verifier/global): verdict, errno and last line, here and on the running kernel."""

from __future__ import annotations

import errno as errnos
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_object import HostObject, test_run, usable
from source_cases import Expected, expectations

from fastrtp.errors import BpfError, VerifierError
from fastrtp.kernel import Kernel
from fastrtp.kernel.loader.load import load
from fastrtp.obj import ObjectSpec

FOLDER = Path(__file__).parent / "data" / "verifier" / "global"
OBJECT = (FOLDER / "funcs.bpf.o").read_bytes()

CASES = list(expectations(FOLDER / "funcs.bpf.c"))


def last_lines(log: str) -> list[str]:
    """What was said last, and before that."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith("processed ")]
    return ["", "", *lines][-2:]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


@pytest.fixture(scope="module")
def host() -> Iterator[HostObject]:
    if not usable():
        pytest.skip("bpf(2) is not allowed here, or the kernel is not 6.18 on x86-64")
    with HostObject(OBJECT, "funcs") as host:
        yield host


@pytest.mark.parametrize("case", CASES, ids=[case.program for case in CASES])
def test_verdict(case: Expected, kernel: Kernel) -> None:
    """Accepted, or refused with the errno and the line that the source states."""
    if not case.errno:
        load(kernel.current, OBJECT, autoload={case.program}).close()
        return
    with pytest.raises(BpfError) as caught:
        load(kernel.current, OBJECT, autoload={case.program})

    assert isinstance(caught.value, VerifierError)
    assert (errnos.errorcode[caught.value.errno], caught.value.strerror.split(": ", 1)[1]) == (case.errno, case.message)
    assert not case.before or last_lines(caught.value.log) == [case.before, case.message]


def comparable(log: str) -> list[str]:
    """Lines without addresses, names of maps (Linux was given none) and the last, which counts states."""
    text = re.sub(r"map=[\w.]+,", "", log)
    text = re.sub(r"(r\d) = (0xffff[0-9a-f]+|map\[fd:\d+\](\[0\]\+\d+)?)( +);", r"\1 = MAP ;", text)
    return [line for line in text.splitlines() if line.strip() and not line.startswith("processed ")]


SAYS_ELSE = {
    "callback": "a function's address is printed as such",
    "another_struct_for_trusted": "Linux looks for the struct in members, too, and says what it finds",
}


@pytest.fixture(scope="module")
def host_types() -> Iterator[Kernel]:
    """A kernel of ours with the running kernel's types."""
    if not usable():
        pytest.skip("bpf(2) is not allowed here, or the kernel is not 6.18 on x86-64")
    with Kernel("host") as kernel:
        yield kernel


LOGGED = [case.program for case in CASES if case.errno and not case.differs and case.program not in SAYS_ELSE]


@pytest.mark.parametrize("program", LOGGED)
def test_the_log_is_linux_s(program: str, host_types: Kernel, host: HostObject) -> None:
    """Line by line: source, instructions, registers, slots, what is said of functions and arguments."""
    with pytest.raises(BpfError) as caught:
        load(host_types.current, OBJECT, autoload={program})

    assert comparable(caught.value.log) == comparable(host.load(host.spec.programs[program])[1])


RUN = [case.program for case in CASES if not case.errno and ObjectSpec.parse(OBJECT).programs[case.program].prog_type == 17]
UNDEFINED = ("anything_for_untrusted", "uninitialised_stack")
CTX = struct.pack("<12Q", *range(1, 13))


@pytest.mark.parametrize("program", RUN)
def test_result(program: str, kernel: Kernel, host: HostObject) -> None:
    """What is accepted gives the same result on the same context, where one is defined."""
    with load(kernel.current, OBJECT, autoload={program}) as loaded:
        ours = loaded.programs[program].test_run(CTX)
    fd, log = host.load(host.spec.programs[program])
    assert fd >= 0, log
    theirs = test_run(fd, CTX)
    os.close(fd)

    assert ours == theirs or program in UNDEFINED


@pytest.mark.parametrize("case", CASES, ids=[case.program for case in CASES])
def test_like_the_running_kernel(case: Expected, host: HostObject) -> None:
    """What the source states is what Linux says."""
    fd, log = host.load(host.spec.programs[case.program])
    if fd >= 0:
        os.close(fd)
    before, last = last_lines(log)
    found = (errnos.errorcode.get(-fd, str(-fd)), last) if fd < 0 else ("", "")

    assert (found != (case.errno, case.message)) is case.differs
    assert case.differs or not case.before or before == case.before
