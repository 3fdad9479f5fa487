"""What there is one of, in a process (`once`) or for an object (`once_property`): made at its first use, by one thread, however
many want it first.

`functools.cache` and (since Python 3.12) `functools.cached_property` call their function once for each thread that comes before
the first has finished, so two threads can go on with two native libraries, or two default kernels. Whatever has an identity
(native code, native memory, a process, a flag) is made here; a pure value may stay with functools.

After fork a child has what was made and none of the threads that were making: its locks are new (`after_fork`).
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Once(Protocol[P, R_co]):
    """A function that is called once."""

    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """What was made."""

    def cache_clear(self) -> None:
        """For tests: forget it."""


_renewals: list[Callable[[], Callable[[], None] | None]] = []


def after_fork(renew: Callable[[], None]) -> None:
    """In a forked child, call `renew` before anything else runs. A bound method is held weakly, a function for good."""
    _renewals.append(weakref.WeakMethod(renew) if hasattr(renew, "__self__") else lambda: renew)


def _renew() -> None:
    for reference in _renewals[:]:
        renew = reference()
        if renew is None:
            _renewals.remove(reference)
        else:
            renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def once(function: Callable[P, R_co]) -> Once[P, R_co]:
    """The function, called once for each set of (hashable) arguments; every thread gets the same object.

    What is there already costs what functools.cache costs. An exception is not kept: the next one tries again. The function
    may call others that are `once`, and itself for other arguments, and must not wait for a thread that may want it.
    """
    made: dict[Any, R_co] = {}
    lock = threading.RLock()

    def renew() -> None:
        nonlocal lock
        lock = threading.RLock()

    after_fork(renew)

    @functools.cache
    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> R_co:
        key = (args, tuple(sorted(kwargs.items())))
        with lock:
            if key not in made:
                made[key] = function(*args, **kwargs)
            return made[key]

    forget = make.cache_clear

    def cache_clear() -> None:
        made.clear()
        forget()

    make.cache_clear = cache_clear  # type: ignore[method-assign]
    make.__wrapped__ = function
    return cast("Once[P, R_co]", make)


class once_property(Generic[R_co]):
    """A property of an object, made at its first use and kept in the object's `__dict__`; every thread gets the same.

    The function must not wait for a thread that may want it: no lock that somebody holds who asks for the property.
    """

    def __init__(self, function: Callable[[Any], R_co]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> once_property[R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> R_co: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> R_co | once_property[R_co]:
        if instance is None:
            return self
        known = instance.__dict__
        with known.setdefault(f"_{self._name}_making", threading.RLock()):
            if self._name not in known:
                known[self._name] = self._function(instance)
            made: R_co = known[self._name]
            return made
