"""Fixtures for every test, and caches of their own: what a user has kept is never what a test finds.

The native library is the exception, which takes long to build and whose name says all that it was made of: it is copied from the
user's cache, and back where a test had to build it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel
    from fastrtp.record import Recording

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `bench`, which some tests share events with

_LIBRARY = ("native-*.json", "native-*.bc", "native-*.o", "share-*.bin")


def _copy_library(source: Path, target: Path) -> None:
    """Libraries and shares that the target lacks; a manifest after what it vouches for."""
    for path in sorted((path for pattern in _LIBRARY for path in source.glob(pattern)), key=lambda path: path.suffix == ".json"):
        if not (target / path.name).exists():
            part = target / f".{path.name}-{os.getpid()}.part"
            shutil.copy2(path, part)
            part.replace(target / path.name)


def pytest_configure(config: pytest.Config) -> None:
    """The caches of this session, for its child processes, too."""
    from fastrtp.entry_cache import cache_folder

    config._users_cache = users = cache_folder()  # type: ignore[attr-defined]
    config._own_cache = own = Path(tempfile.mkdtemp(prefix="fastrtp-tests-"))  # type: ignore[attr-defined]
    os.environ["FASTRTP_CACHE"] = str(own)
    _copy_library(users, own)


def pytest_unconfigure(config: pytest.Config) -> None:
    """A library that was built is kept, the rest is not."""
    own = getattr(config, "_own_cache", None)
    if own is not None:
        _copy_library(own, config._users_cache)  # type: ignore[attr-defined]
        shutil.rmtree(own, ignore_errors=True)


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
