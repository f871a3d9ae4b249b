"""Load objects with every scheme into the model of every kernel, and print what does not fit.

Example:
    python scripts/load_everywhere.py build/objects/bookworm-libbpf-tools/*.bpf.o
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import KernelError, UnsupportedError
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.kernel_btf import SyntheticBtf
from bpfseal.kernel.model.map_rules import RULES
from bpfseal.kernel.model.profile import PROFILES, Profile
from bpfseal.kernel.model.schemes import expected_verdict
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.object.model import BpfObject
from bpfseal.scheme import SCHEMES, Scheme
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import load_signer


def answer(signed: SignedLoader, profile: Profile, certificate: bytes) -> str:
    """Return ``ok``, or step and errno of the refusal."""
    kernel = ModelKernel(profile=profile, kernel_btf=SyntheticBtf())
    kernel.keyrings.add_key(KeyringId.SESSION, certificate)
    try:
        load(kernel, signed, unsigned=not signed.signatures)
    except KernelError as error:
        return f"{error.step} {error.errno_name}"
    return "ok"


def expected(scheme: Scheme, profile: Profile, *, is_complete: bool) -> str:
    """Return what `answer` should be."""
    verdict = expected_verdict(scheme, profile)
    if verdict is not None:
        return f"{verdict.step} {verdict.errno_name}"
    return "ok" if is_complete else "prog_run EINVAL"


def has_all_sizes(program: BpfObject) -> bool:
    """Whether every map can be made as it is: user space gives some their size before the load."""
    return all(
        RULES[entry.type].entries(entry.max_entries)
        and entry.value_size in RULES[entry.type].values
        for entry in program.maps
    )


def main() -> int:
    """Print agreed and total, and every difference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("objects", nargs="+", type=Path, metavar="OBJECT")
    key = generate_key("rsa2048", "load everywhere")
    signer = load_signer(key.private_key_pem, key.certificate_pem)
    counts: Counter[str] = Counter()
    started = time.monotonic()
    for path in parser.parse_args().objects:
        program = read_object(path.read_bytes(), path.name)
        for scheme in SCHEMES.values():
            try:
                loader = generate(program, scheme.name)
            except UnsupportedError as error:
                counts["unsupported"] += 1
                print(f"{path.name} {scheme.name}: {error}")
                continue
            signed = SignedLoader(loader)
            if scheme.signed_parts:
                signed = sign_loader(signed, signer)
            for profile in PROFILES.values():
                given = answer(signed, profile, key.certificate_der)
                wanted = expected(scheme, profile, is_complete=has_all_sizes(program))
                counts["agreed" if given == wanted else "different"] += 1
                if given != wanted:
                    print(f"{path.name} {scheme.name} on {profile.name}: {given}, not {wanted}")
    print(f"{dict(counts)} in {time.monotonic() - started:.0f} s")
    return 1 if counts["different"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
