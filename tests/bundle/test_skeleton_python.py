"""The Python skeleton is a module that carries the bundle and loads it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.bundle.skeleton_python import python_skeleton
from bpfseal.errors import UsageError
from bpfseal.kernel.model import ModelKernel
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.scheme import SIGNED_SCHEMES
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import load_signer

EXAMPLE = Path(__file__).parents[2] / "examples" / "exectrace.bpf.o"
KEY = generate_key("p256", "test")
SIGNER = load_signer(KEY.private_key_pem, KEY.certificate_pem)


def bundle_of(*schemes: str) -> Bundle:
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    loaders = [SignedLoader(generate(obj, scheme)) for scheme in schemes]
    if schemes == ("unsigned",):
        return Bundle(obj.name, tuple(loaders))
    return Bundle(obj.name, tuple(sign_loader(loader, SIGNER) for loader in loaders))


def module_of(bundle: Bundle, *, unsigned: bool = False) -> ModuleType:
    module = ModuleType("skeleton")
    exec(python_skeleton(bundle, unsigned=unsigned), module.__dict__)  # noqa: S102 - what is tested is the source
    return module


def test_the_module_names_and_carries_the_bundle() -> None:
    bundle = bundle_of("kfunc")
    module = module_of(bundle)
    assert module.NAME == "exectrace_bpf"
    assert module.MAPS == ("started", "events", "rodata", "bss")
    assert module.PROGRAMS == ("on_exec", "on_exit")
    assert module.bundle() == bundle


def test_the_module_loads_what_the_kernel_takes() -> None:
    module = module_of(bundle_of(*SIGNED_SCHEMES))
    kernel = ModelKernel()
    kernel.keyrings.add_key(-3, KEY.certificate_der)
    with module.load(kernel) as skel:
        assert skel.scheme == "kfunc"
        assert tuple(skel.programs) == module.PROGRAMS
        assert tuple(skel.maps) == module.MAPS


def test_an_unsigned_module_loads_what_it_holds() -> None:
    module = module_of(bundle_of("unsigned"), unsigned=True)
    assert "UNSIGNED" in (module.__doc__ or "")
    with module.load(ModelKernel()) as skel:
        assert skel.scheme == "unsigned"


def test_the_text_depends_on_the_bundle_alone() -> None:
    bundle = bundle_of("kfunc", "loadtime")
    turned = Bundle(bundle.name, bundle.variants[::-1])
    assert python_skeleton(bundle) == python_skeleton(turned)


def test_the_module_is_clean(tmp_path: Path) -> None:
    path = tmp_path / "skeleton.py"
    path.write_text(python_skeleton(bundle_of("kfunc")))
    command = [sys.executable, "-W", "error", "-c", "import skeleton"]
    subprocess.run(command, check=True, cwd=tmp_path)


def test_only_the_signed_variants_are_embedded() -> None:
    both = bundle_of("kfunc", "loadtime")
    bare = replace(both.variants[0], signatures=())
    partly = replace(both, variants=(bare, both.variants[1]))
    assert python_skeleton(partly) == python_skeleton(bundle_of("loadtime"))


def test_unsigned_variants_are_refused() -> None:
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    with pytest.raises(UsageError, match="which nobody checks"):
        python_skeleton(bundle_of("unsigned"))
    with pytest.raises(UsageError, match="is made of the unsigned variant"):
        python_skeleton(bundle_of("kfunc"), unsigned=True)
    with pytest.raises(UsageError, match="is not signed"):
        python_skeleton(Bundle(obj.name, (SignedLoader(generate(obj, "kfunc")),)))
