"""A Python module that embeds a bundle and loads it with bpfseal.

Example:
    >>> source = python_skeleton(bundle)  # doctest: +SKIP
    >>> namespace = {}; exec(source, namespace)  # doctest: +SKIP
    >>> namespace["load"]().attach()  # doctest: +SKIP
    (<link of on_exec>, <link of on_exit>)
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

Schemes: {schemes}.{warning}
"""

from __future__ import annotations

import base64
from typing import Any

import bpfseal
from bpfseal.bundle.model import Bundle
from bpfseal.bundle.store import unpack
from bpfseal.skeleton import Skeleton

NAME = "{name}"
MAPS = ({maps})
PROGRAMS = ({programs})


def bundle() -> Bundle:
    """Return the embedded bundle."""
    return unpack(base64.b64decode(_BUNDLE), NAME)


def load(kernel: Any = None, **options: Any) -> Skeleton:
    """Load the variant that the kernel takes, by default the running one: see bpfseal.load."""
    return bpfseal.load(bundle(), kernel, **{options})


_BUNDLE = (
{blob}
)
'''

_OPTIONS: Final = "options"
_OPTIONS_UNSIGNED: Final = '{"scheme": "unsigned", **options}'
"""What the module passes on. It holds an unsigned loader only if that was asked for."""

_WARNING: Final = "\n\nUNSIGNED: nobody checks what this module loads."


def python_skeleton(bundle: Bundle, *, unsigned: bool = False) -> str:
    """Return the module; the same bundle gives the same text.

    Args:
        bundle: its signed variants are embedded; or, with `unsigned`, the one of scheme
            ``unsigned``.
        unsigned: the module loads what nobody signed, and says so.

    Raises:
        UsageError: no variant is signed that should be, or the other way round.
        VerificationError: the metadata is not what the signed instructions vouch for.
        InputError: the variants contradict each other, or a name is no identifier.
    """
    variants = chosen_variants(bundle, unsigned=unsigned)
    loader = variants[0].loader
    text = base64.b64encode(pack(replace(bundle, variants=variants))).decode()
    return _TEMPLATE.format(
        name=bundle.name,
        version=__version__,
        options=_OPTIONS_UNSIGNED if unsigned else _OPTIONS,
        warning=_WARNING if unsigned else "",
        schemes=", ".join(variant.loader.scheme_name for variant in variants),
        maps="".join(f'"{entry.ident}", ' for entry in loader.maps).rstrip(" "),
        programs="".join(f'"{entry.name}", ' for entry in loader.programs).rstrip(" "),
        blob="\n".join(f'    "{text[at : at + _LINE]}"' for at in range(0, len(text), _LINE)),
    )
