"""A Python module that embeds a bundle and loads it with bpfseal.

Example:
    >>> source = python_skeleton(bundle)  # doctest: +SKIP
    >>> namespace = {}; exec(source, namespace)  # doctest: +SKIP
    >>> namespace["load"](kernel).prog_fds  # doctest: +SKIP
    {'on_exec': 9, 'on_exit': 10}
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Final

from bpfseal import __version__
from bpfseal.bundle.model import Bundle
from bpfseal.bundle.skeleton_variants import chosen_variants
from bpfseal.bundle.store import pack

_LINE: Final = 88

_TEMPLATE: Final = '''\
"""{name}, ready to load: made by bpfseal {version}, do not edit.

Schemes: {schemes}.
"""

from __future__ import annotations

import base64

from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.model import Bundle
from bpfseal.bundle.store import unpack
from bpfseal.kernel.choose import load_bundle
from bpfseal.kernel.load import LoadedSkeleton
from bpfseal.kernel.protocol import Kernel

NAME = "{name}"
MAPS = ({maps})
PROGRAMS = ({programs})


def bundle() -> Bundle:
    """Return the embedded bundle."""
    return unpack(base64.b64decode(_BUNDLE), NAME)


def load(kernel: Kernel, *, keyring_id: int = KeyringId.SESSION) -> LoadedSkeleton:
    """Load the variant that the kernel takes and return the fds of its maps and programs."""
    return load_bundle(kernel, bundle(), keyring_id=keyring_id)


_BUNDLE = (
{blob}
)
'''


def python_skeleton(bundle: Bundle) -> str:
    """Return the module; the same bundle gives the same text.

    Args:
        bundle: signed variants, or one that is unsigned.

    Raises:
        UsageError: a variant that should be signed is not.
        VerificationError: the metadata is not what the signed instructions vouch for.
        InputError: the variants contradict each other, or a name is no identifier.
    """
    variants = chosen_variants(bundle)
    loader = variants[0].loader
    text = base64.b64encode(pack(replace(bundle, variants=variants))).decode()
    return _TEMPLATE.format(
        name=bundle.name,
        version=__version__,
        schemes=", ".join(variant.loader.scheme_name for variant in variants),
        maps="".join(f'"{entry.ident}", ' for entry in loader.maps).rstrip(" "),
        programs="".join(f'"{entry.name}", ' for entry in loader.programs).rstrip(" "),
        blob="\n".join(f'    "{text[at : at + _LINE]}"' for at in range(0, len(text), _LINE)),
    )
