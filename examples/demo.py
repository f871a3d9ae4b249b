"""The whole way in one go: key, loader, signature, verification, load, and what refuses tampering.

Run it with ``make demo``. It needs neither root nor a special kernel: the kernel is the model of
the one that carries ``bpf_loader_verify_metadata``, and it really executes the loader.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bpfseal.bpf.uapi import KeyringId, MapType, ProgFlag, ProgType
from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import BpfsealError, KernelError
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel, choose_kernel_btf
from bpfseal.kernel.model.kernel_btf import KernelBtf
from bpfseal.kernel.model.verdict import Verdict
from bpfseal.kernel.protocol import MapCreate, ProgLoad
from bpfseal.loader import generate
from bpfseal.loader.model import LOADER_LICENSE, LOADER_MAP_NAME, LOADER_PROG_NAME, Loader
from bpfseal.object import read_object
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.keygen import KeyPair
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import load_signer

EXAMPLE = Path(__file__).with_name("exectrace.bpf.o")
TOOLS = Path("build/objects/bookworm-libbpf-tools")


@dataclass(frozen=True)
class Attempt:
    """One load, step by step, with what may be wrong about it."""

    loader: Loader
    cms: bytes | None
    bound_to: bytes | None
    freeze: bool = True
    runs: int = 1


@dataclass(frozen=True)
class Tampering:
    """A change to a good load, and what a kernel must answer to it."""

    title: str
    change: Callable[[Attempt], Attempt]
    step: str
    errno: str


def flipped(data: bytes, position: int) -> bytes:
    """Return the data with the lowest bit of one byte flipped."""
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def tamperings(other_signature: bytes) -> Iterator[Tampering]:
    """Yield what an attacker, or a mistake, may do to a signed loader."""

    def insns(good: Attempt) -> Attempt:
        loader = replace(good.loader, insns=flipped(good.loader.insns, 12))
        return replace(good, loader=loader, bound_to=loader.excl_prog_hash)

    def btf(good: Attempt) -> Attempt:
        name = good.loader.btf.index(b"hash\0")
        return replace(good, loader=replace(good.loader, btf=flipped(good.loader.btf, name)))

    def metadata(good: Attempt) -> Attempt:
        changed = flipped(good.loader.metadata, len(good.loader.metadata) // 2)
        return replace(good, loader=replace(good.loader, metadata=changed))

    def signature(good: Attempt) -> Attempt:
        return replace(good, cms=flipped(good.cms or b"", -1))

    def unsigned(good: Attempt) -> Attempt:
        return replace(good, cms=None, bound_to=None)

    yield Tampering("one bit in the instructions", insns, "prog_load", "EKEYREJECTED")
    yield Tampering("one bit in the loader BTF", btf, "prog_load", "EKEYREJECTED")
    yield Tampering("one bit in the metadata", metadata, "prog_run", "EBADMSG")
    yield Tampering("one bit in the signature", signature, "prog_load", "EKEYREJECTED")
    yield Tampering(
        "signed by somebody else",
        lambda good: replace(good, cms=other_signature),
        "prog_load",
        "ENOKEY",
    )
    yield Tampering("map not frozen", lambda good: replace(good, freeze=False), "prog_run", "EPERM")
    yield Tampering(
        "map not exclusive", lambda good: replace(good, bound_to=None), "prog_run", "EINVAL"
    )
    yield Tampering(
        "map bound to another program",
        lambda good: replace(good, bound_to=bytes(32)),
        "prog_load",
        "EACCES",
    )
    yield Tampering("loader run twice", lambda good: replace(good, runs=2), "prog_run", "EPERM")
    yield Tampering("unsigned loader", unsigned, "prog_run", "EPERM")


def carry_out(kernel: ModelKernel, attempt: Attempt) -> KernelError | None:
    """Make the calls of a load one by one, without the checks of `bpfseal.kernel.load`.

    Returns:
        What the kernel refused, with the step; ``None`` if it refused nothing.
    """
    loader = attempt.loader
    request = MapCreate(
        MapType.ARRAY, LOADER_MAP_NAME, 4, len(loader.metadata), 1, excl_prog_hash=attempt.bound_to
    )
    step = "map_create"
    try:
        map_fd = kernel.map_create(request)
        kernel.map_update(map_fd, bytes(4), loader.metadata)
        if attempt.freeze:
            kernel.map_freeze(map_fd)
        step = "btf_load"
        btf_fd = kernel.btf_load(loader.btf)
        step = "prog_load"
        prog_fd = kernel.prog_load(
            ProgLoad(
                ProgType.SYSCALL,
                LOADER_PROG_NAME,
                loader.insns,
                LOADER_LICENSE,
                flags=ProgFlag.SLEEPABLE,
                fd_array=(map_fd,),
                btf_fd=btf_fd,
                signature=attempt.cms,
                keyring_id=KeyringId.SESSION if attempt.cms else 0,
            )
        )
        step = "prog_run"
        ctx = loader.ctx_size.to_bytes(4, "little").ljust(loader.ctx_size, b"\0")
        results = [kernel.prog_run(prog_fd, ctx) for _ in range(attempt.runs)]
    except KernelError as error:
        error.step = step
        return error
    last = results[-1]
    return KernelError(-last.retval, step=step, rule=last.rule) if last.retval < 0 else None


@cache
def kernel_btf() -> KernelBtf:
    """Return the running kernel's BTF, or one in which every name exists."""
    return choose_kernel_btf(None)


def model_with(key: KeyPair) -> ModelKernel:
    """Return a model kernel whose session keyring holds the signer's certificate."""
    kernel = ModelKernel(kernel_btf=kernel_btf())
    kernel.keyrings.add_key(KeyringId.SESSION, key.certificate_der)
    return kernel


def show_tools(console: Console, key: KeyPair) -> None:
    """Take the objects of real tools the whole way, if they were fetched."""
    objects = sorted(TOOLS.glob("*.bpf.o"))
    if not objects:
        console.print("\nReal tools: run [bold]make objects[/bold] to fetch Debian's libbpf-tools.")
        return
    signer = load_signer(key.private_key_pem, key.certificate_pem)
    verified = complete = 0
    console.print()
    for path in objects:
        kernel = model_with(key)
        try:
            obj = read_object(path.read_bytes(), path.name)
            load(kernel, sign_loader(SignedLoader(generate(obj, "kfunc")), signer))
            complete += 1
        except BpfsealError as error:
            console.print(f"  {path.name}: {error}", soft_wrap=True)
        if kernel.programs:
            verified += kernel.programs[0].verdict is Verdict.METADATA_VERIFIED
    console.print(
        f"Real tools: of {len(objects)} objects of libbpf-tools {verified} reach METADATA_VERIFIED "
        f"and {complete} load to the end.\nThe kernel: {kernel.description}."
    )


def main() -> int:
    """Run the demonstration; return 0 if everything answered as the seed says."""
    console = Console(width=110, highlight=False)
    key, other = generate_key("rsa2048", "bpfseal demo"), generate_key("p256", "somebody else")
    console.print("[bold]keygen[/bold]  an RSA-2048 key and its certificate")
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    loader = generate(obj, "kfunc")
    console.print(
        f"[bold]build[/bold]   {EXAMPLE.name}: {len(loader.insns)} bytes of instructions, "
        f"{len(loader.metadata)} bytes of metadata"
    )
    signed = sign_loader(
        SignedLoader(loader), load_signer(key.private_key_pem, key.certificate_pem)
    )
    signature = signed.signatures[0]
    console.print(
        f"[bold]sign[/bold]    {len(signature.cms)} bytes of CMS over insns || loader BTF"
    )
    verified = verify_loader(signed, [Certificate.from_der(key.certificate_der)])
    console.print(f"[bold]verify[/bold]  {verified.signatures[0].certificate.subject}")
    kernel = model_with(key)
    skeleton = load(kernel, signed)
    console.print(f"[bold]load[/bold]    verdict {kernel.programs[0].verdict.name}")
    console.print(f"        programs: {', '.join(skeleton.prog_fds)}")
    console.print(f"        maps: {', '.join(skeleton.map_fds)}")
    if kernel.btf.assumed:
        console.print(f"        assumed to exist in the kernel: {', '.join(kernel.btf.assumed)}")

    good = Attempt(loader, signature.cms, loader.excl_prog_hash)
    somebody = load_signer(other.private_key_pem, other.certificate_pem)
    foreign = sign_loader(SignedLoader(loader), somebody).signatures[0].cms
    table = Table("tampering", "refused by", "errno", "check", title="\nWhat does not get in")
    surprises = 0
    for tampering in tamperings(foreign):
        error = carry_out(model_with(key), tampering.change(good))
        answer = (error.step, error.errno_name) if error else ("nobody", "0")
        rule = error.rule if error else "it was loaded"
        as_expected = answer == (tampering.step, tampering.errno)
        surprises += not as_expected
        note = "" if as_expected else f"  EXPECTED {tampering.step} -{tampering.errno}"
        table.add_row(tampering.title, answer[0], f"-{answer[1]}{note}", rule)
    console.print(table)
    show_tools(console, key)
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
