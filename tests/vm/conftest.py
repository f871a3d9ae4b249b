"""One boot for each series and run; all tests read from what the guests said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bpfseal.kernel.model.profile import PROFILES, Profile
from bpfseal.kernel.model.subject import groups_of
from support.files import LIBBPF_TOOLS

from . import artifacts as made
from . import guest, initramfs, kernels
from .artifacts import Artifacts

SERIES = os.environ.get("BPFSEAL_VM_SERIES", ",".join(kernels.SERIES)).split(",")

_SUMMARY = pytest.StashKey[list[str]]()


@dataclass(frozen=True)
class Booted:
    """A kernel that ran.

    Attributes:
        series: the series of its release.
        profile: what the model knows of it, with what its BTF says of `bpf_map.excl`.
        answers: what the guest said.
    """

    series: str
    profile: Profile
    answers: guest.Answers


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    for program in (guest.QEMU, str(initramfs.BUSYBOX)):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing (Debian: qemu-system-x86, busybox-static)")
    if not any(LIBBPF_TOOLS.glob("*.bpf.o")):
        pytest.skip("the objects of libbpf-tools are missing: run make objects")
    return made.make_artifacts(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def boots(artifacts: Artifacts) -> Iterator[Mapping[str, Future[guest.Answers]]]:
    """The runs of all series, as many at once as there are processors."""
    try:
        packages = kernels.newest_packages()
        found = {s: kernels.fetch_kernel(packages[s]) for s in SERIES if s in packages}
    except kernels.FetchError as error:
        pytest.skip(f"the kernels cannot be fetched: {error}")
    initrd = initramfs.build_base() + guest.archive_of(artifacts.files)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:

        def boot(series: str) -> guest.Answers:
            own = {"groups": made.groups_file(groups_of(PROFILES[series]))}
            given = initrd + guest.archive_of(own)
            return guest.run(found[series], given, made.builtin_key())

        yield {series: pool.submit(boot, series) for series in found}


@pytest.fixture(scope="session", params=SERIES)
def booted(
    request: pytest.FixtureRequest,
    boots: Mapping[str, Future[guest.Answers]],
    summary: list[str],
) -> Booted:
    series = request.param
    if series not in boots:
        pytest.skip(f"the archive has no kernel of the series {series} any more")
    answers = boots[series].result()
    profile = PROFILES[series]
    if profile.has_excl == "some":
        scheme = answers.of("objects")[""]["scheme"]
        profile = replace(profile, has_excl="no" if scheme == "inline-original" else "yes")
    seconds = ", ".join(f"{name} {took:.0f}" for name, took in answers.seconds.items())
    summary.append(f"{series}: seconds: {seconds}")
    return Booted(series, profile, answers)


@pytest.fixture(scope="session")
def summary(pytestconfig: pytest.Config) -> list[str]:
    """Lines that the run prints at its end."""
    return pytestconfig.stash.setdefault(_SUMMARY, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash.get(_SUMMARY, [])
    if lines:
        terminalreporter.section("real kernels")
        for line in lines:
            terminalreporter.write_line(line)
