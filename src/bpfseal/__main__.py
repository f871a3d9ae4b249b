"""``python -m bpfseal``: the command line."""

import sys

from bpfseal.cli import main

if __name__ == "__main__":
    sys.exit(main())
