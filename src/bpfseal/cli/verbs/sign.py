"""``bpfseal sign``: objects and bundles to signed bundles."""

from __future__ import annotations

import argparse
import functools
import os
from typing import TYPE_CHECKING, Final

from bpfseal.cli.batch import Done, Task, run_batch
from bpfseal.cli.console import Console
from bpfseal.cli.credentials import Credentials, add_credential_options, open_credentials
from bpfseal.cli.inputs import (
    ALL,
    add_revision_option,
    naming,
    read_input,
    scheme_names,
    shown,
    variants,
)
from bpfseal.cli.options import INPUT_HELP, Options
from bpfseal.cli.outputs import add_output_options, destinations, write_output
from bpfseal.cli.target import add_target_options, read_target
from bpfseal.errors import UsageError
from bpfseal.scheme import SIGNED_SCHEMES

if TYPE_CHECKING:
    from bpfseal.object.target import TargetValues

HASHES: Final = ("sha256", "sha384", "sha512")


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("inputs", nargs="+", metavar="IN", help=INPUT_HELP)
    add_credential_options(options)
    options.add("--hash", choices=HASHES, default="sha256", help="digest that is signed")
    options.add("--scheme", choices=(*SIGNED_SCHEMES, ALL), default=ALL, help="variants to sign")
    add_revision_option(options)
    options.add(
        "--jobs",
        type=_jobs,
        default=1,
        metavar="N",
        help="processes, 0: one per CPU",
        local=True,
    )
    add_target_options(options)
    add_output_options(options)


def _jobs(text: str) -> int:
    count = int(text)
    if not 0 <= count <= 1024:
        raise argparse.ArgumentTypeError("not a number from 0 to 1024")
    return count or os.cpu_count() or 1


def run(args: argparse.Namespace, console: Console) -> int:
    """Sign each input."""
    scheme_names(args.scheme, args.inline_revision)  # before any work: do they go together?
    outputs = destinations(args.inputs, args.output, unpacked=args.unpacked)
    with open_credentials(args) as credentials:
        certificate = credentials.signer().certificate
        for warning in credentials.warnings:
            console.note(f"warning: {warning}")
        for problem in certificate.problems():
            console.note(f"warning: {certificate.subject}: {problem}")
        console.detail(f"signing as {certificate.subject}, {certificate.key_type}, {args.hash}")
        jobs = args.jobs if credentials.portable else 1
        if jobs < args.jobs:
            console.note("a session with a token belongs to one process: signing without --jobs")
        work = functools.partial(
            _sign,
            credentials=credentials,
            scheme=args.scheme,
            revision=args.inline_revision,
            hash_name=args.hash,
            target=read_target(args),
        )
        tasks = [Task(*pair) for pair in zip(args.inputs, outputs, strict=True)]
        return run_batch(work, tasks, console, title="signing", jobs=jobs)


def _sign(
    task: Task,
    credentials: Credentials,
    scheme: str,
    revision: str | None,
    hash_name: str,
    target: TargetValues,
) -> Done:
    from bpfseal.bundle.sign import sign_bundle
    from bpfseal.signing.cms import named_digest

    signer = credentials.signer()
    with naming(shown(task.source)):
        bundle = read_input(task.source, scheme, target, revision=revision)
        found = [v.loader.scheme_name for v in variants(bundle, scheme, revision)]
        schemes = [name for name in found if name in SIGNED_SCHEMES]
        if not schemes:
            raise UsageError(f"scheme {found[0]} has no signature")
    signed = sign_bundle(bundle, signer, schemes=schemes, hash_name=hash_name)
    write_output(signed, task.target, over=task.source)
    subject = signer.certificate.subject
    return Done(
        f"{', '.join(schemes)} signed by {subject}",
        {
            "name": bundle.name,
            "schemes": schemes,
            "signer": subject,
            "hash": named_digest(signer.algorithm, hash_name),
        },
    )
