"""``bpfseal probe``: what this machine and its kernel can do."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Final

from bpfseal.cli.console import Console
from bpfseal.cli.inputs import naming, read_argument, shown
from bpfseal.cli.options import Options
from bpfseal.cli.streams import write_stdout
from bpfseal.errors import UsageError

_WORDS: Final = {True: "yes", False: "no", None: "unknown"}


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument(
        "inputs", nargs="*", metavar="OBJ", help="objects whose externs are to be looked up"
    )
    options.flag(
        "--host-values", help="print the values that the reference generator bakes in, as JSON"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Print the kernel's features, or the values for ``build --as-built-on``."""
    if args.host_values:
        return _print_host_values(args.inputs, console)
    if args.inputs:
        raise UsageError("objects are looked at only with --host-values")
    return _print_features(console)


def _print_features(console: Console) -> int:
    from bpfseal.kernel.linux.features import running_features
    from bpfseal.kernel.linux.kernel import LinuxKernel
    from bpfseal.kernel.linux.trial import verifies_signatures

    kernel = LinuxKernel()
    features = running_features()
    findings = {"verification": verifies_signatures(kernel)}
    findings |= {field.name: getattr(features, field.name) for field in fields(features)}
    verifies = findings["verification"].answer
    scheme = features.scheme() if verifies is not False else None
    loads = False if scheme is None else verifies
    console.result(
        kernel=kernel.description,
        scheme=scheme,
        loads=_WORDS[loads],
        findings={
            name: {"answer": _WORDS[finding.answer], "reason": finding.reason}
            for name, finding in findings.items()
        },
    )
    console.say(kernel.description)
    console.table(
        ("feature", "there", "because"),
        [
            (name.replace("_", " "), _WORDS[finding.answer], finding.reason)
            for name, finding in findings.items()
        ],
    )
    verdicts = {
        True: f"signed loaders of scheme {scheme} load here",
        False: "no signed loader loads here with its metadata checked",
        None: f"signed loaders of scheme {scheme} load here if the kernel verifies signatures, "
        "which only a process finds out that may load programs",
    }
    console.verdict(verdicts[loads], good=loads is True)
    return 0


def _print_host_values(inputs: list[str], console: Console) -> int:
    from bpfseal.kernel.linux.host_values import host_values
    from bpfseal.object.model import ExternKind
    from bpfseal.object.reader import read_externs

    symbols: set[str] = set()
    options: set[str] = set()
    for path in inputs:
        with naming(shown(path)):
            for extern in read_externs(read_argument(path), Path(shown(path)).name):
                if extern.is_typeless:
                    symbols.add(extern.name)
                elif extern.kind is ExternKind.KCONFIG:
                    options.add(extern.name)
    values = host_values(symbols, options if inputs else None)
    if console.json:
        console.result(host_values=json.loads(values.to_json()))
    else:
        write_stdout(values.to_json())
    return 0
