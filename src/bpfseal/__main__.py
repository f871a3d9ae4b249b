"""The program: ``bpfseal``, and ``python -m bpfseal``.

Whatever ends it before the command line is there to say so ends it with one line as well.
"""

import os
import sys


def _is_current_directory(path: str) -> bool:
    try:
        return path in ("", os.path.abspath(os.curdir))  # noqa: PTH100 - nothing is imported yet
    except OSError:  # it is gone
        return False


# With -m Python puts the current directory first: whatever lies there could take the place of a
# module that is imported from here on. The script ``bpfseal`` has its own directory there instead.
if (
    __name__ == "__main__"
    and not sys.flags.safe_path
    and sys.path
    and _is_current_directory(sys.path[0])
):
    del sys.path[0]

import signal  # noqa: E402

_UNAVAILABLE = 4
_INTERRUPTED = 128 + signal.SIGINT


def main() -> int:
    """Run the command line; return the exit status."""
    waits = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else: nohup and such
    try:
        if waits:
            # At once: an exception would go through code of extension modules that are half loaded.
            signal.signal(signal.SIGINT, lambda *_: _end("interrupted", _INTERRUPTED))
        try:
            from bpfseal.cli import main as run
        except (MemoryError, ImportError, OSError) as error:
            _end(str(error) or "not enough memory", _UNAVAILABLE)
        if waits:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run()
        if waits:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is done: nobody is there to catch it
    except KeyboardInterrupt:
        _end("interrupted", _INTERRUPTED)
    return status


def _end(reason: str, status: int) -> None:
    """End the process with a line; nothing is there yet that would have to be cleaned up."""
    try:
        os.write(2, f"bpfseal: {' '.join(reason.split())}\n".encode(errors="replace"))
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
