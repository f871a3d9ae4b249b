"""Real kernels: Debian's cloud kernels under QEMU, one boot for each kernel and run."""
