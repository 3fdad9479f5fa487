"""python -m tests.fuzz.processed [--seed S] [--count N] [--shape NAME]: how many instructions either verifier processes.

Programs of generated shapes, of ten to a hundred thousand instructions, on the running kernel and here. Equal counts say
that paths are followed, joined and given up in the same way: pruning, precision, liveness, ids, loops.
"""

from __future__ import annotations

import argparse
import collections
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastrtp.isa import assemble

from .features import ITER_DESTROY, ITER_NEW, ITER_NEXT
from .generator import Program, generate
from .host import HostKernel
from .native import log

_OPS = ("==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&")


@dataclass(frozen=True)
class Counts:
    """What one program took. A verdict of 0 is an accept."""

    errno: int
    processed: int
    states: int


def counts(said: tuple[int, str]) -> Counts:
    """The last line of a log."""
    found = re.search(r"processed (\d+) insns .* total_states (\d+)", said[1])
    return Counts(said[0], int(found[1]), int(found[2])) if found else Counts(said[0], 0, 0)


class Shape:
    """Text of one program, written down a line at a time; r6 = ctx, r7, r8 = unknown numbers, r9 = a counter."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lines: list[str] = []
        self._functions: list[str] = []
        self._labels = 0

    def add(self, *lines: str) -> None:
        self.lines += lines

    def label(self) -> str:
        self._labels += 1
        return f"l{self._labels}"

    def begin(self) -> None:
        self.add("r6 = r1", "r7 = *(u64 *)(r1 +8)", "r8 = *(u64 *)(r1 +16)", "r9 = 0", "*(u64 *)(r10 -8) = 0")
        self.add("*(u64 *)(r10 -16) = r7", "*(u64 *)(r10 -24) = r8", "*(u64 *)(r10 -32) = r9")

    def end(self) -> Program:
        return Program(assemble("\n".join([*self.lines, "r0 = 0", "exit", *self._functions])))

    def condition(self, target: str) -> None:
        rng = self.rng
        wide = rng.choice(("r", "r", "w"))
        left, right = rng.choice("7789"), rng.choice("789")
        kind = rng.random()
        if kind < 0.8:
            self.add(f"if {wide}{left} {rng.choice(_OPS)} {rng.choice((0, 1, 2, 5, 7, 8, 16, 100, -1, 4096))} goto {target}")
        else:
            self.add(f"if {wide}{left} {rng.choice(_OPS)} {wide}{right} goto {target}")

    def step(self) -> None:
        """A few instructions without a jump."""
        rng = self.rng
        slot = -8 * rng.randrange(1, 5)
        register = rng.choice("789")
        self.add(
            rng.choice(
                (
                    f"r9 += {rng.choice((1, 1, 2, 8))}", "r7 = r8", "r8 = r7", f"*(u64 *)(r10 {slot}) = r{register}",
                    f"*(u32 *)(r10 {slot}) = r{register}", f"r{register} = *(u64 *)(r10 {slot})",
                    f"r{register} = *(u32 *)(r10 {slot})", f"r{register} &= {rng.choice((1, 7, 15, 255))}",
                    f"r{register} = {rng.choice((0, 1, 3, 64))}", f"r{register} = *(u64 *)(r6 +{8 * rng.randrange(6)})",
                    f"*(u64 *)(r10 {slot}) = {rng.choice((0, 0, 1, 7))}", f"r{register} >>= 1", "r8 = r9", "w7 = w8",
                    f"r{register} += r{rng.choice('789')}", f"*(u8 *)(r10 {slot}) = r{register}",
                )
            )
        )  # fmt: skip

    def use(self) -> None:
        """A number that an access depends on."""
        register = self.rng.choice("789")
        skip = self.label()
        self.add(f"r2 = r{register}", f"if r2 > {self.rng.choice((3, 7))} goto {skip}", "r1 = r10", "r1 += -40", "r1 += r2")
        self.add("*(u8 *)(r1 +0) = 1", f"{skip}:")

    def forks(self, count: int) -> None:
        for _ in range(count):
            skip = self.label()
            self.condition(skip)
            for _ in range(self.rng.randrange(0, 4)):
                self.step()
            self.add(f"{skip}:")
            if self.rng.random() < 0.15:
                self.use()

    def loop(self, count: int, body: Callable[[], None]) -> None:
        again = self.label()
        at = -48 - 8 * (self._labels % 3)
        self.add(f"*(u64 *)(r10 {at}) = 0", f"{again}:")
        body()
        self.add(f"r1 = *(u64 *)(r10 {at})", "r1 += 1", f"*(u64 *)(r10 {at}) = r1", f"if r1 < {count} goto {again}")

    def function(self, body: Callable[[], None]) -> None:
        """A call of a function of its own, which gets r7 and r8."""
        name = self.label()
        self.add("r1 = r6", f"call {name}")
        outer, self.lines = self.lines, []
        self.add(f"{name}:")
        self.begin()
        body()
        self.add("r0 = r9", "exit")
        self._functions += self.lines
        self.lines = outer
        if self.rng.random() < 0.5:
            self.add("r7 = r0")

    def iterate(self, body: Callable[[], None]) -> None:
        """A loop over a number iterator."""
        at = -80 - 8 * self._labels
        again, done = self.label(), self.label()
        self.add("r1 = r10", f"r1 += {at}", "r2 = 0", f"r3 = {self.rng.choice((1, 4, 10, 1000))}", _kfunc(ITER_NEW))
        self.add(f"{again}:", "r1 = r10", f"r1 += {at}", _kfunc(ITER_NEXT), f"if r0 == 0 goto {done}")
        if self.rng.random() < 0.5:
            self.add(f"r{self.rng.choice('789')} = *(u32 *)(r0 +0)")
        body()
        self.add(f"goto {again}", f"{done}:", "r1 = r10", f"r1 += {at}", _kfunc(ITER_DESTROY))


def _kfunc(number: int) -> str:
    return f"call kernel-function#{number}"


def branches(s: Shape, size: int) -> None:
    """Jumps one behind the other."""
    s.forks(size // 4)


def straight(s: Shape, size: int) -> None:
    """Steps, with few jumps."""
    for number in range(size):
        s.step()
        if number % 50 == 49:
            s.forks(1)


def loops(s: Shape, size: int) -> None:
    """A loop that counts, with forks in it, and perhaps another inside."""
    inner = s.rng.random() < 0.4
    times = s.rng.choice((3, 10, 50, 200))

    def body() -> None:
        s.forks(max(size // 40, 1) if s.rng.random() < 0.7 else 0)
        s.step()
        if inner:
            s.loop(s.rng.choice((2, 5, 20)), s.step)

    s.loop(times, body)
    s.forks(2)


def functions(s: Shape, size: int) -> None:
    """Functions with forks, called between forks."""
    for _ in range(s.rng.randrange(1, 4)):
        s.forks(size // 24)
        s.function(lambda: s.forks(max(size // 24, 1)))
    s.forks(2)


def iterators(s: Shape, size: int) -> None:
    """Iterators, one after the other or nested."""
    depth = s.rng.randrange(1, 4)

    def body() -> None:
        nonlocal depth
        depth -= 1
        s.forks(s.rng.randrange(0, max(size // 16, 2)))
        if depth > 0:
            s.iterate(body)
        s.step()

    s.iterate(body)
    s.forks(2)


def may_gotos(s: Shape, size: int) -> None:
    """A loop that may be left at any time."""
    again, done = s.label(), s.label()
    s.add(f"{again}:", f"may_goto {done}")
    s.forks(max(size // 16, 1))
    s.add(f"goto {again}", f"{done}:")
    s.forks(2)


SHAPES: dict[str, Callable[[Shape, int], None]] = {
    shape.__name__: shape for shape in (branches, straight, loops, functions, iterators, may_gotos)
}


def sweep(name: str, seed: int) -> Program:
    """The program of a shape and a seed; `fuzz`: the fuzzer's."""
    if name == "fuzz":
        return generate(77, seed)
    rng = random.Random(f"{name} {seed}")
    shape = Shape(rng)
    shape.begin()
    SHAPES[name](shape, rng.choice((10, 20, 40, 80, 160, 320)))
    return shape.end()


def main() -> int:
    """The command: a line for each program that differs, a sum for each shape. 1 where verdicts differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.processed", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--shape", choices=[*SHAPES, "fuzz"])
    parser.add_argument("--log", type=Path, metavar="FOLDER", help="keep both logs (level 2) of the first that differs")
    options = parser.parse_args()
    host = HostKernel()
    if not host.usable:
        parser.error("bpf(2) is not allowed here")
    other = 0
    for name in [options.shape] if options.shape else [*SHAPES, "fuzz"]:
        tally: collections.Counter[str] = collections.Counter()
        for seed in range(options.seed, options.seed + options.count):
            program = sweep(name, seed)
            theirs, ours = counts(host.log(program, 4)), counts(log(program, 4, host.types, host.cpus))
            same = theirs == ours
            tally["equal" if same else "differ"] += 1
            other += (theirs.errno == 0) != (ours.errno == 0)
            if not same:
                print(f"{name} {seed}: kernel {theirs}, ours {ours}", flush=True)
                if options.log is not None:
                    (options.log / "kernel.log").write_text(host.log(program, 2, 1 << 28)[1])
                    (options.log / "ours.log").write_text(log(program, 2, host.types, host.cpus)[1])
                    return 1
        print(name, dict(tally), flush=True)
    return int(other > 0)


if __name__ == "__main__":
    raise SystemExit(main())
