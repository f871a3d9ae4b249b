"""The registry: every entry into the library for bytes or text that nobody vouches for."""

from __future__ import annotations

from . import bundles, models, objects, registries, signatures, skeletons, texts
from .base import Target

TARGETS = {
    target.name: target
    for module in (objects, bundles, signatures, registries, texts, models, skeletons)
    for target in module.TARGETS
}

__all__ = ["TARGETS", "Target"]
