"""Where the time of an event goes, by subtraction: loops that do one thing more each, measured in turn.

    loop        the loop that makes three arguments, for nobody
    key         with the tracepoint's static key in it, nothing attached
    transition  with an empty program attached, less the call of the program itself: probes, casts, guard, run count
    program     the program, called directly by the same loop

and of a replayed event:

    events      the recording with nothing attached: reading events, keeping tasks up to date
    transition  an empty program on each of the object's tracepoints: making arguments, and the way to the program
    programs    the object's programs instead

A processor does several things at once, so that the parts of an event that is measured as a whole overlap: what they add up
to more than the whole is reported as the layer "overlap".
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import ClassVar

from bench import loops
from bench.cases import Case, Results, Suite
from bench.direct import Direct
from bench.machine import Machine
from bench.measure import Loop, best_ns, budget, times
from bench.recording import Player

PROGRAMS = ("empty", "global_count", "array_count", "hash_count", "hash_update", "ringbuf_discard")
EVENT_LAYERS = ("loop", "key", "transition", "program")
REPLAY_LAYERS = ("events", "transition", "programs")
TIERS = ("linked", "fused")
REPLAYED = "syscount"

Layers = dict[str, float]
"""ns by layer, "whole" and "overlap" among them."""


@functools.cache
def of_events() -> dict[str, Layers]:
    """By program: the layers of an event that is fired at its tracepoint."""
    idle = Machine()
    found: dict[str, float] = {}
    with ExitStack() as stack:
        contenders: dict[str, Loop] = {
            "bare": lambda n: loops.bare(n, 1024),
            "disabled": lambda n: idle.fire(n, 1024),
        }
        for name in PROGRAMS:
            here = Machine()
            stack.callback(here.kernel.shutdown)
            stack.enter_context(here.attached([name]))
            contenders[f"linked {name}"] = functools.partial(here.fire, keys=1024)
            contenders[f"direct {name}"] = Direct(here, name).run
        found = best_ns(contenders, budget() * len(PROGRAMS))
    idle.kernel.shutdown()
    bare, disabled = found["bare"], found["disabled"]
    transition = found["linked empty"] - disabled - (found["direct empty"] - bare)
    return {
        name: _with_overlap(
            found[f"linked {name}"], (bare, disabled - bare, transition, found[f"direct {name}"] - bare), EVENT_LAYERS
        )
        for name in PROGRAMS
    }


@functools.cache
def of_replay() -> dict[str, Layers]:
    """By tier: the layers of a replayed event, over all events of the recording."""
    whole = {tier: Player([REPLAYED], tier=tier) for tier in TIERS}
    places = sorted({link.tp_name for links in whole["linked"].links for link in links})
    players = {f"{tier} whole": player for tier, player in whole.items()}
    players |= {f"{tier} nothing": Player(tier=tier) for tier in TIERS}
    players |= {f"{tier} empty": Player(empty_at=places, tier=tier) for tier in TIERS}
    best = best_ns({name: times(player.play) for name, player in players.items()}, budget() * len(players))
    each = {name: value / players[name].events for name, value in best.items()}
    return {
        tier: _with_overlap(
            each[f"{tier} whole"],
            _steps(each[f"{tier} nothing"], each[f"{tier} empty"], each[f"{tier} whole"]),
            REPLAY_LAYERS,
        )
        for tier in TIERS
    }


def _steps(*wholes: float) -> tuple[float, ...]:
    return tuple(whole - before for whole, before in zip(wholes, (0.0, *wholes), strict=False))


def _with_overlap(whole: float, parts: Sequence[float], names: Sequence[str]) -> Layers:
    shown = [max(part, 0.0) for part in parts]
    return dict(zip(names, shown, strict=True)) | {"whole": whole, "overlap": max(sum(shown) - whole, 0.0)}


def _event_layer(name: str, layer: str) -> tuple[float, float]:
    found = of_events()[name]
    return found[layer], found["whole"]


def _replay_layer(tier: str, layer: str) -> tuple[float, float]:
    found = of_replay()[tier]
    return found[layer], found["whole"]


class LayersOfAnEvent(Suite):
    """ns of each layer, beside those of the whole event."""

    title = "layers"
    params: ClassVar[Sequence[str]] = (
        *EVENT_LAYERS[:-1],
        *PROGRAMS,
        *(f"{REPLAYED}_{tier}:{layer}" for tier in TIERS for layer in REPLAY_LAYERS),
    )

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """What every event passes, then what programs add to it; layers of a replayed event, by tier."""
        for layer in EVENT_LAYERS[:-1]:
            yield Case(layer, "ns", "event, empty program", functools.partial(_event_layer, "empty", layer))
        for name in PROGRAMS:
            yield Case(name, "ns", "event with it", functools.partial(_event_layer, name, "program"))
        for tier in TIERS:
            for layer in REPLAY_LAYERS:
                yield Case(f"{REPLAYED}_{tier}:{layer}", "ns", "replayed event", functools.partial(_replay_layer, tier, layer))

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_ns(self, results: Results, name: str) -> float:
        """Nanoseconds of the layer."""
        return self.value

    track_ns.unit = "ns"  # type: ignore[attr-defined]
