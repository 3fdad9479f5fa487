"""Code is loaded wherever the process has room, however far apart the pieces end up."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import mmap, random
from fastrtp.mem.arena import Arena
from fastrtp.native import compiler, library
from fastrtp.native.module import NativeModule

# a switch with a table and constants: sections beside the code
arms = "".join(f"    i64 {n}, label %l{n}\\n" for n in range(16))
blocks = "".join(f"l{n}:\\n  %r{n} = call i64 @g(i64 {n * n * 7919})\\n  ret i64 %r{n}\\n" for n in range(16))
text = "define i64 @g(i64 %a) noinline {\\n  %r = mul i64 %a, %a\\n  ret i64 %r\\n}\\n"
text += f"define i64 @f(i64 %a) {{\\n  switch i64 %a, label %l0 [\\n{arms}  ]\\n{blocks}}}\\n"
code, symbols = compiler.server().compile(compiler.Job(text, str(library.library().bitcode_path)))
keep = []
for seed in range(6):
    random.seed(seed)
    for _ in range(50):
        keep += [Arena(), mmap.mmap(-1, 4096 * random.randint(1, 40))]
        if random.random() < 0.5:
            keep.pop(random.randrange(len(keep))).close()
        keep.append(NativeModule(code, ["f"], {}))
print("fine")
"""


def test_sections_that_are_far_apart_are_no_problem() -> None:
    """LLVM's loader aborts the process when a 32-bit distance does not reach."""
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)

    assert (result.stdout.strip(), result.returncode) == ("fine", 0), result.stderr[-500:]
