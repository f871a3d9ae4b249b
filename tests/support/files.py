"""Real objects: the example that is part of the project, and those that `make objects` fetches."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

EXAMPLE = ROOT / "examples" / "exectrace.bpf.o"

LIBBPF_TOOLS = ROOT / "build" / "objects" / "bookworm-libbpf-tools"
