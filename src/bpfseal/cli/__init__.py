"""The command line. Each verb is a thin function over the public API (see docs/cli.md).

Example:
    >>> main(["verify", "--trust", "/nonexistent", "/nonexistent"])
    3
"""

from bpfseal.cli.main import main

__all__ = ["main"]
