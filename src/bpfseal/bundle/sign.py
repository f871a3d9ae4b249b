"""Sign loaders and bundles.

Example:
    >>> from bpfseal.scheme import SCHEMES
    >>> SCHEMES["kfunc"].signed_parts  # what `sign_loader` signs
    ('insns', 'btf')
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from bpfseal.bundle.downgrade import refuse_traps, refuse_unchecked_signing
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.errors import UsageError
from bpfseal.loader.model import Loader
from bpfseal.signing import cms
from bpfseal.signing.payload import signed_payload
from bpfseal.signing.signer import Signer


def payload_of(loader: Loader) -> bytes:
    """Return the bytes that a signature over this loader covers."""
    return signed_payload(
        loader.scheme, insns=loader.insns, metadata=loader.metadata, btf=loader.btf
    )


def sign_loader(signed: SignedLoader, signer: Signer, *, hash_name: str = "sha256") -> SignedLoader:
    """Return the loader with one more signature.

    A signature that is there already, byte for byte, is not added twice. What the config says of a
    loader that comes from a bundle is not looked at: `bpfseal.bundle.variants.check_bundle` does,
    and so does who verifies.

    Args:
        signed: the loader, with or without signatures.
        signer: the key and its certificate.
        hash_name: ``sha256``, ``sha384`` or ``sha512``.

    Raises:
        UsageError: the loader is of a scheme without a signature.
        DowngradeTrapError: some kernel would load it with metadata that nobody checks, or does so
            with a signature that is there already.
        VerificationError: a signature that is there already cannot be judged (`refuse_traps`).
    """
    if not signed.loader.scheme.signed_parts:
        raise UsageError(f"scheme {signed.loader.scheme_name} has no signature")
    refuse_unchecked_signing(signed.loader)
    refuse_traps(signed, [signer.certificate])
    signature = Signature(
        cms=cms.build(payload_of(signed.loader), signer, hash_name),
        certificate=signer.certificate.der,
    )
    return signed if signature in signed.signatures else signed.with_signature(signature)


def sign_bundle(
    bundle: Bundle, signer: Signer, *, schemes: Collection[str], hash_name: str = "sha256"
) -> Bundle:
    """Return the bundle with one more signature on each variant of these schemes.

    Raises:
        UsageError: the bundle has no variant of one of the schemes, or it has no signature.
    """
    for scheme_name in schemes:
        bundle.variant(scheme_name)
    variants = tuple(
        sign_loader(variant, signer, hash_name=hash_name)
        if variant.loader.scheme_name in schemes
        else variant
        for variant in bundle.variants
    )
    return replace(bundle, variants=variants)
