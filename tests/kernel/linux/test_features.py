"""What a kernel can do is read from its BTF and from its answers, never from its version."""

from __future__ import annotations

import pytest

from bpfseal.btf.btf import Btf
from bpfseal.btf.builder import BtfBuilder
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.features import find_features
from bpfseal.kernel.linux.trial import verifies_signatures
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.protocol import ProgLoad
from bpfseal.loader.checks import VERIFY_KFUNC


def kernel_btf(*, kfunc: bool = False, **structs: tuple[str, ...]) -> Btf:
    builder = BtfBuilder()
    number = builder.add_int("int", 4)
    for name, members in structs.items():
        builder.add_struct(name, 8, [(member, number, 0) for member in members])
    if kfunc:
        builder.add_func(VERIFY_KFUNC, builder.add_func_proto(number, []))
    return Btf.from_bytes(builder.encode(), trusted=True)


@pytest.mark.parametrize(
    ("btf", "scheme"),
    [
        (kernel_btf(bpf_map=("ops",), bpf_verifier_env=("prog",)), None),
        (kernel_btf(bpf_map=("sha",), bpf_verifier_env=("prog",)), "inline-original"),
        (kernel_btf(bpf_map=("sha", "excl"), bpf_verifier_env=("prog",)), "inline"),
        (kernel_btf(bpf_map=("sha",), bpf_verifier_env=("prog", "signature")), "loadtime"),
        (kernel_btf(kfunc=True, bpf_map=("sha", "excl"), bpf_verifier_env=("prog",)), "kfunc"),
    ],
)
def test_the_features_speak_for_one_scheme(btf: Btf, scheme: str | None) -> None:
    assert find_features(btf).scheme() == scheme


def test_a_struct_that_the_btf_lacks_leaves_the_answer_open() -> None:
    features = find_features(kernel_btf(bpf_map=("sha",)))
    assert features.loadtime.answer is None
    assert features.loadtime.reason == "BTF has no struct bpf_verifier_env"


def test_every_answer_has_its_reason() -> None:
    features = find_features(kernel_btf(bpf_map=("sha",), bpf_verifier_env=("prog",)))
    assert features.kfunc.reason == f"BTF lacks the function {VERIFY_KFUNC}"
    assert features.map_hash.reason == "struct bpf_map has the field sha"
    assert features.exclusive_flag.reason == "struct bpf_map lacks the field excl"


def test_a_kernel_that_calls_a_broken_signature_broken_verifies_signatures() -> None:
    assert verifies_signatures(ModelKernel()).answer is True


class Refusing(ModelKernel):
    """A kernel with one answer to every load."""

    def __init__(self, errno: int) -> None:
        super().__init__()
        self._errno = errno

    def prog_load(self, request: ProgLoad) -> int:
        raise KernelError(self._errno, request.name)


@pytest.mark.parametrize(
    ("errno", "answer"), [(95, False), (7, False), (74, True), (1, None), (13, None), (12, None)]
)
def test_what_a_refusal_says_about_signatures(errno: int, answer: bool | None) -> None:
    finding = verifies_signatures(Refusing(errno))
    assert finding.answer is answer
    assert finding.reason
