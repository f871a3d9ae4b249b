"""The BPF instruction set, UAPI constants and `bpf_attr` layouts."""
