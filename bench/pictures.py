"""Pictures of results, for notebooks/ablations.ipynb: ratios as bars, layers of an event, scaling over CPUs. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.cases import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BETTER, _WORSE, _GREY = "#2b7a78", "#b5483a", "#9a9a9a"
_FLAME = ("#f7dc9c", "#f5c26b", "#f0a35e", "#e07b53", "#c0504d")
_LAYER_COLOURS = ("#cfd8dc", "#90a4ae", "#f0a35e", "#c0504d")


def ratios(axes: Axes, rows: Sequence[Row], *, title: str = "", worse_above: bool = True) -> None:
    """A bar from 1 to each row's ratio, on a logarithmic scale, the first row on top. `worse_above`: above 1 is the bad side."""
    found = [(row.name, row.ratio) for row in rows if row.ratio]
    places = range(len(found), 0, -1)
    values = [ratio for _, ratio in found]
    colours = [_GREY if 0.97 < ratio < 1.03 else _WORSE if (ratio > 1) == worse_above else _BETTER for ratio in values]
    axes.barh(list(places), [ratio - 1 for ratio in values], left=1, color=colours, height=0.7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    low, high = min([*values, 0.95]), max([*values, 1.05])
    axes.set_xlim(low / 1.25, high * 1.35)
    ticks = [tick for tick in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 8, 12) if low / 1.25 <= tick <= high * 1.35]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(list(places), [name for name, _ in found])
    for place, ratio in zip(places, values, strict=True):
        beyond = max(ratio, 1)
        axes.annotate(f"{ratio:.2f}", (beyond, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_ylim(0.3, len(found) + 0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, loc="left")


def layers(axes: Axes, found: Mapping[str, Mapping[str, float]], names: Sequence[str], *, title: str = "") -> None:
    """One bar an event, made of its layers in ns from the outermost to the program; a mark where the whole was measured."""
    places = list(range(len(found), 0, -1))
    starts = [0.0] * len(found)
    for layer, colour in zip(names, _LAYER_COLOURS[-len(names) :] if len(names) < 4 else _LAYER_COLOURS, strict=True):
        widths = [each[layer] for each in found.values()]
        axes.barh(places, widths, left=starts, color=colour, height=0.62, label=layer, edgecolor="white", linewidth=0.8)
        most = max(each["whole"] for each in found.values())
        for place, start, width in zip(places, starts, widths, strict=True):
            if width > most * 0.05:
                axes.text(start + width / 2, place, f"{width:.1f}", ha="center", va="center", fontsize=8)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    wholes = [each["whole"] for each in found.values()]
    axes.plot(wholes, places, "k|", markersize=22)
    axes.plot([], [], "k|", markersize=9, label="whole, measured")
    axes.set_yticks(places, list(found))
    axes.set_xlabel("ns per event")
    axes.set_xlim(0, max(*wholes, *starts) * 1.04)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, loc="left", pad=26)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(names) + 1, frameon=False, fontsize=8, borderpad=0)


def flame(axes: Axes, found: Mapping[str, float], empty: Mapping[str, float], *, name: str) -> None:
    """One event as a flame graph: what is called lies on its caller, as wide as it takes
    long; what is left bare is the caller's own.

    `found`: layers of an event with the program `name`; `empty`: of one with an empty program.
    """
    call = min(empty["program"], found["program"])
    trace = found["key"] + found["transition"] + found["program"]
    event = found["loop"] + trace
    program = event - found["program"]
    frames = [  # (depth, start, width, text)
        (0, 0.0, event, f"the loop: {event:.1f} ns, {found['loop']:.1f} of them its own"),
        (1, found["loop"], trace, f"trace_bench_event: {trace:.1f}; its static key {found['key']:.1f}"),
        (2, found["loop"] + found["key"], trace - found["key"], f"probes, bpf_trace_run3: {found['transition']:.1f} their own"),
        (3, program, found["program"], f"{name}: {found['program']:.1f}"),
        (4, program + call, found["program"] - call, f"map: {found['program'] - call:.1f}"),
    ]
    for depth, start, width, text in frames:
        axes.barh(depth, width, left=start, height=0.94, color=_FLAME[depth], edgecolor="white", linewidth=1)
        axes.text(start + event / 200, depth, text, ha="left", va="center", fontsize=8, clip_on=True)
    axes.set_xlim(0, event)
    axes.set_xlabel("ns")
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(f"{name}, linked tier", loc="left")


def scaling(axes: Axes, rows: Sequence[Row], *, title: str = "") -> None:
    """How many times as fast as one thread two are, a bar for each row of the scaling suite."""
    found = [(row.name, 1 / row.ratio) for row in rows if row.ratio]
    places = list(range(len(found), 0, -1))
    axes.barh(places, [speed for _, speed in found], color=[_GREY if name.startswith("native") else _BETTER for name, _ in found])
    for mark in (1, 2):
        axes.axvline(mark, color="black", linewidth=0.8, linestyle=":")
    for place, (_, speed) in zip(places, found, strict=True):
        axes.annotate(f"{speed:.2f}", (speed, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [name for name, _ in found])
    axes.set_xlabel("rate of two threads / of one")
    axes.set_xlim(0, max([2.0, *(speed for _, speed in found)]) * 1.1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, loc="left")
