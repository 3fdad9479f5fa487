"""Python processes that are measured: with the fastrtp that runs here, which asv has installed, and this folder's `bench`.

Where asv runs, the folder of the checkout has another version of the package, so it is not among the children's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_BENCH = "import sys; sys.path.append({folder!r}); "


def importing_bench(code: str) -> str:
    """Code for `python -c` that can import `bench` besides."""
    return _BENCH.format(folder=str(Path(__file__).resolve().parents[1])) + code


def python(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a Python with these arguments until it ends. RuntimeError with its last line when it fails."""
    import fastrtp

    place = str(Path(fastrtp.__file__).resolve().parents[1])
    path = os.pathsep.join([place, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-P", *arguments], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip().splitlines()[-1:]}")
    return done
