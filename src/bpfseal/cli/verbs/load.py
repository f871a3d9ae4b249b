"""``bpfseal load``: run the whole load on a kernel and print its verdict."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bpfseal.bpf.uapi import MapType, ProgType
from bpfseal.cli.console import Console, type_name
from bpfseal.cli.inputs import ALL, read_input, read_trust, variants
from bpfseal.cli.options import Options
from bpfseal.cli.policies import print_records, read_policy, record_fields
from bpfseal.errors import KernelError, UsageError, VerificationError
from bpfseal.scheme import SCHEMES, SIGNED_SCHEMES

if TYPE_CHECKING:
    from bpfseal.bundle.model import SignedLoader
    from bpfseal.kernel.load import LoadedSkeleton
    from bpfseal.kernel.model import ModelKernel
    from bpfseal.kernel.model.ipe import Ipe
    from bpfseal.kernel.model.profile import Profile
    from bpfseal.signing.certificate import Certificate

AUTO: Final = "auto"
MODEL: Final = "model"
KEYRINGS: Final = {"builtin": 0, "secondary": 1, "platform": 2, "session": -3, "user": -4}
"""``keyring_id`` by name (include/linux/verification.h, include/uapi/linux/keyctl.h)."""

_HINTS: Final = {
    ("prog_load", "ENOKEY"): "put the signer's certificate into the keyring: --certificate FILE",
    ("prog_load", "EKEYREVOKED"): "the key or its keyring is revoked: sign with another key",
    ("prog_load", "ENOPKG"): "the kernel lacks the digest or algorithm: sign with RSA and sha256",
    ("prog_load", "EKEYREJECTED"): "what was signed is not what is loaded: bpfseal verify",
    ("prog_load", "EBADMSG"): "the signature is no CMS message that kernels read: bpfseal inspect",
    ("prog_run", "EBADMSG"): "the metadata was changed after signing: build and sign again",
}
"""What to do about a refusal, by step and errno."""


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("input", metavar="IN", help="object or bundle, - for stdin")
    options.add(
        "--kernel", default=MODEL, metavar="model[:PROFILE]", help="the kernel to load into"
    )
    options.add("--scheme", choices=(AUTO, *SCHEMES), default=AUTO, help="the variant to load")
    options.add(
        "--certificate",
        metavar="FILE",
        repeatable=True,
        help="put this into the keyring; may be given again",
    )
    options.add(
        "--keyring",
        default="session",
        metavar="NAME|SERIAL",
        help=f"keyring of the signature: {', '.join(KEYRINGS)}, or a serial",
    )
    options.add("--btf", metavar="FILE", help="BTF of the kernel, as in /sys/kernel/btf/vmlinux")
    options.add("--policy", metavar="FILE", help="IPE policy that is active")
    options.flag("--permissive", help="a denial by the policy is logged only")
    options.flag("--success-audit", help="what the policy allows is logged, too")
    options.flag("--no-metadata-check", help="run the loader even if its metadata was changed")
    options.flag("--trace", help="print every call to the kernel")


def run(args: argparse.Namespace, console: Console) -> int:
    """Load one variant into the model."""
    from bpfseal.kernel.load import load
    from bpfseal.kernel.model import ModelKernel, choose_kernel_btf

    profile = _profile(args.kernel)
    keyring_id = _keyring_id(args.keyring)
    ipe = _ipe(args)
    trusted = read_trust(args.certificate or ()).certificates
    scheme = _scheme_for(profile) if args.scheme == AUTO else args.scheme
    bundle = read_input(args.input, scheme)
    have = [variant.loader.scheme_name for variant in variants(bundle, ALL)]
    if args.scheme == AUTO and scheme not in have:
        scheme = have[0]  # the kernel says what it thinks of it
    variant = bundle.variant(scheme)
    btf = choose_kernel_btf(Path(args.btf) if args.btf is not None else None)
    kernel = ModelKernel(profile=profile, kernel_btf=btf, hooks=[ipe] if ipe else ())
    for certificate in trusted:
        try:
            kernel.keyrings.add_key(keyring_id, certificate.der)
        except KernelError as refused:
            refused.step = refused.where = "add_key"
            raise
    console.detail(kernel.description)

    loaded, error = None, None
    try:
        loaded = load(
            kernel,
            variant,
            signature=_signature(variant, trusted),
            keyring_id=keyring_id,
            check_metadata=not args.no_metadata_check,
        )
    except (KernelError, VerificationError) as refused:
        error = refused
    if ipe is not None and isinstance(error, KernelError):
        _explain_denial(error, ipe)
    document = _outcome(kernel, variant, loaded, error)
    if ipe is not None:
        document["audit"] = record_fields(ipe.records)
    if args.trace:
        document["trace"] = [
            {
                "by": call.by,
                "call": call.name,
                "arguments": call.arguments,
                "result": call.result,
                "rule": call.rule,
            }
            for call in kernel.trace
        ]
    console.result(input=args.input, **document)
    _print(document, console)
    if ipe is not None:
        print_records(ipe.records, console)
    return 0 if error is None else error.exit_status


def _profile(kernel: str) -> Profile:
    from bpfseal.kernel.model.profile import KFUNC_SERIES, PROFILES

    name, _, profile = kernel.partition(":")
    if name != MODEL or profile not in ("", *PROFILES):
        raise UsageError(
            f"no kernel {kernel!r}",
            hint=f"{MODEL}, or {MODEL}:PROFILE with one of {', '.join(PROFILES)}",
        )
    return PROFILES[profile] if profile else KFUNC_SERIES


def _ipe(args: argparse.Namespace) -> Ipe | None:
    """Return IPE with the policy that was asked for."""
    if args.policy is not None:
        from bpfseal.kernel.model.ipe import Ipe

        policy = read_policy(args.policy)
        return Ipe.booted(policy, enforce=not args.permissive, success_audit=args.success_audit)
    for name in ("permissive", "success_audit"):
        if getattr(args, name):
            raise UsageError(f"--{name.replace('_', '-')} without a policy", hint="--policy FILE")
    return None


def _explain_denial(error: KernelError, ipe: Ipe) -> None:
    """Say which rule denied, if it was the policy that refused."""
    from bpfseal.kernel.model.ipe.policy import ALLOW_INNER_LOADS

    if not ipe.questions or ipe.questions[-1].answer != -error.errno:
        return
    last = ipe.questions[-1]
    event, decision = last.event, last.decision
    line = f", line {decision.rule.line}" if decision.rule else ""
    error.message = (
        f"the policy denies {last.program} at {event.operation.value} with {event}: "
        f"{decision}{line}"
    )
    if event.is_kernel:
        error.hint = "allow what loaders install before that: " + ALLOW_INNER_LOADS


def _keyring_id(keyring: str) -> int:
    if keyring in KEYRINGS:
        return KEYRINGS[keyring]
    try:
        number = int(keyring, 0)
    except ValueError:
        number = 1 << 31
    if not -(1 << 31) <= number < 1 << 31:
        raise UsageError(f"no keyring {keyring!r}", hint=f"{', '.join(KEYRINGS)}, or a serial")
    return number


def _scheme_for(profile: Profile) -> str:
    """Return the scheme that a kernel takes; for one that takes none, any will be refused."""
    from bpfseal.kernel.model.schemes import scheme_for

    best = scheme_for(profile)
    return best.name if best is not None else SIGNED_SCHEMES[0]


def _signature(variant: SignedLoader, trusted: Sequence[Certificate]) -> int:
    """Return the number of the first signature by a trusted certificate, or 0."""
    from bpfseal.bundle.sign import payload_of
    from bpfseal.signing.verify import verify_signature

    for number, signature in enumerate(variant.signatures):
        try:
            verify_signature(signature.cms, payload_of(variant.loader), trusted)
        except VerificationError:
            continue
        return number
    return 0


def _outcome(
    kernel: ModelKernel,
    variant: SignedLoader,
    loaded: LoadedSkeleton | None,
    error: KernelError | VerificationError | None,
) -> dict[str, Any]:
    """Return what became of the load, as JSON values."""
    loader = variant.loader
    document: dict[str, Any] = {
        "name": loader.name,
        "scheme": loader.scheme_name,
        "signed": bool(variant.signatures),
        "kernel": kernel.description,
        "allowed": error is None,
        "assumed": [*kernel.btf.assumed, *(f"symbol {name}" for name in kernel.symbols.assumed)],
        "printed": list(kernel.printed),
    }
    if error is not None:
        document["refusal"] = _refusal(variant, error, kernel.profile)
    if loaded is not None:
        document["verdict"] = kernel.programs[0].verdict.name
        document["programs"] = [
            {"name": name, "fd": fd, "type_name": type_name(ProgType, kernel.program(fd).type)}
            for name, fd in loaded.prog_fds.items()
        ]
        document["maps"] = [
            {
                "ident": ident,
                "fd": fd,
                "name": facts.name,
                "type_name": type_name(MapType, facts.type),
                "max_entries": facts.max_entries,
                "frozen": facts.frozen,
            }
            for ident, fd in loaded.map_fds.items()
            for facts in (kernel.map(fd),)
        ]
    return document


def _refusal(
    variant: SignedLoader, error: KernelError | VerificationError, profile: Profile
) -> dict[str, str]:
    if not isinstance(error, KernelError):  # what the load itself checks
        return {
            "step": "before the load",
            "errno": "",
            "message": error.message,
            "rule": "",
            "hint": error.hint or "--no-metadata-check asks the kernel all the same",
        }
    hint = error.hint or _hint(variant, error, profile)
    return {
        "step": error.step,
        "errno": error.errno_name,
        "message": error.message,
        "rule": error.rule,
        "hint": hint,
    }


def _hint(variant: SignedLoader, error: KernelError, profile: Profile) -> str:
    """Return what to do about a refusal."""
    from bpfseal.kernel.model.schemes import expected_verdict, scheme_for

    if not variant.signatures:
        return "the loader is not signed: bpfseal sign"
    wrong = expected_verdict(variant.loader.scheme, profile)
    if wrong is not None and (wrong.step, wrong.errno) == (error.step, error.errno):
        best = scheme_for(profile)
        takes = f"--scheme {best.name}" if best is not None else "no signed loaders"
        return f"{wrong.reason}; it takes {takes}"
    return _HINTS.get((error.step, error.errno_name), "")


def _print(document: dict[str, Any], console: Console) -> None:
    for call in document.get("trace", ()):
        rule = f"  [{call['rule']}]" if call["rule"] else ""
        console.say(f"  {call['by']}: {call['call']}({call['arguments']}) = {call['result']}{rule}")
    title = f"{document['name']} ({document['scheme']})"
    if refusal := document.get("refusal"):
        errno = f"-{refusal['errno']}: " if refusal["errno"] else ""
        console.verdict(
            f"{title}: REFUSED, {refusal['step']}: {errno}{refusal['message']}", good=False
        )
        for key in ("rule", "hint"):
            if refusal[key] not in ("", refusal["message"]):
                console.say(f"  {key}: {refusal[key]}")
    else:
        console.verdict(f"{title}: loaded, verdict {document['verdict']}", good=True)
        console.table(
            ("program", "type", "fd"),
            [
                (program["name"], program["type_name"], str(program["fd"]))
                for program in document["programs"]
            ],
        )
        if document["maps"]:
            console.table(
                ("map", "type", "entries", "frozen", "fd"),
                [
                    (
                        entry["ident"],
                        entry["type_name"],
                        str(entry["max_entries"]),
                        "yes" if entry["frozen"] else "",
                        str(entry["fd"]),
                    )
                    for entry in document["maps"]
                ],
            )
    if document["assumed"]:
        console.say(f"  assumed to exist: {', '.join(document['assumed'])}")
    console.say(f"  kernel: {document['kernel']}")
