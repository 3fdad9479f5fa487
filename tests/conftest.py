"""Fixtures for every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel
    from fastrtp.record import Recording

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `bench`, which some tests share events with


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the checkout; tests that need it are skipped where it is not."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "semantics.md").is_file():
        pytest.skip("no reference material beside the checkout (../shared)")
    return folder


@pytest.fixture(scope="session")
def recording() -> Recording:
    """The recording that the package ships."""
    from fastrtp.record import Recording
    from fastrtp.record.demo import demo_recording

    return Recording.open(demo_recording())


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A kernel of one CPU with the shipped BTF; at the end it is shut down, and nothing may be left in it."""
    from fastrtp.kernel import Kernel

    kernel = Kernel(cpus=1)
    yield kernel
    kernel.shutdown()
    assert not kernel.progs
    assert not kernel.maps
    assert not kernel.links
