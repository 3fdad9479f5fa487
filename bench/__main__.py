"""`python -m bench`: every suite, or some, as one table with baselines and ratios; and tables of results kept as JSON.

python -m bench [SUITE[:CASES] ...] [--quick] [--json FILE] [--markdown]
python -m bench report FILE [--compare OLD] [--markdown] [--threshold X] [--strict]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import (
    CHANGE_HEADINGS,
    HEADINGS,
    THRESHOLD,
    change_lines,
    changes,
    footnote,
    left_out,
    lines,
    markdown,
    show,
)
from bench.results import Document, ResultsError
from bench.suites import measure, titles

_QUICK_SECONDS = "0.06"
_TITLE = "fastrtp benchmarks: best of rounds in turns, ratio = value / baseline"


def run(arguments: Sequence[str], console: Any) -> int:
    """Measure and show; 1 when a case failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    what = f"some of: {', '.join(titles())} (default: all); jit:alu* for some cases of one"
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=what)
    parser.add_argument("--quick", action="store_true", help="short rounds: less than a minute for all suites, and less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows, geometric means and surroundings there too")
    parser.add_argument("--markdown", action="store_true", help="print markdown")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.suites if name.partition(":")[0] not in titles()]
    if unknown:
        parser.error(f"no suite {unknown[0]!r}: there are {', '.join(titles())}")
    if options.quick:
        os.environ["FASTRTP_BENCH_SECONDS"] = _QUICK_SECONDS

    from rich.console import Console

    with Console(stderr=True).status("") as status:
        wanted = options.suites or titles()
        document = measure(wanted, lambda done, total, name: status.update(f"case {done + 1} of {total}, {name}"))
    if options.json:
        document.write(options.json)
    _print(document, console, as_markdown=options.markdown)
    if not document.rows and not document.left_out and not document.failed:
        parser.error(f"no case matches {' '.join(options.suites)}")
    return 1 if document.failed else 0


def report(arguments: Sequence[str], console: Any) -> int:
    """Show kept results, or compare them with older ones; with --strict 1 when something is slower."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description="Show results that --json has written.")
    parser.add_argument("results", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="results of another run: how the ratios have changed")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, metavar="X", help="smaller changes are none (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="with --compare: exit with 1 when a case has become worse")
    parser.add_argument("--markdown", action="store_true", help="print markdown")
    options = parser.parse_args(arguments)
    if options.threshold <= 1:
        parser.error(f"--threshold {options.threshold:g}: a factor above 1")
    try:
        document = Document.read(options.results)
        before = None if options.compare is None else Document.read(options.compare)
    except (OSError, ResultsError) as error:
        parser.error(str(error))
    if before is None:
        _print(document, console, as_markdown=options.markdown)
        return 1 if document.failed else 0
    found = changes(before, document)
    cells = change_lines(found, options.threshold)
    if options.markdown:
        print(markdown(CHANGE_HEADINGS, cells))
    else:
        show(f"{options.results} against {options.compare}", CHANGE_HEADINGS, cells, console)
    worse = [change for change in found if change.factor > options.threshold]
    better = [change for change in found if change.factor < 1 / options.threshold]
    ours, theirs = ({(row.suite, row.name) for row in held.rows} for held in (document, before))
    console.print(
        f"{len(found)} cases in both: {len(worse)} worse, {len(better)} better by {options.threshold:g}x; "
        f"{len(ours - theirs)} new, {len(theirs - ours)} gone",
        highlight=False,
    )
    if before.surroundings.get("cpu") != document.surroundings.get("cpu"):
        console.print("the two runs are of different processors", style="dim")
    return 1 if options.strict and worse else 0


def _print(document: Document, console: Any, *, as_markdown: bool) -> None:
    if as_markdown:
        print(markdown(HEADINGS, lines(document)))
        print(f"\n{footnote(document)}")
        return
    show(_TITLE, HEADINGS, lines(document), console)
    console.print(footnote(document), style="dim", highlight=False, markup=False)
    for line in left_out(document):
        console.print(f"left out: {line}", style="dim", markup=False)
    for line in document.failed:
        console.print(f"failed: {line}", style="red", markup=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    from rich.console import Console

    given = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    return report(given[1:], console) if given[:1] == ["report"] else run(given, console)


if __name__ == "__main__":
    sys.exit(main())
