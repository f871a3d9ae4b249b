"""What an object wants to know of the machine that loads it, stated instead of looked up.

The reference generator asks the build host for these values and writes the answers into the signed
metadata. Here they are options with defaults that suit every machine a signed loader can run on.

Example:
    >>> TargetValues.from_json(b'{"possible_cpus": 2}').possible_cpus
    2
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from bpfseal.bpf.insn import ByteOrder
from bpfseal.errors import InputError

_MAX_U32 = 0xFFFFFFFF
_MAX_PAGE_SIZE = 1 << 20
_NUMBER: Final = re.compile("[0-9]{1,9}")


def kernel_version(text: str) -> int:
    """Return a release such as ``6.18`` or ``6.18.44`` as KERNEL_VERSION(a, b, c).

    The last number is cut at 255, as the kernel's own macro does.

    Raises:
        InputError: not two or three numbers.
    """
    parts = text.split(".")
    if not 2 <= len(parts) <= 3 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise InputError(f"kernel version {text[:40]!r} is not of the form 6.18 or 6.18.44")
    major, minor, patch = [int(part) for part in (*parts, "0")[:3]]
    if major > 0xFFFF or minor > 0xFF:
        raise InputError(f"kernel version {text!r} is out of range")
    return major << 16 | minor << 8 | min(patch, 255)


@dataclass(frozen=True, slots=True)
class TargetValues:
    """Values of the target machines.

    Attributes:
        page_size: bytes of a page; ring buffers are rounded to it.
        possible_cpus: entries of a perf event array that gives no number. The default is the
            largest number of CPUs that distribution kernels are built for (CONFIG_NR_CPUS); an
            entry that no CPU uses costs 8 bytes.
        kernel_version: the extern ``LINUX_KERNEL_VERSION``, as KERNEL_VERSION(a, b, c). The
            default is 6.18.0, the first release that loads signed loaders.
        kconfig: values of ``CONFIG_*`` externs, as in a kernel's .config: ``y``, ``m``, ``n``, a
            number, or a string in double quotes.
        symbols: addresses of kernel symbols without a type. By default the loader finds them; the
            reference also writes the build host's addresses into the metadata.
        kconfig_byteorder: byte order of numbers in `kconfig` and of `kernel_version`. By default
            the object's own, which is what its programs read; the reference takes the build host's.
    """

    page_size: int = 4096
    possible_cpus: int = 8192
    kernel_version: int = 6 << 16 | 18 << 8
    kconfig: Mapping[str, str] = field(default_factory=dict)
    symbols: Mapping[str, int] = field(default_factory=dict)
    kconfig_byteorder: ByteOrder | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: a value that no machine has.
        """
        if not 4096 <= self.page_size <= _MAX_PAGE_SIZE or self.page_size & (self.page_size - 1):
            raise InputError(f"page size {self.page_size} is no power of 2 from 4096 to 1 MiB")
        if not 0 < self.possible_cpus <= _MAX_U32:
            raise InputError(f"{self.possible_cpus} possible CPUs")
        if not 0 <= self.kernel_version <= _MAX_U32:
            raise InputError(f"kernel version {self.kernel_version:#x}")
        if self.kconfig_byteorder not in (None, "little", "big"):
            raise InputError(f"byte order {self.kconfig_byteorder!r}")

    def to_json(self) -> bytes:
        """Return the values as a JSON document."""
        return json.dumps(asdict(self), indent=2, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str = "host values") -> TargetValues:
        """Read the values from a JSON document; those it leaves out have their defaults.

        Raises:
            InputError: not such a document.
        """
        try:
            document: Any = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}", where=where) from None
        known = {entry.name for entry in fields(cls)}
        if not isinstance(document, dict) or not set(document) <= known:
            raise InputError(f"not an object with {', '.join(sorted(known))}", where=where)
        for name, value in document.items():
            if name in ("kconfig", "symbols"):
                wanted = str if name == "kconfig" else int
                fits = isinstance(value, dict) and all(type(v) is wanted for v in value.values())
            elif name == "kconfig_byteorder":
                fits = value is None or isinstance(value, str)
            else:
                fits = type(value) is int
            if not fits:
                raise InputError(f"{name} has a value of the wrong type", where=where)
        return cls(**document)


DEFAULT_TARGET = TargetValues()


def parse_kconfig(text: str) -> dict[str, str]:
    """Return the values of a kernel's .config file; lines that set nothing are passed over."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line.startswith("CONFIG_"))
    return {name: value for name, separator, value in pairs if separator}
