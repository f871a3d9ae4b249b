"""``bpfseal probe``: what this machine and its kernel are like."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from bpfseal.cli.console import Console
from bpfseal.cli.inputs import naming, read_argument, shown
from bpfseal.cli.options import Options
from bpfseal.errors import UsageError

SUMMARY: Final = "print the values of this machine that an artifact could depend on"


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument(
        "inputs", nargs="*", metavar="OBJ", help="objects whose externs are to be looked up"
    )
    options.flag(
        "--host-values", help="print the values that the reference generator bakes in, as JSON"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Print the values as the JSON that ``build --as-built-on`` reads."""
    from bpfseal.kernel.linux.host_values import host_values
    from bpfseal.object.model import ExternKind
    from bpfseal.object.reader import read_externs

    if not args.host_values:
        raise UsageError("nothing to probe for", hint="--host-values")
    symbols: set[str] = set()
    options: set[str] = set()
    for path in args.inputs:
        with naming(shown(path)):
            for extern in read_externs(read_argument(path), Path(shown(path)).name):
                if extern.is_typeless:
                    symbols.add(extern.name)
                elif extern.kind is ExternKind.KCONFIG:
                    options.add(extern.name)
    values = host_values(symbols, options if args.inputs else None)
    if console.json:
        console.result(host_values=json.loads(values.to_json()))
    else:
        sys.stdout.write(values.to_json().decode())
    return 0
