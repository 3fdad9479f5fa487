"""The compiler's process: modules come in, objects, assembly or IR go out. `compiler` starts it and asks it.

Must not know: BPF, maps, the cache.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from fastrtp.errors import JitError
from fastrtp.native import engine, lifeline
from fastrtp.native.compiler import IDLE_SECONDS, Job, Part, receive, send
from fastrtp.once import once


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
    return engine.optimised(module, _bitcode(job.bitcode), smp=job.smp)


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


@once
def _bitcode(path: str) -> bytes:
    return Path(path).read_bytes()


def serve(requests: int, replies: int) -> None:
    """Answer until the other side closes, or nothing has come for a while."""
    engine.target_machine()
    engine.limit_unrolling()
    while (request := receive(requests, IDLE_SECONDS)) is not None:
        try:
            head, body = _answer(json.loads(request))
        except (JitError, RuntimeError, OSError, ValueError) as error:
            head, body = {"error": str(error)}, b""
        send(replies, json.dumps(head).encode())
        send(replies, body)


def main(parent: int) -> None:
    """The server process of `parent`, which it ends with."""
    lifeline.end_with(parent)
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever prints, prints to the log
    with contextlib.suppress(EOFError, BrokenPipeError):
        serve(os.dup(0), replies)
