"""The running kernel, for tests that compare the model with it."""

from __future__ import annotations

import pytest

from bpfseal.kernel.linux.kernel import LinuxKernel

from .compare import running_kernel


@pytest.fixture(scope="session")
def linux() -> LinuxKernel:
    """The running kernel."""
    kernel = running_kernel()
    if kernel is None:
        pytest.skip("needs root and a kernel that takes SYSCALL programs")
    return kernel
