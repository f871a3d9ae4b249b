"""``bpfseal verify``: is it signed, by a trusted key, over everything that it must cover."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bpfseal.cli.console import Console, error_fields
from bpfseal.cli.inputs import ALL, SCHEME_CHOICES, naming, read_input, read_trust, shown, variants
from bpfseal.cli.options import INPUT_HELP, Options
from bpfseal.errors import BpfsealError, UsageError, VerificationError, errno_name
from bpfseal.release import RELEASES, Release

if TYPE_CHECKING:
    from bpfseal.bundle.admission import Admission
    from bpfseal.bundle.model import SignedLoader
    from bpfseal.bundle.verify import LoaderVerification
    from bpfseal.signing.certificate import Certificate


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("inputs", nargs="+", metavar="IN", help=INPUT_HELP)
    options.add(
        "--certificate", metavar="FILE", repeatable=True, help="trust this; may be given again"
    )
    options.add(
        "--trust",
        metavar="DIR",
        repeatable=True,
        help="trust the certificates in this directory; may be given again",
    )
    options.add("--scheme", choices=SCHEME_CHOICES, default=ALL, help="variants to verify")
    options.add(
        "--kernel",
        choices=tuple(RELEASES),
        repeatable=True,
        help="some variant must load on this kernel; other kernels, and variants that are not "
        "signed, do not matter; may be given again",
    )
    options.flag("--strict", help="a warning is a failure", local=True)
    options.together("--certificate", "--trust")


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of every variant."""

    trusted: Sequence[Certificate]
    releases: tuple[Release, ...] | None
    strict: bool
    now: datetime
    enclosed: tuple[bytes, ...] = ()


def run(args: argparse.Namespace, console: Console) -> int:
    """Verify each input; the worst status counts."""
    if not args.certificate and not args.trust:
        raise UsageError("nobody is trusted", hint="--certificate FILE or --trust DIR")
    store = read_trust(args.certificate or (), args.trust or ())
    for warning in store.warnings:
        console.note(f"warning: {warning}")
    question = _Question(
        trusted=store.certificates,
        releases=tuple(RELEASES[name] for name in args.kernel) if args.kernel else None,
        strict=args.strict,
        now=datetime.now(UTC),
    )
    return max(_verify_input(path, args.scheme, question, console) for path in args.inputs)


def _verify_input(path: str, scheme: str, question: _Question, console: Console) -> int:
    from bpfseal.bundle.variants import check_name

    try:
        with naming(shown(path)):
            bundle = read_input(path, scheme, is_checked_later=True)
            check_name(bundle)
            found = variants(bundle, scheme)
    except BpfsealError as error:
        console.complain(error)
        console.result(input=path, verified=False, error=error_fields(error))
        return error.exit_status
    enclosed = [each.certificate for variant in bundle.variants for each in variant.signatures]
    question = replace(question, enclosed=tuple(enclosed))
    status = 0
    loadable: set[str] = set()
    for variant in found:
        if question.releases is not None and not variant.signatures:
            _pass_over(path, variant, console)
            continue
        try:
            verification = _verify_variant(path, variant, question, console)
        except BpfsealError as error:
            status = max(status, error.exit_status)
        else:
            loadable |= {each.release.name for each in verification.admissions if each.checked_by}
    missing = [each.name for each in question.releases or () if each.name not in loadable]
    if missing and not status:
        status = _refuse_input(path, missing, console)
    return status


def _pass_over(path: str, variant: SignedLoader, console: Console) -> None:
    """Name a variant that nobody signed: no load takes it for one that loads on a kernel."""
    scheme_name = variant.loader.scheme_name
    console.say(f"{path}: {scheme_name}: not signed, so it is not asked about")
    error = VerificationError("not signed", hint="sign it with: bpfseal sign")
    console.result(input=path, scheme=scheme_name, verified=False, error=error_fields(error))


def _refuse_input(path: str, missing: Sequence[str], console: Console) -> int:
    """Say that there are kernels, which were asked for, that load no variant."""
    error = VerificationError(f"no variant of it loads on {', '.join(missing)}")
    console.verdict(f"{path}: NOT VERIFIED: {error}", good=False)
    console.result(input=path, verified=False, error=error_fields(error))
    return error.exit_status


def _verify_variant(
    path: str, variant: SignedLoader, question: _Question, console: Console
) -> LoaderVerification:
    """Verify one variant and print what was found.

    Raises:
        BpfsealError: it does not verify; that is printed already.
    """
    from bpfseal.bundle.downgrade import DowngradeTrapError
    from bpfseal.bundle.verify import verify_loader

    scheme_name = variant.loader.scheme_name
    label = f"{path}: {scheme_name}"
    document: dict[str, Any] = {"input": path, "scheme": scheme_name, "verified": False}
    try:
        verification = verify_loader(
            variant,
            question.trusted,
            releases=question.releases,
            at=question.now,
            enclosed=question.enclosed,
        )
        warnings = _warnings(verification)
        document |= _document(variant, verification, warnings)
        if question.strict and warnings:
            document["verified"] = False
            raise VerificationError(f"--strict: {warnings[0]}")
    except BpfsealError as error:
        console.verdict(f"{label}: NOT VERIFIED: {error}", good=False)
        if isinstance(error, DowngradeTrapError):
            document["covers"] = list(error.payload)
            document["kernels"] = [_kernel_fields(each) for each in error.admissions]
            _kernel_table(error.admissions, console)
        console.result(**document, error=error_fields(error))
        raise
    signers = ", ".join(found.certificate.subject for found in verification.signatures)
    console.verdict(f"{label}: verified, signed by {signers}", good=True)
    for warning in warnings:
        console.note(f"{label}: warning: {warning}")
    for entry in verification.not_covered:
        console.note(
            f"{label}: not covered by the signature: "
            f"the attach point of program {entry.name} says {entry.section or 'nothing'}"
        )
    if console.verbose:
        _details(document, verification, console)
    console.result(**document)
    return verification


def _warnings(verification: LoaderVerification) -> list[str]:
    """Return everything that a kernel would not mind, and a careful person may."""
    warnings = list(verification.warnings)
    for found in verification.signatures:
        warnings += found.notes
        subject = found.certificate.subject
        warnings += [f"certificate {subject}: {problem}" for problem in found.problems]
    warnings += [f"another signature does not verify: {text}" for text in verification.failures]
    return warnings


def _document(
    variant: SignedLoader, verification: LoaderVerification, warnings: Sequence[str]
) -> dict[str, Any]:
    loader = variant.loader
    sizes = {"insns": len(loader.insns), "btf": len(loader.btf), "metadata": len(loader.metadata)}
    return {
        "verified": True,
        "covers": {part: sizes[part] for part in verification.payload},
        "signers": [
            {
                "subject": found.certificate.subject,
                "fingerprint": found.certificate.fingerprint,
                "found_by": found.found_by,
                "key_type": found.certificate.key_type,
                "digest": found.digest,
                "signature_size": found.size,
                "notes": list(found.notes),
                "certificate_problems": list(found.problems),
            }
            for found in verification.signatures
        ],
        "warnings": list(warnings),
        "not_covered": [
            {"program": entry.name, "attach_point": entry.section}
            for entry in verification.not_covered
        ],
        "kernels": [_kernel_fields(each) for each in verification.admissions],
    }


def _details(document: dict[str, Any], verification: LoaderVerification, console: Console) -> None:
    covered = ", ".join(f"{part} ({size} bytes)" for part, size in document["covers"].items())
    console.say(f"  the signature covers {covered}")
    for signer in document["signers"]:
        console.say(
            f"  {signer['subject']}: {signer['key_type']}, {signer['digest']}, "
            f"found by {signer['found_by']}, {signer['signature_size']} bytes"
        )
    _kernel_table(verification.admissions, console)


def _kernel_fields(found: Admission) -> dict[str, Any]:
    return {
        "kernel": found.release.name,
        "loads": found.loads,
        "metadata_checked_by": found.checked_by,
        "errno": errno_name(found.errno) if found.errno else None,
        "reason": found.reason,
    }


def _kernel_table(admissions: Sequence[Admission], console: Console) -> None:
    rows = [
        (each.release.name, each.loads, each.checked_by or "", each.text) for each in admissions
    ]
    console.table(("kernel", "loads", "metadata checked by", "why"), rows)
