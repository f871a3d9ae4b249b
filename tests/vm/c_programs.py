"""Static programs in C for the guests: around bpfseal's skeleton, and around the reference's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bpfseal.bundle.model import Bundle
from bpfseal.bundle.skeleton_c import c_skeleton
from support.files import ROOT

sys.path.append(str(ROOT / "scripts"))

from debian import FetchError
from reference import Reference

REFERENCE_PROGRAM = "C, the reference's skeleton"
SKELETON_PROGRAM = "C, bpfseal's skeleton"
"""The programs whose loads are timed."""

NAME = "timed"
"""What the object is called in the headers."""

LOADS = r"""
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include "skeleton.h"

static int open_fds(void)
{
	int count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

int main(int count, char **arguments)
{
	struct SKELETON *skel = SKELETON__open();
	int before = open_fds(), err;

	(void)count;
	(void)arguments;
	if (!skel)
		return 1;
	USE_SESSION_KEYRING(skel);
	err = SKELETON__load(skel);
	printf("%d %d\n", err, open_fds() - before);
	SKELETON__destroy(skel);
	printf("%d\n", open_fds() - before);
	return 0;
}
"""
"""Load, and say the errno and how many fds there are, then and after all is closed."""

TIMES = r"""
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include "skeleton.h"

static long long nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int count, char **arguments)
{
	int loads = count > 1 ? atoi(arguments[1]) : 1;

	while (loads--) {
		long long started = nanoseconds();
		struct SKELETON *skel = SKELETON__open();

		USE_SESSION_KEYRING(skel);
		if (SKELETON__load(skel)) {
			perror("load");
			return 1;
		}
		SKELETON__destroy(skel);
		printf("%lld\n", nanoseconds() - started);
	}
	return 0;
}
"""
"""Load and unload as often as the argument says, and print the nanoseconds of each."""


def missing() -> str:
    """Return what these programs cannot be compiled for, or ``""``."""
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    if not Path("/usr/include/bpf/skel_internal.h").exists():
        return "the headers of libbpf (libbpf-dev) are not installed"
    return ""


def skeleton_programs(bundle: Bundle, work: Path) -> dict[str, bytes]:
    """Return a program that holds all variants, and one that was tampered with.

    In the second one a bit of the metadata of every variant has another value.
    """
    good = _compiled(c_skeleton(bundle), LOADS, bundle.name, work, signed=True)
    bad = bytearray(good)
    for data in {variant.loader.metadata for variant in bundle.variants}:
        if good.count(data) != 1:
            raise RuntimeError("the metadata of a variant is not in the program once")
        bad[good.index(data) + len(data) // 2] ^= 1
    return {"programs/good": good, "programs/tampered": bytes(bad)}


def timed_programs(path: Path, bundle: Bundle, work: Path) -> dict[str, bytes]:
    """Return a program with bpfseal's skeleton, and one with the reference's if there is one."""
    files = {SKELETON_PROGRAM: _compiled(c_skeleton(bundle), TIMES, bundle.name, work, signed=True)}
    try:
        tool = Reference(ROOT / "build")
    except FetchError:
        return files
    done = tool.run("gen", "skeleton", "-L", str(path), "name", NAME)
    if done.returncode:
        raise RuntimeError(f"the reference tool makes no skeleton: {done.stderr}")
    return files | {REFERENCE_PROGRAM: _compiled(done.stdout, TIMES, NAME, work, signed=False)}


def _compiled(header: str, source: str, skeleton: str, work: Path, *, signed: bool) -> bytes:
    """Return a static program.

    Args:
        header: the skeleton.
        source: the program around it.
        skeleton: the name of the skeleton's struct.
        work: where to compile.
        signed: whether the skeleton is told a keyring; the one of an unsigned loader cannot be.
    """
    keyring = "(skel)->keyring_id = -3" if signed else "(void)(skel)"
    (work / "skeleton.h").write_text(header)
    (work / "program.c").write_text(source.replace("SKELETON", skeleton))
    program = work / "program"
    command = ["gcc", "-O2", "-static", "-I", str(work)]
    command += [f"-DUSE_SESSION_KEYRING(skel)={keyring}"]
    command += [os.fspath(work / "program.c"), "-o", os.fspath(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return program.read_bytes()
