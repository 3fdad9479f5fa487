"""Recordings of real kernels with what the kernel's own BPF counted: how many maps of a replay are equal, key by key.

The recordings are not part of the project: `$FASTRTP_SHARED`, or `../shared` beside the checkout.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("FASTRTP_SHARED") or Path(__file__).resolve().parents[2] / "shared")
RECORDINGS = SHARED / "recordings/vm-6.1"
REACHED = {"core": 17, "io": 51, "net": 28, "mem": 23, "hotplug": 15, "stacks": 8, "perf": 19}
"""Maps that recorded fields give and that are equal, by recording; of 18, 51, 29, 23, 15, 10 and 20."""


@pytest.mark.parametrize("name", REACHED)
def test_maps_are_what_the_kernel_counted(name):
    if not (RECORDINGS / "compare.py").is_file():
        pytest.skip("the recordings are not here")

    done = subprocess.run(
        [sys.executable, str(RECORDINGS / "compare.py"), str(RECORDINGS / name)], capture_output=True, text=True, check=False
    )

    found = re.search(r"# goal maps reached (\d+) of \d+; regressions (.*)", done.stdout)
    assert found is not None, done.stderr[-2000:]
    assert int(found[1]) >= REACHED[name]
    assert found[2] == "none"
