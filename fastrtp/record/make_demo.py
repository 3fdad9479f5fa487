"""Make the shipped recording and its truth: `python -m fastrtp.record.make_demo FOLDER`, run in a checkout.

FOLDER holds trace.dat, map_*.hex and pids.txt of one run. Every event is kept; of the 3.6 MB of kallsyms only the symbols
that recorded addresses lie in, so that the file stays small. The maps go beside the tests.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from .demo import demo_recording
from .recording import Recording
from .ring_buffer import read_pages
from .trace_dat import TraceDat
from .trace_dat_options import CPUCOUNT, CPUSTAT, UNAME, VERSION
from .trace_dat_writer import TraceContent, write_v7

_CODE_FIELDS = ("function", "call_site", "ip")
_KEPT_SYMBOLS = (b"vmemmap_base",)
"""Named by print formats."""


def used_symbols(recording: Recording) -> bytes:
    """The lines of kallsyms that recorded code addresses lie in."""
    addresses: set[int] = set()
    for table in recording.tables:
        for name in _CODE_FIELDS:
            if name in table.fields:
                addresses.update(np.unique(table.fields[name].astype(np.uint64)).tolist())
    names = set(_KEPT_SYMBOLS)
    for address in addresses:
        symbol = recording.kallsyms.lookup(address)
        if symbol is not None and address >> 63:
            names.add(symbol.name.encode())
    lines = [line for line in recording.kallsyms_text().splitlines() if line[19:].partition(b"\t")[0] in names]
    return b"\n".join(lines) + b"\n"


def cut_down(path: Path) -> bytes:
    """A trace.dat with the same events as the one at `path` and fewer symbols."""
    trace = TraceDat(path)
    recording = Recording.open(path)
    pages = read_pages(trace, trace.buffers[0])
    cpus = [pages.data[cpu.start : cpu.end].tobytes() for cpu in pages.cpus]
    cmdlines = "".join(f"{pid} {comm}\n" for pid, comm in trace.comms.items())
    printk = "".join(f'{address:#x} : "{text}"\n' for address, text in trace.printk.items())
    records = [(UNAME, trace.options.uname.encode() + b"\0"), (VERSION, trace.options.version.encode() + b"\0")]
    for cpu, stat in trace.options.cpustat.items():
        lines = [f"CPU: {cpu}", *(f"{name}: {value}" for name, value in stat.items())]
        records.append((CPUSTAT, ("\n".join(lines) + "\n").encode() + b"\0"))
    records.append((CPUCOUNT, trace.options.cpu_count.to_bytes(4, "little")))
    content = TraceContent(
        formats=trace.formats, buffers={"": cpus}, kallsyms=used_symbols(recording), printk=printk.encode(),
        cmdlines=cmdlines.encode(), clock=recording.clock, options=records, page_size=trace.buffers[0].page_size,
        long_size=trace.long_size, kernel_long=trace.header_page.commit_size,
    )  # fmt: skip
    return write_v7(content)


def main(argv: list[str]) -> int:
    """Write both; the exit status."""
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    source = Path(argv[1])
    target = demo_recording()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(cut_down(source / "trace.dat"))
    truth = Path(__file__).resolve().parents[2] / "tests" / "data" / "replay" / "churn"
    truth.mkdir(parents=True, exist_ok=True)
    for path in [*sorted(source.glob("map_*.hex")), source / "pids.txt"]:
        shutil.copyfile(path, truth / path.name)
    print(f"{target}: {target.stat().st_size} bytes; truth in {truth}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
