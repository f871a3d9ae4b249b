"""What the process that loads programs may do.

Example:
    >>> ModelKernel(rights=Rights(perfmon=False))
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Rights(NamedTuple):
    """Capabilities.

    Attributes:
        perfmon: CAP_PERFMON, or CAP_SYS_ADMIN, which contains it: programs may read stack that they
            never wrote, show addresses, read ``struct bpf_map`` and call ``bpf_sys_bpf``
            (``bpf_allow_uninit_stack``, ``bpf_allow_ptr_leaks`` and ``bpf_bypass_spec_v1`` in
            include/linux/bpf.h, ``syscall_prog_func_proto`` in kernel/bpf/syscall.c).
    """

    perfmon: bool = True


ALL_RIGHTS: Final = Rights()
"""What root may do."""
