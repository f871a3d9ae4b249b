"""Options that say what an object wants to know of the machines that load it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bpfseal.cli.inputs import naming, read_argument
from bpfseal.cli.options import Options

if TYPE_CHECKING:
    from bpfseal.object.target import TargetValues

_LIMIT: Final = 16 << 20


def add_target_options(options: Options) -> None:
    """Declare the options."""
    options.add(
        "--page-size", type=int, metavar="BYTES", help="page size (default: 4096)", local=True
    )
    options.add(
        "--possible-cpus",
        type=int,
        metavar="N",
        help="entries of a perf event array that gives no number (default: 8192)",
        local=True,
    )
    options.add(
        "--kernel-version",
        metavar="A.B.C",
        help="LINUX_KERNEL_VERSION (default: 6.18.0)",
        local=True,
    )
    options.add("--kconfig", metavar="FILE", help=".config file with the values of CONFIG_ externs")
    options.add(
        "--as-built-on",
        metavar="FILE",
        help="take these from what the verb probe wrote on a build host",
    )


def read_target(args: argparse.Namespace) -> TargetValues:
    """Return the values that the options give.

    Raises:
        InputError: a file cannot be read, or a value that no machine has.
    """
    from bpfseal.object.target import (
        DEFAULT_TARGET,
        TargetValues,
        kernel_version,
        parse_kconfig,
    )

    values = DEFAULT_TARGET
    if args.as_built_on is not None:
        values = TargetValues.from_json(
            read_argument(args.as_built_on, limit=_LIMIT), args.as_built_on
        )
    changes: dict[str, Any] = {}
    if args.page_size is not None:
        changes["page_size"] = args.page_size
    if args.possible_cpus is not None:
        changes["possible_cpus"] = args.possible_cpus
    if args.kernel_version is not None:
        changes["kernel_version"] = kernel_version(args.kernel_version)
    if args.kconfig is not None:
        with naming(args.kconfig):
            text = read_argument(args.kconfig, limit=_LIMIT).decode("utf-8", "replace")
            changes["kconfig"] = parse_kconfig(text)
    return replace(values, **changes)
