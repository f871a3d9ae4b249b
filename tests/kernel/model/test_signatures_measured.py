"""The model answers to signatures and certificates as real kernels did (`measured/README.md`)."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bpfseal.bpf.uapi import KeyringId, ProgFlag, ProgType
from bpfseal.errors import BpfsealError, InputError, KernelError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.keyring import Keyrings
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.protocol import ProgLoad
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.signer import load_signer

MEASURED = Path(__file__).parent / "measured"
TRUSTED = ("A", "B", "D")


@cache
def measured(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lzma.decompress((MEASURED / name).read_bytes()))
    return found


def certificates() -> list[Any]:
    return [pytest.param(bytes.fromhex(der), answer, id=name) for name, der, answer in _rows()]


def _rows() -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = measured("certificates.json.xz")["certificates"]
    return rows


def answer_to_load(kernel: ModelKernel, insns: bytes, signature: bytes) -> str:
    request = ProgLoad(
        ProgType.SYSCALL,
        "p",
        insns,
        "GPL",
        flags=ProgFlag.SLEEPABLE,
        signature=signature,
        keyring_id=KeyringId.SESSION,
    )
    try:
        fd = kernel.prog_load(request)
    except KernelError as error:
        return error.errno_name
    kernel.close(fd)
    return "ok"


@pytest.mark.parametrize("number", range(5))
def test_every_measured_message_is_answered_as_the_kernel_did(number: int) -> None:
    data = measured("messages.json.xz")
    kernel = ModelKernel(profile=PROFILES[data["releases"][number].rpartition(".")[0]])
    for name in TRUSTED:
        kernel.keyrings.add_key(KeyringId.SESSION, bytes.fromhex(data["certificates"][name]))
    programs = {which: bytes.fromhex(code) for which, code in data["programs"].items()}
    wrong: Counter[str] = Counter()
    count = 0
    for _, family, cms, *answers in data["messages"]:
        for which, answer in zip(("signed", "other"), answers, strict=True):
            expected = answer if isinstance(answer, str) else answer[number]
            found = answer_to_load(kernel, programs[which], bytes.fromhex(cms))
            count += 1
            if found != expected:
                wrong[f"{family}: {expected}, not {found}"] += 1
    assert count == 3284
    assert not wrong


@pytest.mark.parametrize(("der", "answer"), certificates())
def test_every_measured_certificate_is_answered_as_the_kernel_did(der: bytes, answer: str) -> None:
    keyrings = Keyrings(PROFILES["6.18-unverified"])
    found = "OK"
    try:
        keyrings.add_key(KeyringId.SESSION, der)
    except KernelError as error:
        found = error.errno_name
    assert found == answer


@pytest.mark.parametrize(("der", "answer"), certificates())
def test_what_no_kernel_takes_does_not_verify_and_does_not_sign(der: bytes, answer: str) -> None:
    if answer == "OK":
        assert Certificate.from_der(der).der == der
        return
    with pytest.raises(InputError) as refused:
        Certificate.from_der(der)
    assert "\n" not in str(refused.value)
    if der:
        assert f"-{answer}: " in str(refused.value)
    with pytest.raises(BpfsealError):
        load_signer(b"", der)
