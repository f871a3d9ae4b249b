"""Kernels to load into: the protocol, the load itself, and the kernel model."""
