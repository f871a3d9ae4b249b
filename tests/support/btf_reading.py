"""Use every look-up of a BTF on every type."""

from __future__ import annotations

import contextlib

from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import FIXED_WORDS, MEMBER_WORDS, Kind
from bpfseal.errors import BpfsealError


def read_everything(btf: Btf) -> None:
    """Use every look-up on every type."""
    for type_id in range(len(btf)):
        described = btf.type_by_id(type_id)
        btf.find(described.name, described.kind)
        if described.kind in (Kind.STRUCT, Kind.UNION):
            btf.members(type_id)
        elif described.kind is Kind.DATASEC:
            btf.secinfos(type_id)
        elif described.kind in MEMBER_WORDS:
            assert len(list(btf.entries(type_id))) == described.vlen
        elif described.kind in FIXED_WORDS:
            btf.extra_word(type_id, FIXED_WORDS[described.kind] - 1)
        for measure in (btf.skip_modifiers, btf.resolve_size, btf.align_of):
            with contextlib.suppress(BpfsealError):
                measure(type_id)
