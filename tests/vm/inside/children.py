"""Child processes: a fresh one for each job that is about a process."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def in_child(work: Callable[[], Any]) -> Any:
    """Do something in a child process, and return its result, which JSON can express.

    Raises:
        RuntimeError: it did not come to its end; the message is the child's traceback.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            text = json.dumps({"result": work()})
        except BaseException:  # noqa: BLE001 (whatever it is, the parent hears of it)
            text = json.dumps({"error": traceback.format_exc()})
        with os.fdopen(write_end, "w") as pipe:
            pipe.write(text)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer = json.loads(pipe.read() or '{"error": "the child was killed"}')
    os.waitpid(child, 0)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["result"]
