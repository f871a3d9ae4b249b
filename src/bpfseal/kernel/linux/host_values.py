"""The values of this machine that the reference generator would bake into an artifact.

They serve to reproduce, for comparison, what the reference makes on this machine
(``build --as-built-on``); nothing else in bpfseal asks for them.
"""

from __future__ import annotations

import gzip
import platform
import re
import resource
import sys
from collections.abc import Collection
from pathlib import Path

from bpfseal.errors import CapabilityError
from bpfseal.kernel.linux.cpus import possible_cpus
from bpfseal.object.target import TargetValues, kernel_version, parse_kconfig

_KALLSYMS = Path("/proc/kallsyms")
_SYMBOL = re.compile(rb"([0-9a-f]{1,16}) [A-Za-z] ([!-~]+)\s")


def host_values(
    symbols: Collection[str] = (), options: Collection[str] | None = None
) -> TargetValues:
    """Return this machine's values.

    Args:
        symbols: kernel symbols whose addresses are wanted.
        options: the ``CONFIG_*`` options that are wanted; all by default.

    Raises:
        CapabilityError: a value cannot be read here.
    """
    config = _kconfig()
    if options is not None:
        config = {name: value for name, value in config.items() if name in options}
    return TargetValues(
        page_size=resource.getpagesize(),
        possible_cpus=possible_cpus(),
        kernel_version=_kernel_version(),
        kconfig=config,
        symbols=_addresses(symbols),
        kconfig_byteorder=sys.byteorder,
    )


def _kernel_version() -> int:
    release = re.match(r"\d+\.\d+(\.\d+)?", platform.release())
    if release is None:
        raise CapabilityError(f"kernel release {platform.release()!r} has no version")
    return kernel_version(release.group())


def _kconfig() -> dict[str, str]:
    """Return the kernel's configuration, empty where it is not published."""
    packed, plain = Path("/proc/config.gz"), Path(f"/boot/config-{platform.release()}")
    try:
        if plain.is_file():
            return parse_kconfig(plain.read_text(errors="replace"))
        if packed.is_file():
            return parse_kconfig(gzip.decompress(packed.read_bytes()).decode(errors="replace"))
    except OSError as error:
        raise CapabilityError(f"kernel configuration: {error}") from None
    return {}


def _addresses(symbols: Collection[str]) -> dict[str, int]:
    if not symbols:
        return {}
    found: dict[str, int] = {}
    try:
        with _KALLSYMS.open("rb") as lines:
            for line in lines:
                symbol = _SYMBOL.match(line)
                if symbol and (name := symbol[2].decode()) in symbols:
                    found.setdefault(name, int(symbol[1], 16))
    except OSError as error:
        raise CapabilityError(f"cannot be read: {error.strerror}", where=str(_KALLSYMS)) from None
    return found
