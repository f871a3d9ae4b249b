"""``bpfseal inspect``: what is inside an object or a bundle. Nothing is verified."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bpf.uapi import MapType, ProgType
from bpfseal.cli.console import Console, type_name
from bpfseal.cli.inputs import ALL, SCHEME_CHOICES, read_input, variants
from bpfseal.cli.options import INPUT_HELP, Options
from bpfseal.errors import BpfsealError

if TYPE_CHECKING:
    from bpfseal.bundle.model import Signature, SignedLoader
    from bpfseal.loader.model import Loader


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("input", metavar="IN", help=INPUT_HELP)
    options.add("--scheme", choices=SCHEME_CHOICES, default=ALL, help="variants to show")


def run(args: argparse.Namespace, console: Console) -> int:
    """Show each variant, and programs and maps once if they are the same in all."""
    bundle = read_input(args.input, args.scheme)
    shown = None
    for variant in variants(bundle, args.scheme):
        document = describe(variant)
        console.result(input=args.input, **document)
        _print_loader(document, console)
        if shown != (variant.loader.programs, variant.loader.maps):
            shown = (variant.loader.programs, variant.loader.maps)
            _print_entries(document, console)
    return 0


def describe(variant: SignedLoader) -> dict[str, Any]:
    """Return what is known of a variant, as JSON values."""
    loader = variant.loader
    return {
        "name": loader.name,
        "scheme": loader.scheme_name,
        "title": loader.scheme.title,
        "byteorder": loader.byteorder,
        "sizes": {part: len(data) for part, data in _parts(loader).items()},
        "insn_count": len(loader.insns) // INSN_SIZE,
        "excl_prog_hash": loader.excl_prog_hash.hex(),
        "metadata_digest": loader.metadata_digest.hex(),
        "signature_covers": list(loader.scheme.signed_parts),
        "programs": [
            dataclasses.asdict(entry) | {"type_name": type_name(ProgType, entry.type)}
            for entry in loader.programs
        ],
        "maps": [
            dataclasses.asdict(entry) | {"type_name": type_name(MapType, entry.type)}
            for entry in loader.maps
        ],
        "signatures": [_describe_signature(signature) for signature in variant.signatures],
    }


def _parts(loader: Loader) -> dict[str, bytes]:
    return {"insns": loader.insns, "metadata": loader.metadata, "btf": loader.btf}


def _describe_signature(signature: Signature) -> dict[str, Any]:
    """Return the claims of a signature; what cannot be read is a `problem`, not an error."""
    from bpfseal.release import ANY_KERNEL
    from bpfseal.signing import pkcs7_parser
    from bpfseal.signing.certificate import Certificate

    document: dict[str, Any] = {"size": len(signature.cms)}
    try:
        message = pkcs7_parser.parse(signature.cms, ANY_KERNEL)
        document["signers"] = [
            {
                "key_id": info.key_id.hex() or None,
                "serial": int.from_bytes(info.serial, "big", signed=True) if info.serial else None,
                "digest": info.digest,
                "algorithm": info.algorithm,
            }
            for info in message.signer_infos
        ]
        if signature.certificate:
            certificate = Certificate.from_der(signature.certificate)
            document["certificate"] = {
                "subject": certificate.subject,
                "key_type": certificate.key_type,
                "fingerprint": certificate.fingerprint,
            }
    except BpfsealError as error:
        document["problem"] = str(error)
    return document


def _print_loader(document: dict[str, Any], console: Console) -> None:
    sizes = document["sizes"]
    covers = " + ".join(f"{part} ({sizes[part]} bytes)" for part in document["signature_covers"])
    console.say(f"{document['name']}: scheme {document['scheme']}, {document['title']}")
    console.say(f"  byte order       {document['byteorder']}-endian")
    console.say(f"  instructions     {sizes['insns']} bytes, {document['insn_count']} slots")
    console.say(f"  metadata         {sizes['metadata']} bytes")
    console.say(f"  loader BTF       {sizes['btf']} bytes")
    console.say(f"  excl_prog_hash   {document['excl_prog_hash']}")
    console.say(f"  metadata SHA-256 {document['metadata_digest']}")
    console.say(f"  signature covers {covers or 'nothing'}")
    if not document["signatures"]:
        console.say("  signature        none")
    for signature in document["signatures"]:
        first, *others = _signature_lines(signature)
        console.say(f"  signature        {first}")
        for line in others:
            console.say(f"                   {line}")


def _print_entries(document: dict[str, Any], console: Console) -> None:
    if document["programs"]:
        console.table(
            ("program", "section", "type", "attach target", "insns"),
            [
                (
                    program["name"],
                    program["section"],
                    program["type_name"],
                    program["attach_target"],
                    str(program["insn_count"]),
                )
                for program in document["programs"]
            ],
        )
    if document["maps"]:
        console.table(
            ("map", "type", "key", "value", "entries", "initial value"),
            [
                (
                    entry["name"],
                    entry["type_name"],
                    str(entry["key_size"]),
                    str(entry["value_size"]),
                    str(entry["max_entries"]),
                    "yes" if entry["has_initial_value"] else "",
                )
                for entry in document["maps"]
            ],
        )


def _signature_lines(signature: dict[str, Any]) -> list[str]:
    if "problem" in signature:
        return [f"{signature['size']} bytes, unreadable: {signature['problem']}"]
    certificate = signature.get("certificate")
    return [
        f"{signature['size']} bytes (not verified)",
        *([f"{certificate['subject']} ({certificate['key_type']})"] if certificate else []),
        *(
            f"{info['algorithm']} with {info['digest']}, key id {info['key_id'] or 'by issuer'}"
            for info in signature["signers"]
        ),
    ]
