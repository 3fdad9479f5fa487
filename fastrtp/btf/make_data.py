"""`python -m fastrtp.btf.make_data SRC.btf.zst [--config FILE]`: make what the package ships of a kernel, with its provenance.

SRC is a kernel's BTF, raw or zstd-compressed (`/sys/kernel/btf/vmlinux` will do). It is kept whole: every type and
tracepoint of that kernel, compressed as hard as zstd can. FILE is that kernel's .config (/boot/config-*), of which the lines
that set an option are kept.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import zstandard

from .load import DEFAULT_BTF, DEFAULT_CONFIG, load_btf
from .tracepoints import tracepoints

_PROVENANCE = """# {file}

The BTF (BPF Type Format: every type, function prototype and tracepoint prototype) of one Linux kernel build,
compressed with zstd.

| | |
|---|---|
| kernel | {kernel} |
| content | {types} types, {tracepoints} tracepoints, {size} bytes |
| SHA-256 of the uncompressed BTF | {digest} |
| made with | `python -m fastrtp.btf.make_data SRC`, from a copy of that kernel's BTF section |

BTF is a description of binary layouts: offsets, sizes, names and signatures.

config-6.1.zst has the {options} options that the same kernel was built with: the lines of its package's
/boot/config-6.1.0-56-cloud-amd64 that set one.
"""


def make(source: Path, folder: Path, kernel: str, name: str = DEFAULT_BTF, config: Path | None = None) -> Path:
    """Write `name`, PROVENANCE.md and, with `config`, the options into `folder`; returns the path of the BTF.

    Raises `BtfError` for a bad source.
    """
    btf = load_btf(source)
    btf.check()
    compressor = zstandard.ZstdCompressor(level=22, write_checksum=True)
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    target.write_bytes(compressor.compress(btf.data))
    packed = folder / DEFAULT_CONFIG
    if config is not None:
        lines = [line for line in config.read_text().splitlines() if line.startswith("CONFIG_")]
        packed.write_bytes(compressor.compress("".join(f"{line}\n" for line in lines).encode()))
    options = zstandard.ZstdDecompressor().decompress(packed.read_bytes()).count(b"\n") if packed.exists() else 0
    text = _PROVENANCE.format(
        file=name,
        kernel=kernel,
        types=len(btf) - 1,
        tracepoints=len(tracepoints(btf)),
        size=len(btf.data),
        options=options,
        digest=hashlib.sha256(btf.data).hexdigest(),
    )
    (folder / "PROVENANCE.md").write_text(text)
    return target


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(prog="python -m fastrtp.btf.make_data", description=__doc__)
    parser.add_argument("source", type=Path, help="BTF of a kernel, raw or zstd-compressed")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--config", type=Path, help="that kernel's .config")
    parser.add_argument("--kernel", default="Debian linux-image-6.1.0-56-cloud-amd64, version 6.1.192-2 (amd64)")
    args = parser.parse_args()
    target = make(args.source, args.folder, args.kernel, config=args.config)
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
