"""What a signature covers: the one place that knows it.

A scheme names the signed parts of a loader in their order (`bpfseal.scheme.Scheme.signed_parts`);
the signed payload is those parts, one right after the other, with no length or separator between
them: what the kernel puts together again at the load (and, for ``kfunc``, what
``bpftool_prog_sign`` in tools/bpf/bpftool/sign.c signs).

Example:
    >>> from bpfseal.scheme import SCHEMES
    >>> signed_payload(SCHEMES["kfunc"], insns=b"insns", metadata=b"data", btf=b"btf")
    b'insnsbtf'
"""

from __future__ import annotations

from bpfseal.release import Payload
from bpfseal.scheme import Part, Scheme


def joined(payload: Payload, *, insns: bytes, metadata: bytes, btf: bytes) -> bytes:
    """Return these parts of a loader as they are signed.

    Args:
        payload: the names of the parts, in signed order.
        insns: the loader program.
        metadata: the value of the metadata map.
        btf: the loader's own BTF; empty where there is none.
    """
    parts: dict[Part, bytes] = {"insns": insns, "metadata": metadata, "btf": btf}
    return b"".join(parts[part] for part in payload)


def signed_payload(scheme: Scheme, *, insns: bytes, metadata: bytes, btf: bytes) -> bytes:
    """Return the bytes that a signature of `scheme` covers; see `joined` for the arguments."""
    return joined(scheme.signed_parts, insns=insns, metadata=metadata, btf=btf)
