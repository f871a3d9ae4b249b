"""``bpfseal load``: run the whole load on a kernel and print its verdict."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bpfseal.bpf.uapi import KeyringId, MapType, ProgType
from bpfseal.cli.console import Console, type_name
from bpfseal.cli.inputs import KEY_LIMIT, naming, read_argument, read_input, shown
from bpfseal.cli.load_targets import open_target
from bpfseal.cli.options import INPUT_HELP, Options
from bpfseal.cli.streams import flush_stdout
from bpfseal.errors import KernelError, UsageError, VerificationError
from bpfseal.scheme import SCHEMES, SIGNED_SCHEMES

if TYPE_CHECKING:
    from bpfseal.cli.load_targets import Target
    from bpfseal.kernel.load import LoadedSkeleton

AUTO: Final = "auto"
_ENDINGS: Final = (signal.SIGINT, signal.SIGTERM)
KEYRINGS: Final = {keyring.name.lower().replace("_", "-"): keyring.value for keyring in KeyringId}


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("input", metavar="IN", help=INPUT_HELP)
    options.add(
        "--kernel",
        metavar="linux|model[:PROFILE]",
        help="the kernel to load into (default: the running one if this process may load programs, "
        "else the model)",
    )
    options.add("--scheme", choices=(AUTO, *SCHEMES), default=AUTO, help="the variant to load")
    options.add(
        "--certificate",
        metavar="FILE",
        repeatable=True,
        help="have this in the keyring during the load; may be given again",
    )
    options.add(
        "--keyring",
        default="session",
        metavar="NAME|SERIAL",
        help=f"keyring of the signature: {', '.join(KEYRINGS)}, or a serial",
    )
    options.flag("--no-metadata-check", help="run the loader even if its metadata was changed")
    options.add(
        "--pin", metavar="DIR", help="(linux) pin maps and programs below a directory in bpffs"
    )
    options.flag(
        "--hold", help="(linux) keep what was loaded until SIGINT or SIGTERM comes", local=True
    )
    options.add(
        "--btf", metavar="FILE", help="(model) BTF of the kernel, as in /sys/kernel/btf/vmlinux"
    )
    options.add("--policy", metavar="FILE", help="(model) IPE policy that is active")
    options.flag("--permissive", help="(model) a denial by the policy is logged only")
    options.flag(
        "--success-audit", help="(model) what the policy allows is logged, too", local=True
    )
    options.flag("--trace", help="(model) print every call to the kernel", local=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """Load one variant."""
    from bpfseal.kernel.choose import load_bundle
    from bpfseal.kernel.load import close_quietly
    from bpfseal.kernel.pinning import pin_loaded

    keyring_id = _keyring_id(args.keyring)
    target = open_target(args)
    kernel = target.kernel
    certificates = _certificates(args.certificate or ())
    console.detail(kernel.description)
    scheme = kernel.accepted_scheme() if args.scheme == AUTO else args.scheme
    bundle = read_input(args.input, scheme or SIGNED_SCHEMES[0], is_checked_later=True)
    document: dict[str, Any] = {
        "name": bundle.name,
        "scheme": scheme or AUTO,
        "kernel": kernel.description,
        "allowed": True,
    }
    status = 0
    with ExitStack() as fds:
        try:
            with _enrolled(target, keyring_id, certificates):
                loaded = load_bundle(
                    kernel,
                    bundle,
                    scheme=args.scheme,
                    keyring_id=keyring_id,
                    check_metadata=not args.no_metadata_check,
                )
            for fd in (*loaded.map_fds.values(), *loaded.prog_fds.values()):
                fds.callback(close_quietly, kernel, fd)
            document |= _came_up(loaded, target)
            if args.pin is not None:
                pinned = pin_loaded(kernel, loaded, Path(args.pin))
                document["pinned"] = [str(path) for path in pinned]
        except (KernelError, VerificationError) as refused:
            status = target.explain(refused)
            document |= {"allowed": False, "refusal": _refusal(refused)}
        document |= target.fields()
        is_held = args.hold and status == 0
        if is_held:  # before the result is printed: whoever reads it may end this process at once
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        console.result(input=args.input, **document)
        _print(document, console)
        target.show(console)
        if is_held:
            console.finish(status)
            flush_stdout()
            signal.sigwait(_ENDINGS)
    return status


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


def _certificates(paths: Sequence[str]) -> list[bytes]:
    """Return the certificates of files in DER, without a look inside: that is the kernel's."""
    from bpfseal.signing.certificate_file import certificate_blocks, der_of

    found: list[bytes] = []
    for path in paths:
        with naming(shown(path)):
            blocks = certificate_blocks(read_argument(path, limit=KEY_LIMIT))
            found += [der_of(block) for _, block in blocks]
    return found


@contextmanager
def _enrolled(target: Target, keyring_id: int, certificates: Sequence[bytes]) -> Iterator[None]:
    """Have the certificates in the keyring; a refusal gets the name of the step."""
    with ExitStack() as enrolled:
        try:
            enrolled.enter_context(target.enrolled(keyring_id, certificates))
        except KernelError as refused:
            refused.step = refused.where = "add_key"
            raise
        yield


def _came_up(loaded: LoadedSkeleton, target: Target) -> dict[str, Any]:
    """Return what was loaded, as JSON values."""
    loader = loaded.signed.loader
    programs, maps = (
        zip(loader.programs, loaded.prog_fds.values(), strict=True),
        zip(loader.maps, loaded.map_fds.values(), strict=True),
    )
    return {
        "scheme": loader.scheme_name,
        "signed": bool(loaded.signed.signatures),
        "programs": [
            {
                "name": entry.name,
                "fd": fd,
                "type_name": type_name(ProgType, entry.type),
                **target.program_fields(fd),
            }
            for entry, fd in programs
        ],
        "maps": [
            {
                "ident": entry.ident,
                "fd": fd,
                "name": entry.name,
                "type_name": type_name(MapType, entry.type),
                **target.map_fields(fd),
            }
            for entry, fd in maps
        ],
    }


def _refusal(error: KernelError | VerificationError) -> dict[str, str]:
    """Return a refusal as JSON values."""
    if isinstance(error, KernelError):
        return {
            "step": error.step,
            "errno": error.errno_name,
            "message": error.message,
            "rule": error.rule,
            "hint": error.hint,
            "log": error.log,
        }
    return {  # what the load itself checks
        "step": "before the load",
        "errno": "",
        "message": error.message,
        "rule": "",
        "hint": error.hint,
        "log": "",
    }


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
        if console.verbose:
            for line in refusal["log"].splitlines():
                console.say(f"  log: {line}")
    else:
        verdict = f", verdict {document['verdict']}" if "verdict" in document else ""
        console.verdict(f"{title}: loaded{verdict}", good=True)
        _print_objects(document, console)
    if document.get("assumed"):
        console.say(f"  assumed to exist: {', '.join(document['assumed'])}")
    console.say(f"  kernel: {document['kernel']}")


def _print_objects(document: dict[str, Any], console: Console) -> None:
    if document["programs"]:
        console.table(
            ("program", "type", "fd"),
            [
                (entry["name"], entry["type_name"], str(entry["fd"]))
                for entry in document["programs"]
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
    for path in document.get("pinned", ()):
        console.say(f"  pinned: {path}")
