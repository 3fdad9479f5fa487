"""`python -m fastrtp`: the command line."""

from __future__ import annotations

from fastrtp.cli import main

if __name__ == "__main__":
    main()
