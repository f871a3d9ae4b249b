"""``bpfseal skeleton``: source code that embeds a bundle and loads it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

from bpfseal.bundle.writing import write_files
from bpfseal.cli.console import Console
from bpfseal.cli.inputs import (
    ALL,
    SCHEME_CHOICES,
    STDIO,
    naming,
    read_input,
    shown,
    variants,
)
from bpfseal.cli.options import INPUT_HELP, Options
from bpfseal.cli.outputs import stdio
from bpfseal.cli.streams import write_stdout
from bpfseal.errors import UsageError
from bpfseal.scheme import UNSIGNED

LANGUAGES: Final = ("c", "python")


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("language", choices=LANGUAGES, help="what to write")
    options.argument("input", metavar="IN", help=INPUT_HELP)
    options.add("--scheme", choices=SCHEME_CHOICES, default=ALL, help="variants to embed")
    options.add("-o", "--output", metavar="FILE", help="where to write; stdout if not given")


def run(args: argparse.Namespace, console: Console) -> int:
    """Write the source."""
    from bpfseal.bundle.skeleton_c import c_skeleton
    from bpfseal.bundle.skeleton_python import python_skeleton
    from bpfseal.bundle.variants import loadable_variants

    output = STDIO if args.output is None else stdio(args.output)
    if output == STDIO and console.json:
        raise UsageError("--json needs stdout for itself", hint="-o FILE")
    bundle = read_input(args.input, args.scheme, is_checked_later=True)
    with naming(shown(args.input)):
        asked_for = replace(bundle, variants=variants(bundle, args.scheme))
        embedded = replace(asked_for, variants=loadable_variants(asked_for))
        make = c_skeleton if args.language == "c" else python_skeleton
        source = make(embedded, unsigned=args.scheme == UNSIGNED.name)
    bare = [
        each.loader.scheme_name
        for each in asked_for.variants
        if each.loader.scheme.signed_parts and not each.signatures
    ]
    if bare:
        console.note(f"{shown(args.input)}: left out, as nobody signed it: {', '.join(bare)}")
    if output == STDIO:
        write_stdout(source.encode())
        return 0
    write_files({Path(output): source.encode()})
    schemes = [variant.loader.scheme_name for variant in embedded.variants]
    console.result(
        input=args.input,
        file=output,
        language=args.language,
        name=bundle.name,
        schemes=schemes,
        size=len(source),
    )
    console.say(f"{output}: {bundle.name} in {args.language}, {', '.join(schemes)}")
    return 0
