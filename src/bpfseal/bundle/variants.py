"""Which variants of a bundle may be loaded, and in which order they are tried.

Example:
    >>> [variant.loader.scheme_name for variant in loadable_variants(bundle)]
    ['loadtime', 'kfunc', 'inline', 'inline-original']
"""

from __future__ import annotations

from typing import Final

from bpfseal.bundle.derivation import check_config
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.errors import InputError, UsageError, VerificationError
from bpfseal.loader.model import Loader
from bpfseal.scheme import STRONGEST_FIRST, UNSIGNED

_ORDER: Final = tuple(scheme.name for scheme in (*STRONGEST_FIRST, UNSIGNED))


def loadable_variants(bundle: Bundle) -> tuple[SignedLoader, ...]:
    """Return the variants to try: signed ones, the strongest first, or the only one, unsigned.

    What nobody signed is left out beside what somebody signed.

    Raises:
        UsageError: no variant is signed that should be, or there is nothing to load.
        InputError: the variants differ in name, maps or programs, or two of these have one name.
    """
    check_name(bundle)
    variants = sorted(bundle.variants, key=lambda variant: _ORDER.index(variant.loader.scheme_name))
    if not variants:
        raise UsageError("the bundle holds no loader")
    if signable := [entry for entry in variants if entry.loader.scheme.signed_parts]:
        variants = [entry for entry in signable if entry.signatures]
        if not variants:
            raise UsageError(
                f"the variant {signable[0].loader.scheme_name} is not signed",
                hint="bpfseal sign, or --scheme unsigned of an object",
            )
    if len({_what_it_makes(variant.loader) for variant in variants}) > 1:
        raise InputError("the variants make different maps or programs", where=bundle.name)
    loader = variants[0].loader
    for names in (
        [entry.ident for entry in loader.maps],
        [entry.name for entry in loader.programs],
    ):
        if len(set(names)) < len(names):
            raise InputError("two maps or two programs have the same name", where=bundle.name)
    return tuple(variants)


def check_name(bundle: Bundle) -> None:
    """Check that a bundle and its loaders are about one object.

    Raises:
        InputError: a loader is of an object of another name.
    """
    for variant in bundle.variants:
        if variant.loader.name != bundle.name:
            raise InputError(
                f"the bundle is of {bundle.name!r}, its variant {variant.loader.scheme_name} "
                f"of {variant.loader.name!r}"
            )


def check_bundle(bundle: Bundle) -> None:
    """Check that a bundle says of its loaders what they say themselves.

    Raises:
        InputError: a loader is of an object of another name.
        VerificationError: see `bpfseal.bundle.derivation.check_config`.
    """
    check_name(bundle)
    for variant in bundle.variants:
        try:
            check_config(variant.loader)
        except VerificationError as error:
            error.where = error.where or variant.loader.scheme_name
            raise


def _what_it_makes(loader: Loader) -> tuple[object, ...]:
    return loader.maps, loader.programs, loader.byteorder
