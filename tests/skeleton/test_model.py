"""Skeletons on the kernel model: the same object, without privileges; links are records."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bpfseal
from bpfseal.bpf.uapi import AttachType
from bpfseal.bundle.model import Bundle
from bpfseal.bundle.store import pack, write_bundle
from bpfseal.errors import BpfsealError, CapabilityError, KernelError, UsageError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.skeleton import RingBuffer, Skeleton

from .support import KEY, signed, unsigned


def kernel(profile: str = "kfunc") -> ModelKernel:
    made = ModelKernel(profile=PROFILES[profile])
    made.keyrings.add_key(-3, KEY.certificate_der)
    return made


def exectrace(**options: Any) -> Skeleton:
    return bpfseal.load(signed("exectrace", "kfunc"), kernel(), **options)


def test_a_bundle_is_given_as_a_value_a_path_or_bytes(tmp_path: Path) -> None:
    bundle = signed("exectrace", "kfunc")
    path = tmp_path / "exectrace.bpfseal"
    write_bundle(bundle, path)
    for given in (bundle, path, str(path), pack(bundle)):
        with bpfseal.load(given, kernel()) as skel:
            assert list(skel.programs) == ["on_exec", "on_exit"]


def test_the_kernel_chooses_the_variant() -> None:
    bundle = signed("exectrace", "kfunc", "loadtime", "inline-original")
    for profile, scheme in (("kfunc", "kfunc"), ("7.3", "loadtime"), ("7.0", "inline-original")):
        with bpfseal.load(bundle, kernel(profile)) as skel:
            assert skel.scheme == scheme


def test_an_unsigned_loader_is_loaded_only_when_that_is_asked_for() -> None:
    with pytest.raises(BpfsealError, match="signed"):
        bpfseal.load(unsigned("exectrace"), kernel())
    with bpfseal.load(unsigned("exectrace"), kernel(), scheme="unsigned") as skel:
        assert skel.scheme == "unsigned"


def test_a_bundle_without_loaders_is_refused() -> None:
    with pytest.raises(UsageError, match="holds no loader"):
        bpfseal.load(Bundle("empty", ()), kernel())


def test_maps_and_variables_are_those_of_the_object() -> None:
    with exectrace() as skel:
        skel.maps.started[7] = 12
        assert dict(skel.maps.started.items()) == {7: 12}
        assert dict(skel.bss) == {"seen": 0, "lost": 0}
        skel.bss.seen = 3
        assert skel.maps.bss.raw[bytes(4)][:16].count(3) == 1
        with pytest.raises(AttributeError, match="no map 'stopped'; there are: started, events"):
            _ = skel.maps.stopped
        with pytest.raises(AttributeError, match="sections are: rodata, bss"):
            _ = skel.data


def test_read_only_variables_are_set_where_the_scheme_leaves_them_to_the_host() -> None:
    with exectrace(rodata={"min_lifetime_ns": 5000}) as skel:
        assert skel.rodata.min_lifetime_ns == 5000
    with pytest.raises(UsageError, match="scheme loadtime takes no values of the host") as refused:
        bpfseal.load(
            signed("exectrace", "loadtime"), kernel("7.3"), rodata={"min_lifetime_ns": 5000}
        )
    assert "build the object with these values" in refused.value.hint


def test_sizes_of_maps_reach_the_kernel() -> None:
    model = kernel()
    with bpfseal.load(signed("exectrace", "kfunc"), model, max_entries={"started": 3}) as skel:
        assert model.map(skel.maps.started.fd).max_entries == 3
        for key in range(3):
            skel.maps.started[key] = key
        with pytest.raises(KernelError, match="E2BIG"):
            skel.maps.started[3] = 3


def test_links_are_records_that_end_with_the_skeleton() -> None:
    model = kernel()
    with bpfseal.load(signed("exectrace", "kfunc"), model) as skel:
        first = set(model.open_fds)
        links = skel.attach()
        assert [(link.program, link.attach_type) for link in links] == [
            ("on_exec", AttachType.TRACE_RAW_TP),
            ("on_exit", AttachType.TRACE_RAW_TP),
        ]
        assert len(model.open_fds) == len(first) + 2
        links[0].close()
        links[0].close()
        assert skel.links == (links[1],)
        with pytest.raises(UsageError, match="the link of on_exec is closed"):
            links[0].fileno()
        with pytest.raises(UsageError, match="on_exit is no iterator"):
            links[1].read()
    assert set(model.open_fds) == {0, 1, 2}


def test_what_the_model_does_not_have_says_so_and_leaves_nothing_open() -> None:
    model = kernel()
    with bpfseal.load(signed("probes", "kfunc"), model) as skel:
        with pytest.raises(CapabilityError):
            skel.programs.on_kprobe.attach(function="vfs_mkdir")
        before = set(model.open_fds)
        with pytest.raises(CapabilityError):
            skel.attach(trust_sections=True)
        assert set(model.open_fds) == before
    with exectrace() as skel, pytest.raises((CapabilityError, KernelError)):
        RingBuffer(skel.maps.events)


def test_a_failed_load_leaves_nothing_open() -> None:
    model = ModelKernel()
    with pytest.raises(KernelError, match="ENOKEY"):
        bpfseal.load(signed("exectrace", "kfunc"), model)
    assert set(model.open_fds) == {0, 1, 2}


def test_importing_the_package_alone_imports_next_to_nothing() -> None:
    script = "import sys, bpfseal; print([m for m in sys.modules if m.startswith('bpfseal.')])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
