"""ML-DSA (FIPS 204), where the installed ``cryptography`` has it.

ML-DSA signs a message, not a digest of it: "pure" ML-DSA with an empty context, as RFC 9882 uses it
in CMS. Linux has it since the releases after 7.3, with CONFIG_CRYPTO_MLDSA.

Example::

    if available():
        key = generate("mldsa65")
        private_key_kind(key)  # "mldsa65"
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm

from bpfseal.errors import CapabilityError
from bpfseal.release import ML_DSA

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import mldsa

    PrivateKey: TypeAlias = (
        mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
    )
    PublicKey: TypeAlias = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey

KINDS: Final = ML_DSA
"""The names that Linux gives to the parameter sets (``pkcs7_sig_note_pkey_algo``)."""

SIGNATURE_SIZES: Final = {"mldsa44": 2420, "mldsa65": 3309, "mldsa87": 4627}
"""Bytes of a signature of each parameter set (FIPS 204, table 2)."""

DIGEST: Final = "sha512"
"""What a CMS message names as its digest although there is none (RFC 9882, section 3.3)."""


@dataclass(frozen=True, slots=True)
class _Classes:
    private: Any
    public: Any


@functools.cache
def _classes() -> dict[str, _Classes]:
    """The classes of each parameter set; empty where ``cryptography`` or its OpenSSL is older."""
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa

        mldsa.MLDSA44PrivateKey.generate()
    except (ImportError, UnsupportedAlgorithm):
        return {}
    return {
        "mldsa44": _Classes(mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
        "mldsa65": _Classes(mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
        "mldsa87": _Classes(mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
    }


def available() -> bool:
    """Tell whether this installation can sign and verify with ML-DSA."""
    return bool(_classes())


def require() -> None:
    """Refuse to go on without ML-DSA.

    Raises:
        CapabilityError: this installation has none.
    """
    if not available():
        raise CapabilityError(
            "the installed cryptography has no ML-DSA",
            hint="pip install --upgrade cryptography, or use RSA or ECDSA",
        )


def generate(kind: str) -> PrivateKey:
    """Make a private key.

    Args:
        kind: one of `KINDS`.

    Raises:
        CapabilityError: this installation has no ML-DSA.
    """
    require()
    key: PrivateKey = _classes()[kind].private.generate()
    return key


def private_key_kind(key: object) -> str | None:
    """Return the parameter set of a private key, or None for a key of another algorithm."""
    return next(
        (kind for kind, known in _classes().items() if isinstance(key, known.private)), None
    )


def public_key_kind(key: object) -> str | None:
    """Return the parameter set of a public key, or None for a key of another algorithm."""
    return next((kind for kind, known in _classes().items() if isinstance(key, known.public)), None)


def load_public_key(kind: str, data: bytes) -> PublicKey | None:
    """Return a public key from its raw bytes, or None for another algorithm or without ML-DSA.

    Raises:
        ValueError: another number of bytes than such a key has.
    """
    known = _classes().get(kind)
    if known is None:
        return None
    key: PublicKey = known.public.from_public_bytes(data)
    return key


def verify(key: object, kind: str, signature: bytes, data: bytes) -> bool:
    """Verify a signature.

    Args:
        key: a public key of any algorithm.
        kind: the parameter set that the signature is said to be of.
        signature: the signature value.
        data: the whole message.

    Returns:
        False if the key is of another kind.

    Raises:
        cryptography.exceptions.InvalidSignature: it does not verify.
    """
    if public_key_kind(key) != kind:
        return False
    public_key: Any = key
    public_key.verify(signature, data)
    return True
