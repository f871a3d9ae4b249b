"""What an object wants to know of the machine that loads it, stated instead of looked up.

The reference generator asks the build host for these values and writes the answers into the signed
metadata. Here they are options with defaults that suit every machine a signed loader can run on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """

    page_size: int = 4096
    possible_cpus: int = 8192
    kernel_version: int = 6 << 16 | 18 << 8
    kconfig: Mapping[str, str] = field(default_factory=dict)


DEFAULT_TARGET = TargetValues()
