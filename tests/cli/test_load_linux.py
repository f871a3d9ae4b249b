"""`load --kernel linux`: a socket filter and its map in this machine's kernel, nothing else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from bpfseal.bpf.uapi import MapType
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.linux.process import may_load_programs
from bpfseal.kernel.linux.trial import verifies_signatures
from support.object_writer import ObjectWriter

from .support import Cli, Keys

LINUX = ("--kernel", "linux")

needs_privilege = pytest.mark.skipif(
    not may_load_programs(), reason="this process may not load BPF programs (CAP_BPF)"
)


@pytest.fixture
def filter_object(empty_place: Path) -> Path:
    writer = ObjectWriter()
    writer.add_program("socket", "filter")
    writer.add_map("counts", type=MapType.HASH, key_size=4, value_size=8, max_entries=4)
    path = empty_place / "filter.bpf.o"
    path.write_bytes(writer.encode())
    return path


@needs_privilege
def test_an_unsigned_loader_loads_if_that_is_asked_for(cli: Cli, filter_object: Path) -> None:
    done = cli("load", filter_object, *LINUX, "--scheme", "unsigned", "--json")
    assert done.status == 0
    (result,) = done.document["results"]
    assert result["kernel"].startswith("Linux ")
    assert [(each["name"], each["type_name"]) for each in result["programs"]] == [
        ("filter", "socket_filter")
    ]
    (counts,) = result["maps"]
    assert (counts["ident"], counts["max_entries"], counts["frozen"]) == ("counts", 4, False)
    assert counts["id"] > 0
    assert result["programs"][0]["id"] > 0


@needs_privilege
def test_without_a_scheme_nothing_unsigned_is_loaded(cli: Cli, filter_object: Path) -> None:
    done = cli("load", filter_object, *LINUX)
    assert done.status == 1
    assert "REFUSED, before the load" in done.out


@needs_privilege
def test_the_running_kernel_is_the_default(cli: Cli, filter_object: Path) -> None:
    (result,) = cli("load", filter_object, "--scheme", "unsigned", "--json").document["results"]
    assert result["kernel"].startswith("Linux ")


def test_without_privilege_the_model_is_the_default(
    cli: Cli, filter_object: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpfseal.kernel.linux.process.may_load_programs", lambda: False)
    (result,) = cli("load", filter_object, "--scheme", "unsigned", "--json").document["results"]
    assert result["kernel"].startswith("model: ")


@needs_privilege
def test_a_kernel_that_cannot_verify_signatures_is_the_environments_fault(
    cli: Cli, keys: Keys, filter_object: Path
) -> None:
    if verifies_signatures(LinuxKernel()).answer is not False:
        pytest.skip("this kernel verifies signatures (the virtual machines' tests load there)")
    signed = str(filter_object.with_name("filter.bpfseal"))
    assert cli("sign", filter_object, *keys.signing, "-o", signed).status == 0
    done = cli("load", signed, *LINUX, "--certificate", keys.certificate)
    assert done.status == 4
    assert "this kernel cannot verify signatures" in done.out
    assert "CONFIG_SYSTEM_DATA_VERIFICATION" in done.out


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A file system for pins of its own, which is gone afterwards with all that is pinned."""
    place = tmp_path / "bpffs"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "bpf", "bpf", place], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"bpffs cannot be mounted: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@needs_privilege
def test_what_is_pinned_outlives_the_process(cli: Cli, filter_object: Path, bpffs: Path) -> None:
    place = bpffs / "tools" / "filter"
    load = ("load", filter_object, *LINUX, "--scheme", "unsigned", "--pin", place)
    done = cli(*load)
    assert done.status == 0
    pinned = sorted(path for path in place.rglob("*") if not path.is_dir())
    assert pinned == [place / "maps" / "counts", place / "programs" / "filter"]
    assert all(f"pinned: {path}" in done.out for path in pinned)
    again = cli(*load)
    assert (again.status, "EEXIST" in again.out) == (1, True)
    assert sorted(path for path in place.rglob("*") if not path.is_dir()) == pinned


@needs_privilege
def test_a_pin_outside_of_bpffs_leaves_nothing_behind(cli: Cli, filter_object: Path) -> None:
    place = filter_object.parent / "pins"
    done = cli("load", filter_object, *LINUX, "--scheme", "unsigned", "--pin", place)
    assert (done.status, done.err.count("\n")) == (4, 1)
    assert "must be in bpffs" in done.err
    assert not place.exists()


@needs_privilege
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_hold_waits_for_a_signal(filter_object: Path, number: int) -> None:
    command = [sys.executable, "-m", "bpfseal", "load", str(filter_object), *LINUX]
    command += ["--scheme", "unsigned", "--hold", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = takewhile(lambda line: line not in ("}\n", ""), process.stdout)
        document = json.loads("".join(lines) + "}")  # it is all there before the signal comes
        assert document["results"][0]["allowed"] is True
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""


@pytest.mark.parametrize(
    "options",
    [
        (*LINUX, "--trace"),
        (*LINUX, "--policy", "x"),
        (*LINUX, "--btf", "x"),
        ("--kernel", "model", "--hold"),
        ("--kernel", "model", "--pin", "x"),
        ("--kernel", "linux:7.3"),
    ],
)
def test_options_of_the_other_kernel_are_usage_errors(
    cli: Cli, filter_object: Path, options: tuple[str, ...]
) -> None:
    done = cli("load", filter_object, *options)
    assert (done.status, done.err.count("\n")) == (2, 1)


@needs_privilege
def test_a_certificate_for_a_keyring_that_nobody_can_fill_is_refused(
    cli: Cli, keys: Keys, filter_object: Path
) -> None:
    load = ("load", filter_object, *LINUX, "--scheme", "unsigned")
    done = cli(*load, "--certificate", keys.certificate, "--keyring", "builtin")
    assert done.status == 2
    assert "no process can put a key into the keyring builtin" in done.err


WITHOUT_PACKAGES = """
import sys
for name in ("cryptography", "elftools", "oras", "requests", "rich"):
    sys.modules[name] = None
from bpfseal.cli import main
sys.exit(main(sys.argv[1:]))
"""


@needs_privilege
def test_the_load_of_a_bundle_needs_the_standard_library_alone(
    cli: Cli, keys: Keys, filter_object: Path
) -> None:
    built = ("build", filter_object, "--scheme", "unsigned", "-o", "filter.bpfseal")
    assert cli(*built).status == 0
    arguments = ["load", "filter.bpfseal", *LINUX, "--scheme", "unsigned"]
    command = [sys.executable, "-c", WITHOUT_PACKAGES, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command += ["--certificate", str(keys.certificate)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 4)  # 4: a kernel without the algorithm of the key
