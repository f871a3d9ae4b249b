"""Keys of our own in keyrings that others use too, on the running kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache

import pytest

from bpfseal.errors import KernelError
from bpfseal.kernel.linux.keyrings import LinuxKeyrings
from bpfseal.kernel.linux.syscalls import (
    KEYCTL_GET_KEYRING_ID,
    KEYCTL_REVOKE,
    KEYCTL_UNLINK,
    add_key,
    keyctl,
)
from bpfseal.signing.keygen import generate

PROCESS, SESSION = -2, -3
KEYCTL_READ, KEYCTL_CLEAR = 11, 7
"""Special keyrings and operations (include/uapi/linux/keyctl.h)."""


@cache
def certificate(name: str) -> bytes:
    return generate("rsa2048", name).certificate_der


@pytest.fixture
def keyring() -> Iterator[int]:
    """A keyring of this test, in the one of this process."""
    try:
        serial = add_key("keyring", f"test:{os.urandom(4).hex()}", b"", PROCESS)
        add_key("asymmetric", "trial", certificate("trial"), serial)
        keyctl(KEYCTL_CLEAR, serial)
    except KernelError as error:
        pytest.skip(f"NOT TESTED: this kernel takes no certificates ({error.errno_name})")
    yield serial
    keyctl(KEYCTL_UNLINK, serial, PROCESS)


def keys_in(keyring: int) -> set[int]:
    import ctypes

    buffer = (ctypes.c_int32 * 256)()
    size = keyctl(KEYCTL_READ, keyring, ctypes.addressof(buffer), ctypes.sizeof(buffer))
    return set(buffer[: size // 4])


def test_two_certificates_are_in_the_keyring_together(keyring: int) -> None:
    with LinuxKeyrings().enrolled(keyring, [certificate("one"), certificate("two")]):
        assert len(keys_in(keyring)) == 2
    assert keys_in(keyring) == set()


def test_the_same_certificate_of_somebody_else_stays(keyring: int) -> None:
    theirs = {
        add_key("asymmetric", description, certificate("one"), keyring)
        for description in ("bpfseal", "one: 1234")
    }
    with LinuxKeyrings().enrolled(keyring, [certificate("one")] * 2):
        assert len(keys_in(keyring)) == 4
    assert keys_in(keyring) == theirs


@pytest.mark.parametrize("operation", [KEYCTL_CLEAR, KEYCTL_REVOKE])
def test_the_end_is_no_error_if_somebody_else_emptied_the_keyring(
    keyring: int, operation: int
) -> None:
    with LinuxKeyrings().enrolled(keyring, [certificate("one")]):
        keyctl(operation, keyring)


def test_what_cannot_be_added_leaves_nothing(keyring: int) -> None:
    with (
        pytest.raises(KernelError),
        LinuxKeyrings().enrolled(keyring, [certificate("one"), b"no certificate"]),
    ):
        pass
    assert keys_in(keyring) == set()


def test_parallel_loads_do_not_disturb_each_other(keyring: int) -> None:
    failures: list[Exception] = []

    def enrol(name: str) -> None:
        try:
            for _ in range(50):
                with LinuxKeyrings().enrolled(keyring, [certificate(name)]):
                    assert keys_in(keyring)
        except (KernelError, AssertionError) as error:
            failures.append(error)

    threads = [threading.Thread(target=enrol, args=(name,)) for name in ("one", "two", "one")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert keys_in(keyring) == set()


IN_A_PROCESS = """
import sys
from bpfseal.kernel.linux.keyrings import LinuxKeyrings
from bpfseal.kernel.linux.syscalls import keyctl, KEYCTL_GET_KEYRING_ID
one, two = (bytes.fromhex(text) for text in sys.argv[1:])
users = keyctl(KEYCTL_GET_KEYRING_ID, -3, 1)
LinuxKeyrings().add_key(-3, one)
mine = keyctl(KEYCTL_GET_KEYRING_ID, -3, 0)
LinuxKeyrings().add_key(-3, two)
assert keyctl(KEYCTL_GET_KEYRING_ID, -3, 0) == mine != users, (mine, users)
print(keyctl(11, mine, 0, 0) // 4)
"""


def test_two_kernels_of_one_process_have_one_session_keyring(keyring: int) -> None:
    del keyring  # where it is skipped, this is too
    command = [sys.executable, "-c", IN_A_PROCESS]
    command += [certificate(name).hex() for name in ("one", "two")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_each_thread_has_a_session_keyring_of_its_own(keyring: int) -> None:
    """Credentials belong to threads: what one joins, the others do not."""
    del keyring
    found: list[int] = []
    users = keyctl(KEYCTL_GET_KEYRING_ID, SESSION, 1)

    def enrol() -> None:
        with LinuxKeyrings().enrolled(SESSION, [certificate("one")]):
            found.append(keyctl(KEYCTL_GET_KEYRING_ID, SESSION, 0))

    for _ in range(2):
        thread = threading.Thread(target=enrol)
        thread.start()
        thread.join()
    assert len({*found, users}) == 3
