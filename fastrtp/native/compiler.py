"""LLVM at arm's length: modules are optimised and compiled in processes of their own.

LLVM answers some of its own bugs with abort(), which no exception catches, and a program that the verifier accepts must
never end the user's interpreter. So the work is done by server processes (`compile_server`), as many as there are CPUs to
keep busy, started when there is something to compile, which end by themselves when nothing comes for a while, and with this
process, however it ends (`lifeline`). Where one
dies, the module is tried once more with the code generator's optimisations off, which are where such bugs live; then it
is a JitError. Cached objects never come here.

Must not know: BPF, maps, the cache.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import struct
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from fastrtp.errors import JitError
from fastrtp.native.process import PROCESS
from fastrtp.once import after_fork, once

if TYPE_CHECKING:
    import subprocess

IDLE_SECONDS = 30
_LIMIT_SECONDS = 300
_CODEGEN_LEVELS = (3, 0)
_MOST_SERVERS = 4
_LENGTH = struct.Struct("<Q")

Output = tuple[bytes, tuple[str, ...]]
"""What comes out of a job, and the symbols that it names and does not define."""


class Part(NamedTuple):
    """IR text that becomes part of a larger module, some of its symbols under other names there."""

    text: str
    names: tuple[tuple[str, str], ...] = ()


class Job(NamedTuple):
    """A module: `text` and `parts`, bodies to inline from the `bitcode` file, and the symbols to keep (all without parts).

    `smp`: other CPUs run beside the one that runs this code.
    """

    text: str
    bitcode: str
    parts: tuple[Part, ...] = ()
    exports: tuple[str, ...] = ()
    smp: bool = False


def send(to: int, data: bytes) -> None:
    """Write a message to a pipe: its length and the data. OSError when nobody reads."""
    left = memoryview(_LENGTH.pack(len(data)) + data)
    while left:
        left = left[os.write(to, left) :]


def receive(source: int, seconds: float) -> bytes | None:
    """A message from a pipe, None when none has come in that time. EOFError when nobody writes any more."""
    if not select.select([source], [], [], seconds)[0]:
        return None
    return _read(source, _LENGTH.unpack(_read(source, _LENGTH.size))[0])


def _read(source: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(source, min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


class _DiedError(Exception):
    """The server ended in the middle of a request; the text is its last word."""


class CompileServer:
    """The client's side of one process. One request at a time; safe in threads. A forked child leaves it to its parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._errors: IO[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there, as far as we know."""
        return self._process is not None and self._owner == os.getpid()

    def start(self) -> None:
        """Start the process now; it gets ready while its first job is prepared."""
        with self._lock:
            self._running()

    def compile(self, job: Job, what: str = "object") -> Output:
        """("object" code, "assembly" or "ir" of a job, the symbols that it names and does not define). JitError."""
        last = ""
        with self._lock:
            for level in _CODEGEN_LEVELS:
                try:
                    return self._ask(job, what, level)
                except _DiedError as died:
                    last = str(died)
        raise JitError(f"LLVM gave up on the program: {last}")

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, self._errors):
                if stream is not None:
                    stream.close()

    def _ask(self, job: Job, what: str, level: int) -> Output:
        fields = {"what": what, "codegen": level, "text": job.text, "bitcode": job.bitcode, "exports": job.exports}
        parts = [(part.text, part.names) for part in job.parts]
        request = json.dumps(fields | {"smp": job.smp, "parts": parts}).encode()
        try:
            head, body = self._exchange(self._running(), request)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            if self._process is None or self._process.wait() != 0:
                raise _DiedError(self._last_words()) from None
            self.close()  # it had been idle, and left as the request was on its way
            try:
                head, body = self._exchange(self._running(), request)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise _DiedError(self._last_words()) from None
        if "error" in head:
            raise JitError(str(head["error"]))
        return body, tuple(head["symbols"])

    def _exchange(self, process: subprocess.Popen[bytes], request: bytes) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        source = process.stdout.fileno()
        send(process.stdin.fileno(), request)
        head = receive(source, _LIMIT_SECONDS)
        if head is None:
            self.close()
            raise JitError(f"LLVM did not finish the program in {_LIMIT_SECONDS} s")
        return json.loads(head), receive(source, _LIMIT_SECONDS) or b""

    def _running(self) -> subprocess.Popen[bytes]:
        import subprocess
        import tempfile

        if self._process is None or self._process.poll() is not None:
            self.close()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
            pipe = subprocess.PIPE
            # a session of its own: Ctrl-C is the user's to us, not to the compiler
            try:
                self._process = subprocess.Popen(
                    _command(), stdin=pipe, stdout=pipe, stderr=self._errors, bufsize=0, start_new_session=True
                )
            except OSError as error:
                raise JitError(f"the compiler's process could not be started: {error}") from error
            self._owner = os.getpid()
        return self._process

    def _last_words(self) -> str:
        words = []
        if self._errors is not None:
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        return words[-1][:200] if words else "no reason given"


def _command() -> list[str]:
    """The server's command line. It needs two packages and nothing that `site` would look for: half the start-up time."""
    found = importlib.util.find_spec("llvmlite")
    folders = [str(Path(__file__).resolve().parents[2])]
    if found is not None and found.origin is not None:
        folders.append(str(Path(found.origin).parents[1]))
    options = ["-B"] if sys.dont_write_bytecode else []
    if sys.pycache_prefix:
        options += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    code = f"import sys; sys.path += {folders!r}; from fastrtp.native.compile_server import main; main({os.getpid()})"
    return [sys.executable, "-I", "-S", *options, "-c", code]


class Pending:
    """A job that is being done. result() waits for it."""

    def __init__(self, compilers: Compilers, job: Job) -> None:
        self._compilers = compilers
        self._job = job
        self._output: Output | None = None
        self._error: JitError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="fastrtp-compile")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._output = self._compilers.compile(self._job)
        except JitError as error:
            self._error = error
        except Exception as error:
            self._error = JitError(f"the compiler could not be asked: {error}")

    def result(self) -> Output:
        """The object and its symbols. JitError."""
        self._thread.join()
        if self._output is None and self._error is None:
            self._run()  # a forked child, in which the thread is not
        if self._output is None:
            raise self._error or JitError("nothing was compiled")
        return self._output


class Compilers:
    """As many servers as are busy at a time, at most one a CPU. Safe in threads; a forked child starts its own."""

    def __init__(self) -> None:
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        self._free = threading.Condition()
        self._idle: list[CompileServer] = []
        self._count = 0
        self._closed = False

    def start(self) -> None:
        """Start a server, unless one is there: its first job will come soon."""
        with self._free:
            first = CompileServer() if not self._count and not self._closed else None
            if first is not None:
                self._count += 1
                self._idle.append(first)
        if first is not None:
            with contextlib.suppress(JitError):  # the first job will say it
                first.start()

    def compile(self, job: Job, what: str = "object") -> Output:
        """("object" code, "assembly" or "ir" of a job, the symbols that it names and does not define). JitError."""
        server = self._take()
        try:
            return server.compile(job, what)
        finally:
            with self._free:
                self._idle.append(server)
                self._free.notify()
            if self._closed:
                server.close()

    def submit(self, job: Job) -> Pending:
        """Compile a job to an object meanwhile."""
        return Pending(self, job)

    def close(self) -> None:
        """End the servers."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            self._free.notify_all()
        for server in idle:
            server.close()

    def _take(self) -> CompileServer:
        with self._free:
            while not self._idle and self._count >= _most() and not self._closed:
                self._free.wait()
            if self._closed:
                raise JitError("the compiler was closed")
            if self._idle:
                return self._idle.pop()
            self._count += 1
            return CompileServer()


@once
def _most() -> int:
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, _MOST_SERVERS))


def server() -> Compilers:
    """This process's compilers."""
    return PROCESS.compilers
