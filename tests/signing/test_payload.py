from __future__ import annotations

from bpfseal.scheme import KFUNC, Scheme
from bpfseal.signing.payload import signed_payload


def test_kfunc_covers_the_instructions_and_then_the_loader_btf() -> None:
    assert signed_payload(KFUNC, insns=b"I", metadata=b"M", btf=b"B") == b"IB"


def test_a_scheme_decides_which_parts_are_covered_and_in_which_order() -> None:
    scheme = Scheme(name="x", title="x", signed_parts=("metadata", "insns"))
    assert signed_payload(scheme, insns=b"I", metadata=b"M", btf=b"B") == b"MI"
