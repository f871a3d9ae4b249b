"""The config is signed by nobody: what the loader says itself is compared, and a lie is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from bpfseal.bundle.derivation import check_config, open_attach_points
from bpfseal.bundle.lskel_import import import_header
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.skeleton_c import c_skeleton
from bpfseal.bundle.skeleton_python import python_skeleton
from bpfseal.bundle.variants import loadable_variants
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import BpfsealError, InputError, VerificationError
from bpfseal.kernel.choose import load_bundle
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.loader import generate
from bpfseal.loader.model import Loader, MapEntry, ProgramEntry
from bpfseal.object import read_object
from bpfseal.release import Payload
from bpfseal.scheme import SCHEMES, SIGNED_SCHEMES, UNSIGNED
from support.lskel_writer import header_of
from support.object_writer import ObjectWriter
from support.samples import everything

from .verifying import certificate, signed, signed_over

EXAMPLES = Path(__file__).parents[2] / "examples"
PROFILE = {"kfunc": "kfunc", "loadtime": "7.3", "inline": "7.3-excl", "inline-original": "7.0"}


@cache
def example(scheme: str, name: str = "exectrace") -> Loader:
    obj = read_object((EXAMPLES / f"{name}.bpf.o").read_bytes(), f"{name}.bpf.o")
    return generate(obj, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.bpf.o")), ids=lambda path: path.stem)
def test_every_loader_of_ours_derives_to_its_config(path: Path, scheme: str) -> None:
    obj = read_object(path.read_bytes(), path.name)
    for traces in (False, True):
        check_config(generate(obj, scheme, traces=traces))


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_so_does_one_of_an_object_with_everything(scheme: str, byteorder: Any) -> None:
    check_config(generate(everything(byteorder).read(), scheme))


def other(value: object) -> object:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return f"{value}x"


def changed(loader: Loader, **changes: Any) -> Loader:
    return replace(loader, **changes)


def forged_configs(loader: Loader) -> Iterator[tuple[str, Loader]]:
    """Yield the loader with one lie in its config."""
    for kind in ("maps", "programs"):
        entries: tuple[Any, ...] = getattr(loader, kind)
        for number, entry in enumerate(entries):
            for each in fields(entry):
                values: dict[str, Any] = {each.name: other(getattr(entry, each.name))}
                lies = (*entries[:number], replace(entry, **values), *entries[number + 1 :])
                yield f"{kind}[{number}].{each.name}", changed(loader, **{kind: lies})
        yield f"fewer {kind}", changed(loader, **{kind: entries[:-1]})
        yield f"more {kind}", changed(loader, **{kind: (*entries, entries[-1])})
        yield f"no {kind}", changed(loader, **{kind: ()})
        yield f"{kind} in another order", changed(loader, **{kind: entries[::-1]})
        first = (entries[0], *entries[:-1])
        yield f"{kind} twice", changed(loader, **{kind: first})
    yield "byte order", replace(loader, byteorder="big")
    sizes = tuple(replace(entry, key_size=1, value_size=1) for entry in loader.maps)
    yield "small sizes", replace(loader, maps=sizes)
    uprobe = replace(loader.programs[0], section="uprobe//usr/sbin/sshd:main")
    yield "another kind of section", replace(loader, programs=(uprobe, *loader.programs[1:]))


LIES = [name for name, _ in forged_configs(example("kfunc"))]


def lie(name: str, scheme: str) -> SignedLoader:
    good = signed(example(scheme))
    return replace(good, loader=dict(forged_configs(good.loader))[name])


@pytest.mark.parametrize("scheme", SIGNED_SCHEMES)
@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_the_config_does_not_verify(name: str, scheme: str) -> None:
    with pytest.raises(VerificationError):
        verify_loader(lie(name, scheme), [certificate()])


@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_the_config_is_not_loaded_and_makes_no_skeleton(name: str) -> None:
    kernel = ModelKernel(profile=PROFILES["kfunc"])
    kernel.keyrings.add_key(-3, certificate().der)
    variant = lie(name, "kfunc")
    bundle = Bundle(variant.loader.name, (variant,))
    for use in (
        lambda: load(kernel, variant),
        lambda: load_bundle(kernel, bundle),
        lambda: load_bundle(kernel, bundle, scheme="kfunc"),
        lambda: c_skeleton(bundle),
        lambda: python_skeleton(bundle),
    ):  # a name that is no identifier is refused as such
        with pytest.raises((VerificationError, InputError)):
            use()
    assert kernel.trace == ()


def test_an_unsigned_loader_is_compared_with_its_config_too() -> None:
    kernel = ModelKernel(profile=PROFILES["kfunc"])
    for _, loader in forged_configs(example(UNSIGNED.name)):
        with pytest.raises(VerificationError):
            load(kernel, SignedLoader(loader))
    assert kernel.trace == ()


def test_a_bundle_and_its_loaders_are_of_one_object() -> None:
    with pytest.raises(InputError, match="the bundle is of 'other', its variant kfunc of 'exec"):
        loadable_variants(Bundle("other", (signed(example("kfunc")),)))


LONG = "a_name_of_twenty_one_"
"""Longer than what the kernel keeps of a name."""


def long_names() -> ObjectWriter:
    writer = ObjectWriter()
    for end in "ab":
        writer.add_map(LONG + end, type=1, max_entries=9, key=1, value=1)
    for end in "cd":
        writer.add_program("xdp" if end == "c" else "socket", LONG + end)
        writer.func_info["xdp" if end == "c" else "socket"] = [(0, writer.add_func(LONG + end))]
    return writer


def test_long_names_are_those_of_the_btf() -> None:
    """BPF_OBJ_NAME_LEN: a kernel keeps 15 characters; the BTF in the metadata has all."""
    loader = generate(long_names().read(), "kfunc")
    check_config(loader)
    for kind, attribute in (("maps", "ident"), ("programs", "name")):
        entries: tuple[Any, ...] = getattr(loader, kind)
        swapped = [
            replace(entry, **{attribute: getattr(source, attribute)})
            for entry, source in zip(entries, reversed(entries), strict=True)
        ]
        renamed = [replace(entry, **{attribute: f"{LONG}{n}"}) for n, entry in enumerate(entries)]
        for lies in (swapped, renamed):
            with pytest.raises(VerificationError, match="name"):
                check_config(changed(loader, **{kind: tuple(lies)}))


# Attach points


def with_program(section: str) -> Loader:
    writer = ObjectWriter()
    writer.add_program(section, "main")
    return generate(writer.read(), "kfunc")


@pytest.mark.parametrize(
    "section",
    ["kprobe/do_unlinkat", "uprobe//bin/sh:main", "tp/sched/sched_switch", "raw_tp/sched_switch"],
)
def test_attach_points_that_no_part_of_a_loader_holds_are_named(section: str) -> None:
    found = verify_loader(signed(with_program(section)), [certificate()])
    assert [(entry.name, entry.section) for entry in found.not_covered] == [("main", section)]


@pytest.mark.parametrize("section", ["tp_btf/sched_switch", "lsm/file_open", "xdp", "tcx/ingress"])
def test_attach_points_that_the_loader_holds_are_covered(section: str) -> None:
    assert open_attach_points(with_program(section)) == ()


@pytest.mark.parametrize(
    ("section", "lie"),
    [
        ("tp_btf/sched_switch", "tp_btf/sched_wakeup"),
        ("tp_btf/sched_switch", "fentry/sched_switch"),
        ("lsm/file_open", "lsm.s/file_open"),
        ("xdp", "xdp.frags"),
        ("tcx/ingress", "tcx/egress"),
        ("cgroup_skb/egress", "cgroup_skb/ingress"),
        ("kprobe/do_unlinkat", "kprobe.multi/do_*"),
        ("kprobe/do_unlinkat", "tp/sched/sched_switch"),
        ("xdp", "no section of any kind"),
    ],
)
def test_a_section_must_stand_for_what_the_loader_loads(section: str, lie: str) -> None:
    loader = with_program(section)
    check_config(loader)
    program = replace(loader.programs[0], section=lie)
    with pytest.raises(VerificationError, match="section"):
        check_config(replace(loader, programs=(program,)))


# Cuts and labels: the same signed bytes as another loader


def recut(loader: Loader, border: int) -> Loader:
    whole = loader.insns + loader.metadata
    return replace(loader, insns=whole[:border], metadata=whole[border:])


def test_the_signed_bytes_with_another_border_do_not_verify_load_or_import() -> None:
    """Linux 7.3 signs instructions || metadata: the border is not signed."""
    good = signed(example("loadtime"))
    verify_loader(good, [certificate()])
    kernel = ModelKernel(profile=PROFILES["7.3"])
    size = len(good.loader.insns) + len(good.loader.metadata)
    for border in [*range(0, size + 1, 24), len(good.loader.insns) + 8, size - 8]:
        if border == len(good.loader.insns):
            continue
        variant = replace(good, loader=recut(good.loader, border))
        refused(partial(verify_loader, variant, [certificate()]))
        refused(partial(load, kernel, variant))
        blobs = {"opts_insn": variant.loader.insns, "opts_data": variant.loader.metadata}
        header = header_of(good, replaced=blobs)
        refused(partial(import_header, header.encode(), "x.lskel.h"))
    assert kernel.trace == ()


def refused(use: Callable[[], object]) -> None:
    with pytest.raises(BpfsealError):
        use()


@pytest.mark.parametrize("scheme", SIGNED_SCHEMES)
@pytest.mark.parametrize("label", SIGNED_SCHEMES)
@pytest.mark.parametrize("cut", ["as it is", "without metadata", "the BTF as metadata"])
def test_a_loader_of_one_scheme_is_none_of_another(scheme: str, label: str, cut: str) -> None:
    """Whatever a signature over the same bytes covers under the other label."""
    loader = example(scheme)
    if scheme == label and cut == "as it is":
        return
    metadata = {"without metadata": b"", "the BTF as metadata": loader.btf}
    renamed = replace(
        loader,
        scheme_name=label,
        metadata=metadata.get(cut, loader.metadata),
        btf=example(label).btf,
    )
    every: list[Payload] = [("insns",), ("insns", "metadata"), ("insns", "btf")]
    kernel = ModelKernel(profile=PROFILES["7.3"])
    for payload in every:
        variant = signed_over(renamed, payload)
        refused(partial(verify_loader, variant, [certificate()]))
        refused(partial(load, kernel, variant))
    assert kernel.trace == ()


def test_the_facts_that_are_compared_are_all_there_are() -> None:
    """A new field of the config is either derived or named as not covered."""
    assert {each.name for each in fields(MapEntry)} == {
        *("name", "ident", "type", "key_size", "value_size", "max_entries", "flags"),
        "has_initial_value",
    }
    assert {each.name for each in fields(ProgramEntry)} == {
        *("name", "section", "type", "attach_type", "attach_target", "insn_count"),
    }
