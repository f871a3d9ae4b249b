"""The LSM: policies by name and version, the two switches, and the audit log."""

from __future__ import annotations

from errno import EACCES, EBADMSG, EEXIST, EINVAL, ENAMETOOLONG, ENOENT, EPERM, ERANGE, ESTALE

import pytest

from bpfseal.bpf.uapi import ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.model.ipe import Ipe, parse_policy
from bpfseal.kernel.model.ipe.audit import Process, Record, RecordType, access_record
from bpfseal.kernel.model.ipe.evaluate import Event, evaluate
from bpfseal.kernel.model.ipe.policy import IpeOperation
from bpfseal.kernel.model.lsm import Operation, ProgramFacts
from bpfseal.kernel.model.verdict import KeyringKind, Verdict

from .policies import FULL

EMPTY_DIGEST = "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"
LOGIN = "auid=4294967295 ses=4294967295"


def text(name: str = "p", version: str = "1.0.0", *lines: str) -> bytes:
    rest = lines or ("op=BPF_PROG_LOAD bpf_signature=UNSIGNED action=DENY", "DEFAULT action=ALLOW")
    return "\n".join((f"policy_name={name} policy_version={version}", *rest)).encode()


def errno_of(call: object, *arguments: object) -> int:
    assert callable(call)
    with pytest.raises(KernelError) as refused:
        call(*arguments)
    return refused.value.errno


def load(ipe: Ipe, verdict: Verdict = Verdict.UNSIGNED, *, is_kernel: bool = False) -> int:
    """Ask the hook about a load."""
    keyring = KeyringKind.USER if verdict else KeyringKind.NONE
    facts = ProgramFacts("demo", ProgType.SYSCALL, verdict, keyring, is_kernel)
    return ipe(Operation.BPF_PROG_LOAD, facts)


# Policies


def test_without_an_active_policy_everything_is_allowed_and_nothing_logged() -> None:
    ipe = Ipe(success_audit=True)
    assert load(ipe) == 0
    ipe.new_policy(text())
    assert load(ipe) == 0
    assert ipe.active is None
    assert [record.type for record in ipe.records] == [RecordType.IPE_POLICY_LOAD]


def test_a_policy_decides_once_it_is_active() -> None:
    ipe = Ipe()
    ipe.new_policy(text())
    ipe.activate("p")
    assert load(ipe) == -EACCES
    assert load(ipe, Verdict.OK) == 0


@pytest.mark.parametrize(
    ("new", "errno"),
    [
        (text(), EEXIST),
        (text(version="2.0.0"), EEXIST),
        (text("a/b"), EACCES),
        (text("."), EACCES),
        (text(".."), EACCES),
        (text("n" * 256), ENAMETOOLONG),
        (b"what", EBADMSG),
        (text("q", "1.0.65536"), ERANGE),
        (text("q", "1.0.x"), EINVAL),
    ],
)
def test_a_new_policy_needs_a_new_name_that_a_directory_can_have(new: bytes, errno: int) -> None:
    ipe = Ipe()
    ipe.new_policy(text())
    assert errno_of(ipe.new_policy, new) == errno
    assert [policy.name for policy in ipe.policies] == ["p"]
    assert str(ipe.records[-1]) == (
        f"policy_name=? policy_version=? policy_digest=? {LOGIN} lsm=ipe res=0 errno=-{errno}"
    )


def test_a_name_of_255_bytes_is_a_name() -> None:
    assert Ipe().new_policy(text("n" * 255)).name == "n" * 255


@pytest.mark.parametrize(
    ("name", "new", "errno"),
    [
        ("q", text("q", "9.0.0"), ENOENT),
        ("p", text("q", "9.0.0"), EINVAL),
        ("p", text("q", "0.0.1"), EINVAL),
        ("p", text("p", "1.2.3"), ESTALE),
        ("p", text("p", "1.2.2"), ESTALE),
        ("p", text("p", "0.9.9"), ESTALE),
        ("p", text("p", "9.0"), EBADMSG),
    ],
)
def test_an_update_needs_the_same_name_and_a_newer_version(
    name: str, new: bytes, errno: int
) -> None:
    ipe = Ipe()
    old = ipe.new_policy(text("p", "1.2.3"))
    assert errno_of(ipe.update_policy, name, new) == errno
    assert ipe.policies == (old,)
    assert str(ipe.records[-1]).endswith(f"res=0 errno=-{errno}")


@pytest.mark.parametrize("version", ["1.2.4", "1.3.0", "2.0.0"])
def test_an_update_of_the_active_policy_decides_at_once(version: str) -> None:
    ipe = Ipe()
    ipe.new_policy(text("p", "1.2.3"))
    ipe.activate("p")
    ipe.update_policy("p", text("p", version, "DEFAULT action=ALLOW"))
    assert load(ipe) == 0
    assert [record.type for record in ipe.records[-2:]] == [
        RecordType.IPE_POLICY_LOAD,
        RecordType.IPE_CONFIG_CHANGE,
    ]


def test_an_update_of_another_policy_changes_nothing_that_decides() -> None:
    ipe = Ipe()
    ipe.new_policy(text("p"))
    ipe.new_policy(text("q"))
    ipe.activate("p")
    ipe.update_policy("q", text("q", "2.0.0"))
    assert ipe.active == parse_policy(text("p"))
    assert ipe.records[-1].type is RecordType.IPE_POLICY_LOAD


@pytest.mark.parametrize(("version", "errno"), [("1.9.9", EINVAL), ("2.0.0", 0), ("2.0.1", 0)])
def test_the_policy_that_is_made_active_must_not_be_older_whatever_its_name(
    version: str, errno: int
) -> None:
    ipe = Ipe()
    ipe.new_policy(text("p", "2.0.0"))
    ipe.activate("p")
    ipe.new_policy(text("q", version))
    if errno:
        assert errno_of(ipe.activate, "q") == errno
    else:
        ipe.activate("q")
    assert ipe.active is not None
    assert ipe.active.name == ("p" if errno else "q")


def test_making_the_active_policy_active_does_nothing() -> None:
    ipe = Ipe()
    ipe.new_policy(text())
    ipe.activate("p")
    before = list(ipe.records)
    ipe.activate("p")
    assert ipe.records == before


def test_the_active_policy_cannot_be_deleted() -> None:
    ipe = Ipe()
    ipe.new_policy(text("p"))
    ipe.new_policy(text("q"))
    ipe.activate("p")
    assert errno_of(ipe.delete_policy, "p") == EPERM
    ipe.delete_policy("q")
    assert errno_of(ipe.delete_policy, "q") == ENOENT
    assert errno_of(ipe.activate, "q") == ENOENT


# Switches


def test_a_permissive_denial_is_logged_and_let_through() -> None:
    ipe = Ipe.booted(parse_policy(text()), enforce=False)
    assert load(ipe) == 0
    (record,) = ipe.records
    assert "enforcing=0" in str(record)
    assert "action=DENY" in str(record)
    ipe.enforce = True
    assert load(ipe) == -EACCES
    assert "enforcing=1" in str(ipe.records[-1])


def test_what_is_allowed_is_logged_when_that_is_switched_on() -> None:
    ipe = Ipe.booted(parse_policy(text()))
    load(ipe, Verdict.OK)
    assert ipe.records == []
    ipe.success_audit = True
    load(ipe, Verdict.OK)
    (record,) = ipe.records
    assert 'rule="DEFAULT action=ALLOW"' in str(record)


def test_every_question_is_kept_with_its_answer() -> None:
    ipe = Ipe.booted(parse_policy(text()))
    load(ipe, Verdict.OK)
    load(ipe, is_kernel=True)
    assert [(each.program, each.answer) for each in ipe.questions] == [
        ("demo", 0),
        ("demo", -EACCES),
    ]
    assert str(ipe.questions[1].event) == "bpf_signature=UNSIGNED bpf_kernel=TRUE"
    assert str(ipe.questions[0].event) == "bpf_signature=OK bpf_keyring=USER bpf_kernel=FALSE"


# Records


def test_the_record_of_a_denial() -> None:
    ipe = Ipe(process=Process(pid=4711, comm="bpftool"))
    ipe.new_policy(text())
    ipe.activate("p")
    load(ipe)
    assert ipe.records[-1] == Record(
        RecordType.IPE_ACCESS,
        "ipe_op=BPF_PROG_LOAD ipe_hook=BPF_PROG_LOAD enforcing=1 pid=4711 "
        'comm="bpftool" rule="op=BPF_PROG_LOAD bpf_signature=UNSIGNED action=DENY"',
    )
    assert ipe.records[-1].type == 1420


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("op=BPF_PROG_LOAD_POST_INTEGRITY \t action=DENY # no", None),
        ("DEFAULT op=BPF_PROG_LOAD_POST_INTEGRITY action=DENY", None),
        ("DEFAULT action=DENY", None),
        (
            "op=BPF_PROG_LOAD_POST_INTEGRITY  bpf_keyring=USER\tbpf_kernel=FALSE action=DENY",
            "op=BPF_PROG_LOAD_POST_INTEGRITY bpf_keyring=USER bpf_kernel=FALSE action=DENY",
        ),
    ],
)
def test_the_record_has_the_rule_as_the_kernel_writes_it(line: str, rule: str | None) -> None:
    rest = () if line.startswith("DEFAULT action") else ("DEFAULT action=ALLOW",)
    ipe = Ipe.booted(parse_policy(text("p", "1.0.0", line, *rest)))
    facts = ProgramFacts(
        "demo", ProgType.SYSCALL, Verdict.METADATA_VERIFIED, KeyringKind.USER, is_kernel=False
    )
    assert ipe(Operation.BPF_PROG_LOAD_POST_INTEGRITY, facts) == -EACCES
    written = rule or " ".join(line.partition("#")[0].split())
    assert str(ipe.records[-1]) == (
        "ipe_op=BPF_PROG_LOAD_POST_INTEGRITY ipe_hook=BPF_PROG_LOAD_POST_INTEGRITY "
        f'enforcing=1 pid=1 comm="bpfseal" rule="{written}"'
    )


def test_a_process_name_with_a_blank_is_logged_in_hex() -> None:
    event = Event.bpf(IpeOperation.BPF_PROG_LOAD, Verdict.UNSIGNED)
    decision = evaluate(parse_policy(text()), event)
    record = access_record(event, decision, enforce=True, process=Process(comm="my tool"))
    assert " comm=6D7920746F6F6C rule=" in str(record)


def test_the_record_of_a_file_has_path_device_and_inode() -> None:
    event = Event(IpeOperation.EXECUTE, "MMAP")
    record = access_record(
        event, evaluate(parse_policy(FULL), event), enforce=True, process=Process(pid=2472)
    )
    assert str(record) == (
        'ipe_op=EXECUTE ipe_hook=MMAP enforcing=1 pid=2472 comm="bpfseal" path=? dev=? ino=? '
        'rule="DEFAULT op=EXECUTE action=DENY"'
    )


def test_the_records_of_policies_that_come_and_become_active() -> None:
    ipe = Ipe()
    ipe.new_policy(text("first", "0.1.2"))
    ipe.activate("first")
    ipe.new_policy(text("second", "3.4.5"))
    ipe.activate("second")
    loaded, first, _, second = ipe.records
    assert (loaded.type, first.type) == (1422, 1421)
    assert str(loaded) == (
        f'policy_name="first" policy_version=0.1.2 policy_digest={EMPTY_DIGEST} {LOGIN} '
        "lsm=ipe res=1 errno=0"
    )
    assert str(first) == (
        "old_active_pol_name=? old_active_pol_version=? old_policy_digest=? "
        f'new_active_pol_name="first" new_active_pol_version=0.1.2 '
        f"new_policy_digest={EMPTY_DIGEST} {LOGIN} lsm=ipe res=1"
    )
    assert str(second) == (
        f'old_active_pol_name="first" old_active_pol_version=0.1.2 '
        f"old_policy_digest={EMPTY_DIGEST} "
        f'new_active_pol_name="second" new_active_pol_version=3.4.5 '
        f"new_policy_digest={EMPTY_DIGEST} {LOGIN} lsm=ipe res=1"
    )


def test_the_record_of_a_switch_between_enforcing_and_permissive() -> None:
    ipe = Ipe()
    ipe.enforce = True
    assert ipe.records == []
    ipe.enforce = False
    (record,) = ipe.records
    assert record.type == 1404
    assert str(record) == (
        f"enforcing=0 old_enforcing=1 {LOGIN} enabled=1 old-enabled=1 lsm=ipe res=1"
    )


def test_a_policy_that_is_built_in_is_active_and_not_logged() -> None:
    ipe = Ipe.booted(parse_policy(text()))
    assert ipe.active is not None
    assert (ipe.active.name, ipe.records) == ("p", [])
    assert errno_of(ipe.new_policy, text()) == EEXIST
