"""What there is one of stays one, whoever comes first; children that fork have their own; helpers end with whom they help."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import first_use
import pytest

from fastrtp.native import lifeline
from fastrtp.once import once, once_property


@pytest.mark.parametrize("seed", range(3))
def test_many_threads_use_everything_first(seed: int) -> None:
    """One library with one flag, one default kernel, one of each table; and programs on several CPUs lose nothing."""
    assert first_use.play(8, seed) == ""


def together(count: int, work: object) -> list[object]:
    """Results of `count` threads that start at the same moment."""
    line = threading.Barrier(count)
    results: list[object] = []

    def run() -> None:
        line.wait()
        results.append(work())  # type: ignore[operator]

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def slow_object(*_: object) -> object:
    time.sleep(0.02)
    return object()


def test_once_is_once_for_each_argument() -> None:
    made = once(slow_object)
    results = together(8, lambda: (made(1), made(2)))

    assert len(set(results)) == 1
    assert made(1) is not made(2)
    assert made(1) is made(1)


def test_what_fails_is_tried_again() -> None:
    calls = []

    @once
    def fragile() -> int:
        calls.append(1)
        if len(calls) < 2:
            raise OSError("not yet")
        return 5

    with pytest.raises(OSError, match="not yet"):
        fragile()
    assert (fragile(), fragile(), len(calls)) == (5, 5, 2)


def test_a_property_is_made_once_for_each_object() -> None:
    class Owner:
        thing = once_property(slow_object)

    one, other = Owner(), Owner()
    results = together(8, lambda: (one.thing, other.thing))

    assert len(set(results)) == 1
    assert one.thing is not other.thing
    assert isinstance(Owner.thing, once_property)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_that_forks_while_something_is_made_makes_its_own() -> None:
    """The thread that was making it is not in the child, and neither is its lock."""
    entered, leave = threading.Event(), threading.Event()

    @once
    def held() -> int:
        entered.set()
        leave.wait(30)
        return os.getpid()

    thread = threading.Thread(target=held)
    thread.start()
    entered.wait(30)
    leave_in_child = leave  # the event is the parent's: the child's copy is set by the child itself
    pid = os.fork()
    if pid == 0:
        leave_in_child.__init__()  # type: ignore[misc]  # its lock may be held by a thread that is not here
        leave_in_child.set()
        signal.alarm(20)
        os._exit(0 if held() == os.getpid() else 1)
    leave.set()
    thread.join()

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert held() == os.getpid()


FORKS = """
import os, signal, sys
import fastrtp as rtp
from fastrtp import jit
from fastrtp.isa import assemble, encode
from fastrtp.native import compiler, library
code = lambda number: encode(assemble(f"r0 = {number}\\nexit"))
kernel = rtp.default_kernel()
assert jit.run(code(os.getpid())) == os.getpid()
before = compiler.server()._idle[0]._process.pid
if (pid := os.fork()) == 0:
    signal.alarm(100)
    assert rtp.default_kernel() is kernel
    assert jit.run(code(os.getpid() + 1)) == os.getpid() + 1
    assert compiler.server()._idle[0]._process.pid != before
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert jit.run(code(os.getpid() + 2)) == os.getpid() + 2
assert compiler.server()._idle[0]._process.pid == before
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_compiles_with_a_server_of_its_own() -> None:
    """It has the library and the kernel, which are memory; the parent's server stays the parent's, and goes on."""
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=200)


COMPILES = """
import os, sys, threading, time
from fastrtp.native import compiler, library
bitcode = str(library.library().bitcode_path)
# a chain that LLVM needs minutes for
row = "  %v{0} = mul i64 %v{1}, %v{2}\\n  %c{0} = icmp eq i64 %v{0}, {0}\\n  br i1 %c{0}, label %b{0}, label %b{0}\\nb{0}:\\n"
rows = "".join(row.format(n, n - 1, n // 2) for n in range(1, 60000))
text = f"define i64 @f(i64 %v0) {{\\n{rows}  ret i64 %v59999\\n}}"
server = compiler.CompileServer()
server.start()
threading.Thread(target=lambda: server.compile(compiler.Job(text, bitcode)), daemon=True).start()
if sys.argv[1] == "fork" and os.fork() == 0:
    time.sleep(100)  # holds the parent's end of every pipe
print(server._process.pid, flush=True)
time.sleep(100)
"""


def state(pid: int) -> str:
    """A process's state as /proc has it, "" for none; and a zombie is none."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    return "" if found in "ZX" else found


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waits(seconds: float, condition: object) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(("how", "other"), [(signal.SIGKILL, ""), (signal.SIGTERM, ""), (signal.SIGKILL, "fork")])
def test_the_compile_server_ends_with_its_parent_in_the_middle_of_its_work(how: signal.Signals, other: str) -> None:
    """However the parent dies, and whoever else has its pipes."""
    with subprocess.Popen(
        [sys.executable, "-c", COMPILES, other], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as one:
        assert one.stdout is not None
        server = int(one.stdout.readline())
        try:
            assert waits(60, lambda: processor_seconds(server) > 1.5)  # it compiles: starting takes less
            assert state(server)
            one.send_signal(how)
            one.wait()
            assert waits(30, lambda: not state(server))
        finally:
            for kill, pid in ((os.killpg, one.pid), (os.kill, server)):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)


def test_a_helper_whose_parent_is_gone_already_ends_at_once() -> None:
    code = f"from fastrtp.native import lifeline; lifeline.end_with({os.getppid()}); print('still here')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (lifeline._STATUS, "")
