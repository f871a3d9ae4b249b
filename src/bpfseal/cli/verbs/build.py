"""``bpfseal build``: objects to unsigned bundles."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from bpfseal.cli.batch import Done, Task, run_batch
from bpfseal.cli.console import Console
from bpfseal.cli.inputs import (
    ALL,
    SCHEME_CHOICES,
    add_revision_option,
    build_bundle,
    naming,
    read_argument,
    scheme_names,
    shown,
)
from bpfseal.cli.options import Options
from bpfseal.cli.outputs import add_output_options, destinations, write_output
from bpfseal.cli.target import add_target_options, read_target

if TYPE_CHECKING:
    from bpfseal.object.target import TargetValues


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("inputs", nargs="+", metavar="OBJ", help="object file, - for stdin")
    options.add("--scheme", choices=SCHEME_CHOICES, default=ALL, help="loaders to generate")
    add_revision_option(options)
    options.flag(
        "--trace-loader",
        help="make loaders that print each step to the trace buffer",
        local=True,
    )
    add_target_options(options)
    add_output_options(options)


def run(args: argparse.Namespace, console: Console) -> int:
    """Build each object."""
    scheme_names(args.scheme, args.inline_revision)  # before any work: do they go together?
    outputs = destinations(args.inputs, args.output, unpacked=args.unpacked)
    tasks = [Task(*pair) for pair in zip(args.inputs, outputs, strict=True)]
    work = functools.partial(
        _build,
        scheme=args.scheme,
        revision=args.inline_revision,
        target=read_target(args),
        traces=args.trace_loader,
    )
    return run_batch(work, tasks, console, title="building")


def _build(
    task: Task, scheme: str, revision: str | None, target: TargetValues, *, traces: bool
) -> Done:
    source = shown(task.source)
    with naming(source):
        data = read_argument(task.source)
        name = Path(source).name
        bundle = build_bundle(data, name, scheme, target, revision=revision, traces=traces)
    write_output(bundle, task.target)
    schemes = [variant.loader.scheme_name for variant in bundle.variants]
    return Done(f"unsigned, {', '.join(schemes)}", {"name": bundle.name, "schemes": schemes})
