"""Signed loaders and bundles as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from bpfseal import __version__
from bpfseal.errors import UsageError
from bpfseal.loader.model import Loader

TOOL: Final = f"bpfseal {__version__}"
"""What makes the loaders of this version."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A detached CMS signature over one loader.

    Attributes:
        cms: DER of the CMS ContentInfo.
        certificate: DER of the signer's X.509 certificate, carried for convenience: it is trusted
            by nobody because it lies here.
    """

    cms: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class SignedLoader:
    """A loader with the signatures made over it; without any it is unsigned.

    Attributes:
        loader: the loader.
        signatures: one for each signer, in the order in which they signed.
        tool: the name and version of what made the loader. Signing keeps it, so that a signature
            changes nothing else in a bundle.
    """

    loader: Loader
    signatures: tuple[Signature, ...] = ()
    tool: str = TOOL

    def with_signature(self, signature: Signature) -> SignedLoader:
        """Return the same loader with one more signature."""
        return replace(self, signatures=(*self.signatures, signature))


@dataclass(frozen=True, slots=True)
class Bundle:
    """The variants of one object, one for each scheme.

    Attributes:
        name: the object's name.
        variants: at most one for each scheme.
    """

    name: str
    variants: tuple[SignedLoader, ...]

    def variant(self, scheme_name: str) -> SignedLoader:
        """Return the variant of a scheme.

        Raises:
            UsageError: the bundle has none.
        """
        for variant in self.variants:
            if variant.loader.scheme_name == scheme_name:
                return variant
        have = ", ".join(variant.loader.scheme_name for variant in self.variants) or "none"
        raise UsageError(f"no variant for scheme {scheme_name}", hint=f"it has: {have}")
