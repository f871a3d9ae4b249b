"""Policies, scenarios, settings, what the kernel says in text, and the whole command line."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

from bpfseal.bundle import store
from bpfseal.bundle.model import Bundle
from bpfseal.cli.main import main
from bpfseal.cli.options import Options, Parser, read_settings, section_of
from bpfseal.cli.verbs import VERBS, verb_module
from bpfseal.errors import BpfsealError
from bpfseal.kernel.linux import cpus, host_values, process, tracefs
from bpfseal.kernel.model.ipe import parse_policy
from bpfseal.kernel.model.ipe.audit import Process, access_record, load_record
from bpfseal.kernel.model.ipe.evaluate import evaluate
from bpfseal.kernel.model.ipe.review import EVENTS, review
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.model.subject import boot_model, groups_of
from bpfseal.kernel.scenario import read_collection, run_scenario
from bpfseal.kernel.scenario_keys import with_signatures
from support.files import EXAMPLE, ROOT
from support.lskel_writer import header_of

from ..mutators import BYTES, ELF, JSON, TAR, TEXT, Mutator
from .base import KEYS, Target, signed


@contextlib.contextmanager
def written(data: bytes, name: str = "fuzzed") -> Iterator[Path]:
    """Write the input to a file, for entries that take a path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


# Policies

_POLICIES = (
    b"policy_name=fuzzed policy_version=1.2.3\nDEFAULT action=DENY\n"
    b"op=BPF_PROG_LOAD bpf_signature=OK bpf_keyring=BUILTIN action=ALLOW\n"
    b"op=EXECUTE dmverity_roothash=sha256:00ff action=ALLOW # a comment\n",
    b"policy_name=n policy_version=65535.0.1\r\n"
    b"DEFAULT op=EXECUTE action=ALLOW\nDEFAULT action=DENY",
)


def _policy(data: bytes) -> object:
    policy = parse_policy(data)
    for finding in review(policy):
        str(finding.hint)
    for event in EVENTS:
        access_record(event, evaluate(policy, event), enforce=True, process=Process())
    return load_record(policy, Process())


# Scenarios

_FEW = 40
_SLOW_KEYS = re.compile("rsa3072|rsa4096|rsa2048/|mldsa")
"""Keys that take long to make, which every process does."""


@cache
def _scenarios() -> Sequence[bytes]:
    """Return documents of one scenario each, with the blobs that it names."""
    found = []
    for path in sorted((ROOT / "conformance").glob("*.json")):
        document = json.loads(path.read_bytes())
        for scenario in document.get("scenarios", ())[::3]:
            text = json.dumps(scenario)
            if _SLOW_KEYS.search(text):
                continue
            blobs = {name: blob for name, blob in document["blobs"].items() if name in text}
            found.append({"title": "x", "blobs": blobs, "scenarios": [scenario]})
    made = [json.dumps(document).encode() for document in found]
    return sorted(made, key=len)[:_FEW]


def _scenario(data: bytes) -> object:
    with written(data, "scenarios.json") as path:
        collection = with_signatures(read_collection(path))
    for name in ("6.18", "7.3"):
        profile = PROFILES[name]
        for scenario in collection.scenarios:
            with contextlib.suppress(BpfsealError):
                run_scenario(
                    scenario, collection, boot_model(scenario, profile), groups_of(profile)
                )
    return None


# Settings

_SETTINGS = (
    b'json = true\n[sign]\nhash = "sha256"\nscheme = "all"\n[verify]\ncertificate = ["a.pem"]\n',
    b'verbose = false\n[load]\nscheme = "auto"\nkernel-btf = "x"\n[build]\npage-size = 4096\n',
    b'[pull]\ntimeout = 30\nplain-http = false\n[keygen]\ntype = "p256"\n',
)


def _settings(data: bytes) -> object:
    with written(data, "bpfseal.toml") as path:
        settings = read_settings(str(path), {})
    for verb in VERBS:
        options = Options(Parser(prog=f"bpfseal {verb}"), verb)
        verb_module(verb).configure(options)
        with contextlib.suppress(BpfsealError):
            given = section_of(settings, verb, options)
            options.resolve(argparse.Namespace(), {}, given)
    return None


# What the kernel tells in text

_TEXTS: dict[str, tuple[tuple[bytes, ...], Callable[[], object]]] = {
    "cpu-list": ((b"0-7\n", b"0,2-3,8-11\n", b"0"), cpus.possible_cpus),
    "tracepoint-id": ((b"314\n",), lambda: tracefs.tracepoint_id("sched", "sched_switch")),
    "traceable-functions": (
        (b"do_exit\nschedule [core]\nfoo\t[bar]\n" * 20,),
        lambda: list(tracefs.traceable_functions("*")),
    ),
    "probe-event": ((b"config:0\n", b"8\n"), lambda: tracefs.probe_event("kprobe")),
    "kallsyms": (
        (b"ffffffff81000000 T _text\nffffffff81000010 t do_exit\t[mod]\n" * 5,),
        lambda: host_values._addresses(("do_exit", "_text")),
    ),
    "proc-status": ((b"Name:\tx\nCapEff:\t000001ffffffffff\n",), process.may_load_programs),
    "proc-fdinfo": ((b"pos:\t0\nmap_id:\t7\nfrozen:\t1\n",), lambda: process.fd_fields(3)),
}


def _kernel_texts(name: str) -> Sequence[bytes]:
    return _TEXTS[name][0]


def _kernel_text(name: str) -> Callable[[bytes], object]:
    """Return a call that reads the input where the kernel would have put it."""

    def call(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            places = (
                *("events/sched/sched_switch/id", "available_filter_functions"),
                *("kprobe/type", "kprobe/format/retprobe", "status", "fdinfo/3"),
            )
            for place in places:
                (root / place).parent.mkdir(parents=True, exist_ok=True)
                (root / place).write_bytes(data)
            if name == "probe-event" and b":" in data:
                (root / "kprobe/type").write_bytes(b"8\n")
            with (
                patch.object(cpus, "_POSSIBLE", root / "status"),
                patch.object(tracefs, "_TRACEFS", (root,)),
                patch.object(tracefs, "_EVENT_SOURCES", root),
                patch.object(host_values, "_KALLSYMS", root / "status"),
                patch.object(process, "_PROC", root),
            ):
                return _TEXTS[name][1]()

    return call


# The command line

_DOCUMENTED = (0, 1, 2, 3, 4)
"""The exit statuses of docs and ``--help``; all but these are faults of the program."""


class UndocumentedStatusError(Exception):
    """The command line ended as it never should."""


@cache
def _inputs() -> Sequence[bytes]:
    variant = signed("xdpcount", "kfunc")
    bundle = store.pack(Bundle("xdpcount_bpf", (variant,)))
    return (EXAMPLE.read_bytes(), bundle, header_of(variant).encode())


_INPUT_MUTATORS: tuple[Mutator, ...] = (*ELF, *TAR, *TEXT, *BYTES)


def _command_line(data: bytes) -> object:
    """Give a file to verbs that read any input."""
    certificate = str(KEYS / "rsa2048.test-certificate.pem")
    with written(data, "fuzzed.file") as path:
        empty = path.with_name("settings.toml")
        empty.touch()
        for arguments in (
            ("--json", "--config", str(empty), "inspect", str(path)),
            ("--config", str(empty), "verify", str(path), "--certificate", certificate),
        ):
            out, told = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
                status = main(arguments)
            if status not in _DOCUMENTED:
                raise UndocumentedStatusError(f"{status}: {told.getvalue()[-300:]}")
    return None


TARGETS = (
    Target("ipe-policy", lambda: _POLICIES, _policy, TEXT),
    Target("scenario", _scenarios, _scenario, (*[JSON[0]] * 20, *TEXT[:2])),
    Target("settings", lambda: _SETTINGS, _settings, TEXT),
    *(Target(name, partial(_kernel_texts, name), _kernel_text(name), TEXT) for name in _TEXTS),
    Target("command-line", _inputs, _command_line, _INPUT_MUTATORS),
)
