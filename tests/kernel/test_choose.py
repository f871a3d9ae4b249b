"""`load_bundle`: the variant that a kernel takes, by the rule of the C skeletons."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import KernelError, UsageError
from bpfseal.kernel.choose import load_bundle
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.protocol import MapCreate, ProgLoad, RunResult
from bpfseal.loader import generate
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


class Answering:
    """A kernel that answers the loads of loaders as it is told, and says what it saw."""

    description = "answers as told"

    def __init__(self, *answers: int, of_run: int = 0) -> None:
        self._answers = list(answers)
        self._of_run = of_run
        self._asked = False
        self.tried = ""
        self.open: list[int] = []

    def _opened(self) -> int:
        self.open.append(len(self.open) + 10)
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

    def prog_run(self, fd: int, ctx: bytes) -> RunResult:
        assert fd in self.open
        return RunResult(-self._of_run, ctx)

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
def test_the_next_variant_is_tried_when_the_format_or_key_is_refused(
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
    assert kernel.open == []


def test_the_model_of_the_series_takes_its_own_variant() -> None:
    kernel: ModelKernel = trusting_kernel()
    loaded = load_bundle(kernel, bundle_of(*SIGNED_SCHEMES))
    loads = [call for call in kernel.trace if call.by == "user" and call.name == "prog_load"]
    assert [call.result > 0 for call in loads] == [False, True]
    assert all(fd > 0 for fd in (*loaded.map_fds.values(), *loaded.prog_fds.values()))


def test_an_unsigned_variant_is_never_a_way_out() -> None:
    kernel = Answering(REJECTED)
    with pytest.raises(KernelError, match="EKEYREJECTED"):
        load_bundle(kernel, bundle_of("kfunc", "unsigned"))
    assert kernel.tried == "K"


def test_a_variant_that_should_be_signed_is_refused_without() -> None:
    bundle = bundle_of("kfunc", "loadtime")
    bare = replace(bundle.variants[1], signatures=())
    with pytest.raises(UsageError, match="loadtime is not signed"):
        load_bundle(Answering(), replace(bundle, variants=(bundle.variants[0], bare)))
