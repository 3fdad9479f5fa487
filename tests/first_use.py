"""The first use of everything, by many threads at the same moment, in a process of its own: one of each thing, exact results.

    python -m tests.first_use [--count N] [--threads N] [--seed S]

Each round starts a process in which nothing has been used, whose threads use everything in an order of their own. Exit status 1
when a round made two of what there is one of, lost an update, ended badly or did not end.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 300

ROUND = r"""
import faulthandler, gc, json, random, sys, threading
threads, seed = int(sys.argv[1]), int(sys.argv[2])
faulthandler.dump_traceback_later(240, exit=True)
sys.setswitchinterval(1e-5)
import fastrtp as rtp

ONE = ("default kernel", "library", "compilers", "shims", "btf", "formats", "rare shim", "tracepoint", "ftrace", "event",
       "probe", "task", "reader")
made = {name: {} for name in ONE}
counted, errors = [], []
line = threading.Barrier(threads)

def note(name, thing):
    made[name][id(thing) if not isinstance(thing, int) else thing] = thing

def kernel(): note("default kernel", rtp.default_kernel())
def library():
    from fastrtp.native import library
    note("library", library.library())
def compilers():
    from fastrtp.native import compiler
    note("compilers", compiler.server())
def shims():
    from fastrtp.trace.shims import shim_address, shims
    note("shims", shims())
    note("rare shim", shim_address("12481248"))
def types():
    from fastrtp.btf import default_btf
    note("btf", default_btf())
def formats():
    from fastrtp.record.event_formats import default_formats
    note("formats", default_formats())
def reader():
    from fastrtp.kernel.files.uaccess import _pipe, copy_from_user
    import ctypes, os
    text = ctypes.create_string_buffer(b"text")
    assert copy_from_user(ctypes.addressof(text), 5) == b"text\0"
    note("reader", _pipe(os.getpid()))
def shared():
    shared = rtp.default_kernel()
    note("tracepoint", shared.tracepoints["sched_wakeup"])
    note("ftrace", shared.ftrace)
    note("event", shared.trace_events.event("sched_switch"))
    note("probe", shared.trace_events.event("sched_switch").ftrace_func)
    note("task", shared.objects.task(4242))
def assembled():
    from fastrtp import jit
    from fastrtp.isa import assemble, encode
    assert jit.run(encode(assemble("r0 = 41\nr0 += 1\nexit"))) == 42
def loaded():
    from fastrtp.programs import read_object
    with rtp.Kernel(cpus=2) as own, own.load(read_object("runqlat"), name="runqlat.bpf.o") as programs:
        assert len(programs.programs) == 3
def parallel():
    from fastrtp.isa import assemble, encode
    from fastrtp.record.demo import demo_recording
    with rtp.Kernel(cpus=8) as own:
        count = own.map_create(2, 4, 8, 1)
        text = f'''
            r1 = 0
            *(u32 *)(r10 -4) = r1
            r2 = r10
            r2 += -4
            r1 = map[fd:{count}]
            call bpf_map_lookup_elem
            if r0 == 0 goto +2
            r1 = 1
            lock *(u64 *)(r0 +0) += r1
            r0 = 0
            exit'''
        program = own.prog_load(17, encode(assemble(text)))
        link = own.raw_tracepoint_open("sched_switch", program)
        own.replay(demo_recording(), cpus="recorded")
        counted.append(int.from_bytes(own.map_lookup_elem(count, bytes(4)), "little"))
        own.close(link)

USES = [kernel, library, compilers, shims, types, formats, reader, shared, assembled, loaded, parallel]

def everything(number):
    order = random.Random(seed * 1000 + number).sample(USES, len(USES))
    names = sorted({*rtp._LAZY, *rtp._MODULES} - {"default_kernel"})
    random.Random(seed * 1000 + number).shuffle(names)
    line.wait()
    for name in names:  # the public way to them: modules inside are imported below
        getattr(rtp, name)
    for use in order:
        try:
            use()
        except BaseException as error:
            errors.append(f"{use.__name__}: {error!r}")

started = [threading.Thread(target=everything, args=(number,)) for number in range(threads)]
for thread in started: thread.start()
for thread in started: thread.join()

from fastrtp.native.library import NativeLibrary
from fastrtp.native.process import PROCESS
libraries = [one for one in gc.get_objects() if type(one) is NativeLibrary]
print(json.dumps({
    "several": {name: len(things) for name, things in made.items() if len(things) != 1},
    "libraries": [len(libraries), len(PROCESS.libraries)],
    "smp": PROCESS.smp,
    "counted": sorted(set(counted)),
    "errors": sorted(set(errors)),
}))
"""


def play(threads: int, seed: int) -> str:
    """One round; "" when all was well, else what was not."""
    command = [sys.executable, "-c", ROUND, str(threads), str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return f"did not end in {LIMIT_SECONDS} s"
    if done.returncode:
        return f"exit status {done.returncode}: {done.stderr.strip()[-2000:]}"
    found = json.loads(done.stdout)
    expected = {"several": {}, "libraries": [2, 2], "smp": True, "counted": [SWITCHES], "errors": []}
    wrong = {name: value for name, value in found.items() if value != expected[name]}
    return json.dumps(wrong) if wrong else ""


SWITCHES = 5069
"""Events sched_switch of the shipped recording."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.first_use", description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warmup = [sys.executable, "-c", "from fastrtp.native.library import ensure_built; ensure_built()"]
    subprocess.run(warmup, check=True, cwd=ROOT)  # it takes longer than a round may
    wrong: collections.Counter[str] = collections.Counter()
    start = time.monotonic()
    for number in range(given.count):
        said = play(given.threads, given.seed + number)
        if said:
            wrong[said] += 1
            print(f"round {given.seed + number}: {said}", flush=True)
        if (number + 1) % 50 == 0:
            print(f"{number + 1} of {given.count}, {wrong.total()} not well", flush=True)
    took = time.monotonic() - start
    print(f"{given.count} first uses by {given.threads} threads in {took:.0f} s: {given.count - wrong.total()} well, "
          f"{wrong.total()} not")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
