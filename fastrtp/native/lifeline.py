"""A helper process ends when the process that it works for ends, however that dies, also in the middle of LLVM's work.

Linux's PR_SET_PDEATHSIG cannot do it: it signals when the *thread* that started the process ends, and a thread that compiles
does. Nor can the end of a pipe alone, as forked children of the dead keep theirs. So a thread of the helper waits for the
process itself (LLVM runs without the GIL).
"""

from __future__ import annotations

import os
import select
import threading
import time

_EVERY_SECONDS = 1.0
_STATUS = 130


def end_with(parent: int) -> None:
    """From now on this process ends as soon as its parent, whose pid is `parent`, is gone."""
    try:
        watched = os.pidfd_open(parent)
    except (AttributeError, OSError):  # it is gone already, or the system has no such thing
        watched = -1
    if os.getppid() != parent:  # it had ended before it was watched
        os._exit(_STATUS)
    threading.Thread(target=_watch, args=(parent, watched), daemon=True, name="fastrtp-lifeline").start()


def _watch(parent: int, watched: int) -> None:
    while os.getppid() == parent:
        if watched < 0:
            time.sleep(_EVERY_SECONDS)
        else:
            select.select([watched], [], [])
    os._exit(_STATUS)
