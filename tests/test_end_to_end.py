"""The whole way on real objects: object, loader, signature, bundle, verification, verdict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.bundle.store import pack, unpack
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import KernelError
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.verdict import Verdict
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.scheme import SCHEMES
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.keygen import KeyPair
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import Signer, load_signer
from support.files import EXAMPLE, LIBBPF_TOOLS

ROOT = Path(__file__).parents[1]

SIZED_AT_RUN_TIME = {
    "capable.bpf.o": "STACK_TRACE: value_size 0",
    "cpudist.bpf.o": "HASH: max_entries 0",
    "offcputime.bpf.o": "STACK_TRACE: value_size 0",
    "wakeuptime.bpf.o": "STACK_TRACE: value_size 0",
}
"""Tools whose user space gives a map its size before loading, with the kernel's answer if not."""

KFUNC_KERNEL_TAKES = ("kfunc", "inline", "inline-original")
"""Schemes whose signed loaders the kernel of the kfunc series takes (measured, kfunc series)."""


@pytest.fixture(scope="module")
def key() -> KeyPair:
    return generate_key("p256", "end to end")


@pytest.fixture(scope="module")
def signer(key: KeyPair) -> Signer:
    return load_signer(key.private_key_pem, key.certificate_pem)


def kernel_that_trusts(key: KeyPair) -> ModelKernel:
    kernel = ModelKernel()
    kernel.keyrings.add_key(KeyringId.SESSION, key.certificate_der)
    return kernel


def tools() -> list[Path]:
    return sorted(LIBBPF_TOOLS.glob("*.bpf.o"))


needs_tools = pytest.mark.skipif(
    not tools(), reason="the objects of libbpf-tools are missing: run make objects"
)


def test_a_bundle_that_was_written_and_read_again_loads(key: KeyPair, signer: Signer) -> None:
    loader = generate(read_object(EXAMPLE.read_bytes(), EXAMPLE.name), "kfunc")
    bundle = Bundle(loader.name, (sign_loader(SignedLoader(loader), signer),))
    signed = unpack(pack(bundle), "memory").variant("kfunc")
    verify_loader(signed, [Certificate.from_der(key.certificate_der)])
    kernel = kernel_that_trusts(key)
    skeleton = load(kernel, signed)
    assert kernel.programs[0].verdict is Verdict.METADATA_VERIFIED
    assert list(skeleton.prog_fds) == ["on_exec", "on_exit"]
    assert list(skeleton.map_fds) == ["started", "events", "rodata", "bss"]
    assert sorted(kernel.open_fds)[3:] == sorted(
        [*skeleton.prog_fds.values(), *skeleton.map_fds.values()]
    )


@needs_tools
@pytest.mark.parametrize("path", tools(), ids=lambda path: path.name)
def test_a_real_tool_reaches_metadata_verified(path: Path, key: KeyPair, signer: Signer) -> None:
    loader = generate(read_object(path.read_bytes(), path.name), "kfunc")
    signed = sign_loader(SignedLoader(loader), signer)
    kernel = kernel_that_trusts(key)
    if reason := SIZED_AT_RUN_TIME.get(path.name):
        with pytest.raises(KernelError, match=f"prog_run: -EINVAL: .*{reason}"):
            load(kernel, signed)
    else:
        skeleton = load(kernel, signed)
        assert set(skeleton.prog_fds) == {program.name for program in loader.programs}
        assert [program.name for program in kernel.programs[1:]] == [
            program.name[:15] for program in loader.programs
        ]
    assert kernel.programs[0].verdict is Verdict.METADATA_VERIFIED


@needs_tools
@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "kfunc"])
def test_the_loaders_of_every_scheme_run_to_their_end(
    scheme: str, key: KeyPair, signer: Signer
) -> None:
    for path in tools():
        if path.name in SIZED_AT_RUN_TIME:
            continue
        loader = generate(read_object(path.read_bytes(), path.name), scheme)
        signed = SignedLoader(loader)
        if scheme in KFUNC_KERNEL_TAKES:
            signed = sign_loader(signed, signer)
        skeleton = load(kernel_that_trusts(key), signed, unsigned=not signed.signatures)
        assert all(fd > 2 for fd in (*skeleton.prog_fds.values(), *skeleton.map_fds.values()))


def test_the_demo_answers_as_the_seed_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict METADATA_VERIFIED" in done.stdout
    assert "EXPECTED" not in done.stdout
