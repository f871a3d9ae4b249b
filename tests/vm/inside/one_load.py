"""A process that loads one variant of a bundle, and ends: what a small service would do."""

from __future__ import annotations

import sys

import bpfseal

if __name__ == "__main__":
    path, scheme = sys.argv[1:]
    with bpfseal.load(path, scheme=scheme):
        pass
