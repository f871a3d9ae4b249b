"""The running kernel, for tests that compare the model with it."""

from __future__ import annotations

import platform

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


@pytest.fixture(scope="session")
def linux_6_18(linux: LinuxKernel) -> LinuxKernel:
    """The running kernel, if it is of the release whose errnos and texts the tables have."""
    if not platform.release().startswith("6.18."):
        pytest.skip("errnos and texts are those of Linux 6.18")
    return linux
