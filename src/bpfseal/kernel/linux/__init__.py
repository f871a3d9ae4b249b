"""The running Linux kernel."""
