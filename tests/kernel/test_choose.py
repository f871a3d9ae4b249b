"""`load_bundle`: the variant that a kernel takes, by the rule of the C skeletons."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import KernelError, VerificationError
from bpfseal.kernel.choose import load_bundle
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.protocol import (
    NO_POINTERS,
    MapCreate,
    MapInfo,
    ProgInfo,
    ProgLoad,
    RunResult,
)
from bpfseal.loader import generate
from bpfseal.loader.model import MapEntry
from bpfseal.object import read_object
from bpfseal.scheme import SIGNED_SCHEMES
from bpfseal.signing.signer import load_signer

from .support import key_pair, trusting_kernel

EXAMPLE = Path(__file__).parents[2] / "examples" / "exectrace.bpf.o"


def bundle_of(*schemes: str) -> Bundle:
    key = key_pair()
    signer = load_signer(key.private_key_pem, key.certificate_pem)
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    loaders = [SignedLoader(generate(obj, scheme)) for scheme in schemes]
    return Bundle(
        obj.name,
        tuple(
            sign_loader(entry, signer) if entry.loader.scheme.signed_parts else entry
            for entry in loaders
        ),
    )


LOADER = bundle_of("loadtime").variants[0].loader


class Answering:
    """A kernel that answers the loads of loaders as it is told, and says what it saw."""

    description = "answers as told"

    def __init__(self, *answers: int, of_run: int = 0, takes: str | None = None) -> None:
        self._answers = list(answers)
        self._takes = takes
        self._of_run = of_run
        self._asked = False
        self.tried = ""
        self.open: list[int] = []
        self.maps: dict[int, MapEntry] = {}

    def accepted_scheme(self) -> str | None:
        return self._takes

    def _opened(self) -> int:
        self.open.append(max(self.open, default=9) + 1)
        return self.open[-1]

    def map_create(self, request: MapCreate) -> int:
        assert request.excl_prog_hash
        self._asked = False
        return self._opened()

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        pass

    def map_freeze(self, fd: int) -> None:
        pass

    def map_hash(self, fd: int) -> bytes:
        assert fd in self.open
        self._asked = True
        return bytes(32)

    def btf_load(self, data: bytes) -> int:
        assert data
        return self._opened()

    def prog_load(self, request: ProgLoad) -> int:
        kinds = {"L": request.fd_array_cnt, "K": request.btf_fd, "I": self._asked}
        self.tried += next(letter for letter, is_it in kinds.items() if is_it)
        assert request.signature
        if answer := self._answers.pop(0):
            raise KernelError(answer)
        return self._opened()

    def prog_run(
        self, fd: int, ctx: bytes, pointers: Mapping[int, bytes] = NO_POINTERS
    ) -> RunResult:
        assert fd in self.open
        assert not pointers
        if self._of_run:
            return RunResult(-self._of_run, ctx)
        after = bytearray(ctx)
        for number, entry in enumerate(LOADER.maps):
            self.maps[fd := self._opened()] = entry
            after[(at := LOADER.map_fd_offset(number)) : at + 4] = fd.to_bytes(4, "little")
        for number in range(len(LOADER.programs)):
            at = LOADER.prog_fd_offset(number)
            after[at : at + 4] = self._opened().to_bytes(4, "little")
        return RunResult(0, bytes(after))

    def map_info(self, fd: int) -> MapInfo:
        made = self.maps[fd]
        return MapInfo(made.type, made.key_size, made.value_size, made.max_entries)

    def prog_info(self, fd: int) -> ProgInfo:
        assert fd in self.open
        return ProgInfo(LOADER.programs[0].type)

    def close(self, fd: int) -> None:
        self.open.remove(fd)


REJECTED, NO_KEY, DENIED = errno.EKEYREJECTED, errno.ENOKEY, errno.EACCES


@pytest.mark.parametrize(
    ("answers", "of_run", "tried", "outcome"),
    [
        ([0], 0, "L", 0),
        ([REJECTED, 0], 0, "LK", 0),
        ([REJECTED, REJECTED, DENIED, 0], 0, "LKII", 0),
        ([REJECTED] * 4, 0, "LKII", REJECTED),
        ([REJECTED, REJECTED, DENIED, DENIED], 0, "LKII", DENIED),
        ([NO_KEY, DENIED, DENIED, DENIED], 0, "LKII", NO_KEY),
        ([errno.EPERM], 0, "L", errno.EPERM),
        ([REJECTED, errno.EOPNOTSUPP], 0, "LK", errno.EOPNOTSUPP),
        ([0], errno.EBADMSG, "L", errno.EBADMSG),
        ([REJECTED, 0], DENIED, "LK", DENIED),
    ],
)
def test_where_features_tell_nothing_the_next_variant_is_tried_after_a_refusal(
    answers: list[int], of_run: int, tried: str, outcome: int
) -> None:
    """L: loadtime, K: kfunc, I: inline and inline-original."""
    kernel = Answering(*answers, of_run=of_run)
    bundle = bundle_of(*SIGNED_SCHEMES)
    if outcome:
        with pytest.raises(KernelError) as caught:
            load_bundle(kernel, bundle)
        assert caught.value.errno == outcome
    else:
        loaded = load_bundle(kernel, bundle)
        assert list(loaded.prog_fds) == ["on_exec", "on_exit"]
    assert kernel.tried == tried
    loaded_fds = 0 if outcome else len(LOADER.maps) + len(LOADER.programs)
    assert len(kernel.open) == loaded_fds


@pytest.mark.parametrize(
    ("takes", "tried"), [("loadtime", "L"), ("kfunc", "K"), ("inline", "I"), (None, "LKII")]
)
def test_what_the_features_speak_for_is_tried_alone(takes: str | None, tried: str) -> None:
    kernel = Answering(*[REJECTED] * 4, takes=takes)
    with pytest.raises(KernelError, match="EKEYREJECTED"):
        load_bundle(kernel, bundle_of(*SIGNED_SCHEMES))
    assert kernel.tried == tried


def test_a_variant_that_was_left_out_is_not_replaced_by_a_weaker_one() -> None:
    kernel = Answering(0, takes="inline")
    bundle = bundle_of("inline-original", "kfunc")
    with pytest.raises(VerificationError, match="no variant for scheme inline, which"):
        load_bundle(kernel, bundle)
    assert kernel.tried == ""
    assert load_bundle(kernel, bundle, scheme="inline-original").signed is bundle.variants[0]


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "6.18-unverified"])
def test_the_model_takes_the_variant_of_its_profile_at_the_first_attempt(name: str) -> None:
    kernel: ModelKernel = trusting_kernel(profile=PROFILES[name])
    if kernel.accepted_scheme() is None:
        with pytest.raises(KernelError):
            load_bundle(kernel, bundle_of(*SIGNED_SCHEMES))
        return
    loaded = load_bundle(kernel, bundle_of(*SIGNED_SCHEMES))
    loads = [call for call in kernel.trace if call.by == "user" and call.name == "prog_load"]
    assert [call.result > 0 for call in loads] == [True]
    assert loaded.signed.loader.scheme_name == kernel.accepted_scheme()
    assert all(fd > 0 for fd in (*loaded.map_fds.values(), *loaded.prog_fds.values()))


def test_what_nobody_signed_is_loaded_only_if_that_is_asked_for() -> None:
    bundle = bundle_of("unsigned")
    with pytest.raises(VerificationError, match="nothing in the bundle is signed"):
        load_bundle(trusting_kernel(), bundle)
    assert load_bundle(trusting_kernel(), bundle, scheme="unsigned").prog_fds


def test_an_unsigned_variant_is_never_a_way_out() -> None:
    kernel = Answering(REJECTED)
    with pytest.raises(KernelError, match="EKEYREJECTED"):
        load_bundle(kernel, bundle_of("kfunc", "unsigned"))
    assert kernel.tried == "K"


def partly_signed(*schemes: str) -> Bundle:
    """All variants, with signatures on some."""
    bundle = bundle_of(*SIGNED_SCHEMES)
    return replace(
        bundle,
        variants=tuple(
            variant if variant.loader.scheme_name in schemes else replace(variant, signatures=())
            for variant in bundle.variants
        ),
    )


def test_a_variant_that_is_asked_for_is_refused_without_a_signature() -> None:
    with pytest.raises(VerificationError, match="loadtime is not signed"):
        load_bundle(Answering(), partly_signed("kfunc"), scheme="loadtime")


@pytest.mark.parametrize(
    ("signed", "tried"),
    [("kfunc", "K"), ("loadtime", "L"), ("inline", "I"), ("inline-original", "I")],
)
def test_what_nobody_signed_is_passed_over_beside_what_somebody_signed(
    signed: str, tried: str
) -> None:
    kernel = Answering(REJECTED)
    with pytest.raises(KernelError, match="EKEYREJECTED"):
        load_bundle(kernel, partly_signed(signed))
    assert kernel.tried == tried


def test_a_signature_that_was_left_out_is_not_replaced_by_a_weaker_variant() -> None:
    kernel = Answering(0, takes="loadtime")
    with pytest.raises(VerificationError, match="loadtime, which this kernel takes, is not signed"):
        load_bundle(kernel, partly_signed("kfunc", "inline"))
    assert kernel.tried == ""


@pytest.mark.parametrize("scheme", ["auto", *SIGNED_SCHEMES])
def test_no_name_of_a_signed_scheme_loads_without_a_signature(scheme: str) -> None:
    """Kernels load what has no signature like any program: `Answering` would, too."""
    bundle = bundle_of(*SIGNED_SCHEMES, "unsigned")
    bare = tuple(replace(variant, signatures=()) for variant in bundle.variants)
    with pytest.raises(VerificationError, match="signed"):
        load_bundle(Answering(0), replace(bundle, variants=bare), scheme=scheme)


def test_an_unsigned_variant_with_signatures_beside_it_is_refused() -> None:
    bundle = bundle_of("unsigned", "kfunc")
    odd = replace(bundle.variants[0], signatures=bundle.variants[1].signatures)
    with pytest.raises(VerificationError, match="carries signatures"):
        load_bundle(trusting_kernel(), replace(bundle, variants=(odd,)), scheme="unsigned")
