"""bpfseal: the toolchain for signed BPF loaders."""

__version__ = "0.1.0"
