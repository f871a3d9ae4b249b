"""``python -m bpfseal``: the command line."""

import os
import sys

# Python puts the current directory first: whatever lies there could take the place of a module
# that is imported from here on. The script ``bpfseal`` has its own directory there instead.
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.path.abspath(os.curdir)):  # noqa: PTH100
    del sys.path[0]

from bpfseal.cli import main

if __name__ == "__main__":
    sys.exit(main())
