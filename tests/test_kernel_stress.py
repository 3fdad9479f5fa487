"""Attach, detach, load, map access, fork, exit and close from many threads while recordings replay: nothing is used after it is
freed, nothing is lost, nothing is left.

In a process of its own under faulthandler, so that a crash shows where, and a deadlock ends. FASTRTP_STRESS_SECONDS: how long
(2 by default).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SECONDS = float(os.environ.get("FASTRTP_STRESS_SECONDS", "2"))

SCRIPT = r'''
import faulthandler, json, random, struct, sys, threading, time

tier, seconds = sys.argv[1], float(sys.argv[2])
faulthandler.enable()
faulthandler.dump_traceback_later(seconds + 60, exit=True)

from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording

kernel = Kernel()
recording = Recording.open(demo_recording())
kind = next(number for number, table in enumerate(recording.tables) if table.name == "sched_switch")
switches = int((recording.event == kind).sum())
stop = threading.Event()
errors, done = [], {"attach": 0, "load": 0, "map": 0, "process": 0, "read": 0}


def counting(owner, map_type=2):
    """(program, array) of a process: a program that counts its runs."""
    array = owner.map_create(map_type, 4, 8, 4)
    if map_type == 1:
        owner.map_update_elem(array, bytes(4), bytes(8))
    code = f"""*(u32 *)(r10 -4) = 0
        r1 = map[fd:{array}]
        r2 = r10
        r2 += -4
        call bpf_map_lookup_elem
        if r0 == 0 goto +3
        r1 = *(u64 *)(r0 +0)
        r1 += 1
        *(u64 *)(r0 +0) = r1
        r0 = 0
        exit"""
    return owner.prog_load(17, encode(assemble(code)), name="count"), array


def value(owner, array):
    return int.from_bytes(owner.map_lookup_elem(array, bytes(4)), "little")


steady, steady_array = counting(kernel)
kernel.raw_tracepoint_open("sched_switch", steady)
coming, coming_array = counting(kernel)
shared_map = kernel.map_create(1, 4, 8, 256)
touching = kernel.prog_load(17, encode(assemble(f"""
    r6 = *(u64 *)(r1 +0)
    call bpf_get_prandom_u32
    r0 &= 255
    *(u32 *)(r10 -4) = r0
    *(u64 *)(r10 -16) = r6
    r1 = map[fd:{shared_map}]
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_map_update_elem
    r0 = 0
    exit""")))
kernel.raw_tracepoint_open("sys_enter", touching)


def attach(rnd):
    fds = [kernel.raw_tracepoint_open(rnd.choice(["sched_switch", "sys_exit", "sched_wakeup"]), coming) for _ in range(3)]
    rnd.shuffle(fds)
    for fd in fds:
        kernel.close(fd)
    done["attach"] += 3


def load(rnd):
    """A program comes, runs or not, and goes: what its map counted are its runs."""
    prog, array = counting(kernel, rnd.choice([1, 2]))
    link = kernel.raw_tracepoint_open("sched_switch", prog)
    held = kernel.current.files.fget(prog).private_data
    time.sleep(rnd.random() / 500)
    kernel.close(link)
    assert value(kernel, array) == held.runs, (value(kernel, array), held.runs)
    kernel.close(prog)
    kernel.close(array)
    done["load"] += 1


def use_map(rnd):
    key = struct.pack("<I", rnd.randrange(256))
    kernel.map_update_elem(shared_map, key, bytes(8))
    try:
        kernel.map_delete_elem(shared_map, key)
    except BpfError:
        pass
    try:
        kernel.map_get_next_key(shared_map, key)
    except BpfError:
        pass
    done["map"] += 1


def process(rnd):
    parent = kernel.new_process(comm="tool")
    prog, array = counting(parent)
    link = parent.raw_tracepoint_open("sched_switch", prog)
    child = parent.fork()
    passed = parent.send_fd(link, child)
    parent.kill()
    child.dup(passed)
    child.exit()
    done["process"] += 1


last = 0


def read(rnd):
    global last
    now = value(kernel, steady_array)
    assert now >= last, (now, last)
    last = now
    kernel.obj_get_info_by_fd(coming).run_cnt
    list(kernel.ids("link"))
    done["read"] += 1


def worker(step, seed):
    rnd = random.Random(seed)
    try:
        while not stop.is_set():
            step(rnd)
    except BaseException as error:
        errors.append(f"{step.__name__}: {error!r}")
        stop.set()


steps = (attach, load, use_map, process, read, attach)
threads = [threading.Thread(target=worker, args=(step, n)) for n, step in enumerate(steps)]
for thread in threads:
    thread.start()
replays, end = 0, time.monotonic() + seconds
while time.monotonic() < end and not stop.is_set():
    report = kernel.replay(recording, tier=tier, chunk=3000)
    assert report.events == recording.events
    replays += 1
stop.set()
for thread in threads:
    thread.join()
counted = value(kernel, steady_array)
runs = kernel.current.files.fget(coming).private_data.runs
result = {"errors": errors, "replays": replays, "counted": counted, "expected": replays * switches, "done": done,
          "coming": [value(kernel, coming_array), runs], "links": len(kernel.links), "progs": len(kernel.progs),
          "processes": len(kernel.processes)}
kernel.shutdown()
result["left"] = [len(kernel.links), len(kernel.progs), len(kernel.maps), kernel.file_table.nr_files]
print(json.dumps(result))
'''


@pytest.mark.parametrize("tier", ["linked", "fused"])
def test_everything_at_once(tier: str):
    command = [sys.executable, "-X", "faulthandler", "-c", SCRIPT, tier, str(SECONDS)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 120)
    assert ended.returncode == 0, ended.stderr[-4000:]
    result = json.loads(ended.stdout)

    assert result["errors"] == []
    assert result["replays"] > 0
    assert result["counted"] == result["expected"]
    assert result["coming"][0] == result["coming"][1]
    assert all(count > 0 for count in result["done"].values()), result["done"]
    assert (result["links"], result["progs"], result["processes"]) == (2, 3, 1)
    assert result["left"] == [0, 0, 0, 0]
