"""The verb `probe`, and building as on another machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bpfseal.bpf.uapi import MapType
from bpfseal.kernel.linux import features, trial
from bpfseal.kernel.linux.features import Finding
from support.object_writer import ObjectWriter

from .support import OBJECT, Cli


def write_object(path: Path) -> Path:
    writer = ObjectWriter()
    writer.add_program("xdp", "main")
    writer.add_map("events", type=MapType.PERF_EVENT_ARRAY, key_size=4, value_size=4)
    path.write_bytes(writer.encode())
    return path


def test_the_host_values_are_those_of_this_machine(cli: Cli) -> None:
    done = cli("probe", "--host-values", OBJECT)
    assert done.status == 0
    values = json.loads(done.out)
    assert values["page_size"] == os.sysconf("SC_PAGE_SIZE")
    assert values["possible_cpus"] >= len(os.sched_getaffinity(0))
    assert values["kernel_version"] >> 16 == int(os.uname().release.split(".")[0])
    assert (values["kconfig"], values["symbols"]) == ({}, {})


def test_the_host_values_are_one_json_document_with_json(cli: Cli) -> None:
    (result,) = cli("--json", "probe", "--host-values", OBJECT).document["results"]
    assert result["host_values"]["page_size"] == os.sysconf("SC_PAGE_SIZE")


def test_objects_are_for_the_host_values_only(cli: Cli) -> None:
    assert cli("probe", OBJECT).status == 2


def test_what_is_no_object_is_bad_input(cli: Cli, empty_place: Path) -> None:
    (empty_place / "x.bpf.o").write_bytes(b"\x7fELF")
    done = cli("probe", "--host-values", "x.bpf.o")
    assert (done.status, done.out) == (3, "")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "entries"),
    [([], 8192), (["--possible-cpus", "3"], 3), (["--as-built-on", "host.json"], 5)],
)
def test_a_build_takes_the_values_that_are_stated(
    cli: Cli, empty_place: Path, options: list[str], entries: int
) -> None:
    (empty_place / "host.json").write_text('{"possible_cpus": 5}')
    path = write_object(empty_place / "events.bpf.o")
    assert cli("build", path, "--scheme", "kfunc", *options).status == 0
    (result,) = cli("--json", "inspect", "events.bpfseal").document["results"]
    assert result["maps"][0]["max_entries"] == entries


@pytest.mark.parametrize(
    "options",
    [
        ["--page-size", "1000"],
        ["--kernel-version", "six"],
        ["--as-built-on", "absent.json"],
        ["--kconfig", "absent"],
    ],
)
def test_values_that_no_machine_has_are_bad_input(
    cli: Cli, empty_place: Path, options: list[str]
) -> None:
    path = write_object(empty_place / "events.bpf.o")
    done = cli("build", path, *options)
    assert (done.status, done.err.count("\n")) == (3, 1)
    assert not (empty_place / "events.bpfseal").exists()


def test_the_features_are_three_valued_with_reasons(cli: Cli) -> None:
    done = cli("--json", "probe")
    assert done.status == 0
    (result,) = done.document["results"]
    assert set(result["findings"]) == {
        "verification",
        "kfunc",
        "loadtime",
        "exclusive_flag",
        "map_hash",
    }
    for finding in result["findings"].values():
        assert finding["answer"] in ("yes", "no", "unknown")
        assert finding["reason"]


@pytest.mark.parametrize(
    ("answer", "loads", "says"),
    [
        (True, "yes", "of scheme inline load here"),
        (None, "unknown", "of scheme inline load here if the kernel verifies signatures"),
        (False, "no", "no signed loader loads here"),
    ],
)
def test_what_could_not_be_tried_is_not_promised(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, answer: bool | None, loads: str, says: str
) -> None:
    """Without the right to load programs nobody knows whether signatures are verified."""
    finding = Finding(answer, "as this test says")
    monkeypatch.setattr(trial, "verifies_signatures", lambda _: finding)
    monkeypatch.setattr(features.Features, "scheme", lambda _: "inline")
    assert says in cli("probe").out.splitlines()[-1]
    (result,) = cli("probe", "--json").document["results"]
    assert result["loads"] == loads
