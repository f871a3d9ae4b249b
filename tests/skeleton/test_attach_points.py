"""What only a bundle's config says of a program's attach point is not used without being asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

import bpfseal
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import CapabilityError
from bpfseal.kernel.model import ModelKernel
from bpfseal.loader import generate
from bpfseal.signing.signer import load_signer
from bpfseal.skeleton import Skeleton, UncoveredError
from support.object_writer import ObjectWriter

from .support import KEY
from .test_model import kernel

SIGNER = load_signer(KEY.private_key_pem, KEY.certificate_pem)

OPEN: dict[str, dict[str, Any]] = {
    "kprobe/vfs_mkdir": {"function": "vfs_mkdir"},
    "kretprobe/vfs_mkdir": {"function": "vfs_mkdir", "is_return": True},
    "uprobe//bin/sh:main": {"path": "/bin/sh", "offset": 64},
    "kprobe.multi/vfs_*": {"functions": ["vfs_mkdir"]},
    "tp/sched/sched_switch": {"tracepoint": "sched/sched_switch"},
    "raw_tp/sched_switch": {"tracepoint": "sched_switch"},
}
"""Sections that no part of a signed loader holds, and the arguments that say the same."""


@pytest.mark.parametrize("section", OPEN)
def test_an_attach_point_that_no_signature_covers_is_not_used_without_an_argument(
    section: str,
) -> None:
    with _skeleton_of(section, "kfunc") as (skel, model):
        before = len(model.trace)
        for attach in (skel.attach, skel.programs.main.attach):
            with pytest.raises(UncoveredError, match="not covered by the signature") as refused:
                attach()
            assert f"program main says {section}" in str(refused.value)
        assert len(model.trace) == before, "nothing was attached"
        for attempt in ({"trust_sections": True}, OPEN[section]):
            with suppress(CapabilityError):  # the model has no probes: it was asked for one
                skel.programs.main.attach(**attempt)


@pytest.mark.parametrize("section", ["kprobe", "tp", "raw_tp", ""])
def test_a_section_that_says_nothing_does_not_leave_a_program_unattached_in_silence(
    section: str,
) -> None:
    """Whoever empties it would switch off a monitor that was signed."""
    with _skeleton_of(section or "raw_tp", "kfunc", forged=section) as (skel, _):
        for attach in (skel.attach, skel.programs.main.attach):
            with pytest.raises(UncoveredError, match=f"program main says {section or 'nothing'}"):
                attach()


def test_what_was_attached_by_hand_is_not_asked_for_again() -> None:
    with _skeleton_of("raw_tp/sched_switch", "kfunc") as (skel, _):
        link = skel.programs.main.attach(tracepoint="sched_switch")
        assert skel.attach() == ()
        link.close()
        with pytest.raises(UncoveredError):
            skel.attach()


def test_a_return_probe_is_said_by_an_argument_too() -> None:
    with _skeleton_of("kretprobe/vfs_mkdir", "kfunc") as (skel, _), pytest.raises(UncoveredError):
        skel.programs.main.attach(function="vfs_mkdir")


@pytest.mark.parametrize("section", ["tp_btf/sched_switch", "lsm/file_open", "fentry/vfs_mkdir"])
def test_an_attach_point_that_the_loader_looks_up_is_covered(section: str) -> None:
    with _skeleton_of(section, "kfunc") as (skel, _):
        assert skel.programs.main.attach_point_is_covered
        assert len(skel.attach()) == 1


def test_whoever_loads_what_nobody_signed_believes_its_sections() -> None:
    with _skeleton_of("raw_tp/sched_switch", "unsigned") as (skel, _):
        assert len(skel.attach()) == 1


@contextmanager
def _skeleton_of(
    section: str, scheme: str, *, forged: str | None = None
) -> Iterator[tuple[Skeleton, ModelKernel]]:
    writer = ObjectWriter()
    writer.add_program(section, "main")
    loader = generate(writer.read(), scheme)
    if forged is not None:
        programs = tuple(replace(entry, section=forged) for entry in loader.programs)
        loader = replace(loader, programs=programs)
    variant = SignedLoader(loader)
    if variant.loader.scheme.signed_parts:
        variant = sign_loader(variant, SIGNER)
    model = kernel()
    bundle = Bundle(variant.loader.name, (variant,))
    with bpfseal.load(bundle, model, scheme=scheme) as skel:
        yield skel, model
