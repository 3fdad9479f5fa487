"""LLVM at arm's length: modules are optimised and compiled in a process of their own.

LLVM answers some of its own bugs with abort(), which no exception catches, and a program that the verifier accepts must
never end the user's interpreter. So the work is done by a server process that is started with the first compilation and
ends by itself when nothing comes for a while. Where it dies, the module is tried once more with the code generator's
optimisations off, which are where such bugs live; then it is a JitError. Cached objects never come here.

Must not know: BPF, maps, the cache.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from fastrtp.errors import JitError
from fastrtp.native import engine

_IDLE_SECONDS = 30
_LIMIT_SECONDS = 300
_CODEGEN_LEVELS = (3, 0)


@dataclass(frozen=True)
class Part:
    """IR text that becomes part of a larger module, some of its symbols under other names there."""

    text: str
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Job:
    """A module: `text` and `parts`, bodies to inline from the `bitcode` file, and the symbols to keep (all without parts).

    `smp`: other CPUs run beside the one that runs this code.
    """

    text: str
    bitcode: str
    parts: tuple[Part, ...] = ()
    exports: tuple[str, ...] = ()
    smp: bool = False


def linked(job: Job) -> Any:
    """The optimised module of a job, in this process."""
    module = engine.parse(job.text)
    for part in job.parts:
        piece = engine.parse(part.text)
        names = dict(part.names)
        for symbol in (*piece.functions, *piece.global_variables):
            symbol.name = names.get(symbol.name, symbol.name)
        module.link_in(piece)
    if job.parts:  # what is not exported can be inlined and dropped
        for function in module.functions:
            if not function.is_declaration and function.name not in job.exports:
                function.linkage = "internal"
    return engine.optimised(module, Path(job.bitcode).read_bytes(), smp=job.smp)


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """(head, body) of the reply to one request."""
    parts = tuple(Part(text, tuple((old, new) for old, new in names)) for text, names in request["parts"])
    module = linked(Job(request["text"], request["bitcode"], parts, tuple(request["exports"]), request["smp"]))
    head = {"symbols": engine.undefined(module)}
    if request["what"] == "ir":
        return head, str(module).encode()
    if request["what"] == "assembly":
        return head, engine.assembly(module, request["codegen"]).encode()
    return head, engine.emit_object(module, request["codegen"])


def serve(requests: Connection, replies: Connection) -> None:
    """Answer until the other side closes, or nothing has come for a while."""
    engine.target_machine()
    while requests.poll(_IDLE_SECONDS):
        try:
            request = json.loads(requests.recv_bytes())
        except EOFError:
            return
        try:
            head, body = _answer(request)
        except (JitError, RuntimeError, OSError, ValueError) as error:
            head, body = {"error": str(error)}, b""
        replies.send_bytes(json.dumps(head).encode())
        replies.send_bytes(body)


class _DiedError(Exception):
    """The server ended in the middle of a request; the text is its last word."""


class CompileServer:
    """The client's side. One request at a time; safe in threads and after fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._errors: IO[bytes] | None = None

    def compile(self, job: Job, what: str = "object") -> tuple[bytes, tuple[str, ...]]:
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
        """End the server."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, self._errors):
                if stream is not None:
                    stream.close()

    def _ask(self, job: Job, what: str, level: int) -> tuple[bytes, tuple[str, ...]]:
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
        to = Connection(os.dup(process.stdin.fileno()), readable=False)
        back = Connection(os.dup(process.stdout.fileno()), writable=False)
        try:
            to.send_bytes(request)
            if not back.poll(_LIMIT_SECONDS):
                self.close()
                raise JitError(f"LLVM did not finish the program in {_LIMIT_SECONDS} s")
            return json.loads(back.recv_bytes()), back.recv_bytes()
        finally:
            to.close()
            back.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            self._process = None  # a forked child leaves the server to its parent
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
            path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
            command = [sys.executable, "-m", "fastrtp.native.compiler"]
            pipe = subprocess.PIPE
            environment = os.environ | {"PYTHONPATH": path}
            # a session of its own: Ctrl-C is the user's to us, not to the compiler
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=self._errors, env=environment, start_new_session=True
            )
            self._owner = os.getpid()
        return self._process

    def _last_words(self) -> str:
        words = []
        if self._errors is not None:
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        return words[-1][:200] if words else "no reason given"


@functools.cache
def server() -> CompileServer:
    """This process's server."""
    made = CompileServer()
    atexit.register(made.close)
    return made


def main() -> None:
    """The server process."""
    replies = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever prints, prints to the log
    serve(Connection(os.dup(0), writable=False), replies)


if __name__ == "__main__":
    main()
