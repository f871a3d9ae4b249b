"""What runs in the guests: the standard library, bpfseal, and nothing else is there."""
