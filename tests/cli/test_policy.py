"""``policy check``, ``policy eval``, and ``load --policy``."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import MODEL, OBJECT, Cli, Keys, run_process

INNER = "op=BPF_PROG_LOAD bpf_kernel=TRUE action=ALLOW"
UNSIGNED = "op=BPF_PROG_LOAD bpf_signature=UNSIGNED action=DENY"
POST = "op=BPF_PROG_LOAD_POST_INTEGRITY action=DENY"
ALLOW = "DEFAULT action=ALLOW"


def write_policy(*lines: str, name: str = "p") -> str:
    """Write a policy and return its path."""
    text = "\n".join((f"policy_name={name} policy_version=1.0.0", *lines))
    Path(f"{name}.pol").write_text(text)
    return f"{name}.pol"


@pytest.fixture
def good() -> str:
    return write_policy(INNER, UNSIGNED, ALLOW, name="good")


@pytest.fixture
def locked_out() -> str:
    return write_policy(UNSIGNED, ALLOW, name="locked_out")


@pytest.fixture
def signed(cli: Cli, keys: Keys) -> str:
    assert cli("sign", OBJECT, *keys.signing, "-o", "signed.bpfseal").status == 0
    return "signed.bpfseal"


# policy check


def test_check_says_name_version_and_size_of_a_policy(cli: Cli, good: str) -> None:
    done = cli("policy", "check", good)
    assert (done.status, done.out, done.err) == (0, "good.pol: policy good 1.0.0, 2 rules\n", "")


def test_check_json_holds_the_policy(cli: Cli, good: str) -> None:
    (result,) = cli("policy", "check", good, "--json").document["results"]
    assert result == {
        "input": "good.pol",
        "accepted": True,
        "name": "good",
        "version": "1.0.0",
        "default": "ALLOW",
        "defaults": {},
        "rules": [{"line": 2, "text": INNER}, {"line": 3, "text": UNSIGNED}],
        "findings": [],
    }


@pytest.mark.parametrize(
    ("lines", "errno", "line"),
    [
        (("op=BPF_PROG_LOAD bpf_keyring=NONE action=DENY", ALLOW), "EBADMSG", 2),
        (("op=EXECUTE fsverity_digest=sha256:x action=DENY", ALLOW), "EINVAL", 2),
        (("op=EXECUTE action=DENY",), "EBADMSG", 0),
    ],
)
def test_check_names_line_errno_and_rule_of_a_text_that_the_kernel_refuses(
    cli: Cli, lines: tuple[str, ...], errno: str, line: int
) -> None:
    path = write_policy(*lines)
    done = cli("policy", "check", path)
    place = f"line {line}: " if line else ""
    assert done.status == 3
    assert done.out.startswith(f"p.pol: REFUSED: {place}-{errno}: ")
    assert "  rule: security/ipe/policy_parser.c " in done.out
    (result,) = cli("policy", "check", path, "--json").document["results"]
    assert (result["accepted"], result["errno"], result["line"]) == (False, errno, line)


def test_check_of_a_version_out_of_range_is_erange(cli: Cli) -> None:
    Path("v.pol").write_text("policy_name=v policy_version=1.0.65536\nDEFAULT action=ALLOW\n")
    done = cli("policy", "check", "v.pol")
    assert (done.status, "line 1: -ERANGE: " in done.out) == (3, True)


@pytest.mark.parametrize(
    ("lines", "name"),
    [((UNSIGNED, ALLOW), "loaders-locked-out"), ((POST, ALLOW), "unsigned-loads-allowed")],
)
def test_check_warns_of_policies_that_do_not_do_what_they_seem_to(
    cli: Cli, lines: tuple[str, ...], name: str
) -> None:
    path = write_policy(*lines)
    done = cli("policy", "check", path)
    assert done.status == 0
    assert f"{name}: " in done.out
    assert "hint: " in done.out
    (result,) = cli("policy", "check", path, "--json").document["results"]
    assert [finding["name"] for finding in result["findings"]] == [name]
    assert cli("policy", "check", path, "--strict").status == 1


def test_check_looks_at_every_file_and_the_worst_counts(cli: Cli, good: str) -> None:
    Path("bad.pol").write_text("?")
    done = cli("policy", "check", "bad.pol", "missing.pol", good)
    assert done.status == 3
    assert "bad.pol: REFUSED" in done.out
    assert "good.pol: policy good" in done.out
    assert "missing.pol: cannot be read" in done.err


def test_check_reads_stdin() -> None:
    text = f"policy_name=x policy_version=0.0.1\n{ALLOW}\n".encode()
    done = run_process("policy", "check", "-", data=text)
    assert (done.returncode, done.stdout) == (0, b"stdin: policy x 0.0.1, 0 rules\n")


def test_a_hostile_name_does_not_reach_the_terminal(cli: Cli) -> None:
    Path("x.pol").write_bytes(b"policy_name=\x1b[2J\xff policy_version=1.2.3\nDEFAULT action=DENY")
    done = cli("policy", "check", "x.pol")
    assert done.out == "x.pol: policy \\x1b[2J\\udcff 1.2.3, 0 rules\n"
    assert cli("policy", "check", "x.pol", "--json").document["status"] == 0


# policy eval


@pytest.mark.parametrize(
    ("options", "allowed", "rule"),
    [
        (("--op", "BPF_PROG_LOAD"), False, UNSIGNED),
        (("--op", "BPF_PROG_LOAD", "--bpf-signature", "UNSIGNED"), False, UNSIGNED),
        (("--op", "BPF_PROG_LOAD", "--bpf-kernel", "TRUE"), True, INNER),
        (("--op", "BPF_PROG_LOAD", "--bpf-signature", "OK"), True, ALLOW),
        (
            (
                *("--op", "BPF_PROG_LOAD", "--bpf-signature", "OK"),
                *("--bpf-keyring", "BUILTIN", "--bpf-kernel", "FALSE"),
            ),
            True,
            ALLOW,
        ),
        (("--op", "BPF_PROG_LOAD_POST_INTEGRITY"), True, ALLOW),
    ],
)
def test_eval_says_which_rule_decides(
    cli: Cli, good: str, options: tuple[str, ...], allowed: bool, rule: str
) -> None:
    done = cli("policy", "eval", good, *options)
    assert done.status == (0 if allowed else 1)
    assert done.out.startswith(f"good.pol: {'ALLOW' if allowed else 'DENY'}: {rule} (")
    document = cli("policy", "eval", good, *options, "--json").document
    (result,) = document["results"]
    assert (result["allowed"], result["answer"]) == (allowed, "" if allowed else "EACCES")
    (decision,) = result["decisions"]
    assert decision["rule"] == rule


def test_eval_of_a_verdict_needs_no_keyring_and_takes_one(cli: Cli) -> None:
    path = write_policy("op=BPF_PROG_LOAD bpf_keyring=BUILTIN action=DENY", ALLOW)
    options = ("policy", "eval", path, "--op", "BPF_PROG_LOAD", "--bpf-signature", "OK")
    assert cli(*options).status == 0
    assert cli(*options, "--bpf-keyring", "BUILTIN").status == 1


def test_eval_prints_the_audit_records(cli: Cli, good: str) -> None:
    record = (
        'ipe_op=BPF_PROG_LOAD ipe_hook=BPF_PROG_LOAD enforcing={} pid=1 comm="bpfseal" rule="{}"'
    )
    options = ("policy", "eval", good, "--op", "BPF_PROG_LOAD")
    assert f"  audit: type=1420 {record.format(1, UNSIGNED)}\n" in cli(*options).out
    permissive = cli(*options, "--permissive")
    assert permissive.status == 0
    assert record.format(0, UNSIGNED) in permissive.out
    allowed = (*options, "--bpf-signature", "OK")
    assert "audit" not in cli(*allowed).out
    assert record.format(1, ALLOW) in cli(*allowed, "--success-audit").out


def test_eval_of_a_bundle_asks_all_that_its_load_asks(cli: Cli, good: str, signed: str) -> None:
    done = cli("policy", "eval", good, "--bundle", signed, "--json")
    (result,) = done.document["results"]
    assert (done.status, result["allowed"], result["step"]) == (0, True, "")
    assert [
        (each["program"], each["op"], each["bpf_signature"], each["bpf_keyring"])
        for each in result["decisions"]
    ] == [
        ("__loader.prog", "BPF_PROG_LOAD", "OK", "USER"),
        ("__loader.prog", "BPF_PROG_LOAD_POST_INTEGRITY", "METADATA_VERIFIED", "USER"),
        ("on_exec", "BPF_PROG_LOAD", "UNSIGNED", "NONE"),
        ("on_exit", "BPF_PROG_LOAD", "UNSIGNED", "NONE"),
    ]


@pytest.mark.parametrize(
    ("lines", "step", "not_asked"),
    [
        (("op=BPF_PROG_LOAD bpf_keyring=USER action=DENY",), "prog_load", 3),
        ((POST,), "prog_run", 2),
        ((UNSIGNED,), "prog_run", 1),
    ],
)
def test_eval_of_a_bundle_names_the_step_that_is_denied(
    cli: Cli, signed: str, lines: tuple[str, ...], step: str, not_asked: int
) -> None:
    path = write_policy(*lines, ALLOW)
    options = ("policy", "eval", path, "--bundle", signed)
    done = cli(*options)
    assert done.status == 1
    assert f"p.pol: REFUSES signed.bpfseal, {step}: -EACCES" in done.out
    (result,) = cli(*options, "--json").document["results"]
    assert (result["step"], result["not_asked"]) == (step, not_asked)
    permissive = cli(*options, "--permissive")
    assert permissive.status == 0
    assert "lets signed.bpfseal load" in permissive.out


def test_eval_of_a_bundle_takes_keyring_and_scheme(cli: Cli, signed: str) -> None:
    path = write_policy("op=BPF_PROG_LOAD bpf_keyring=BUILTIN action=DENY", ALLOW)
    options = ("policy", "eval", path, "--bundle", signed)
    assert cli(*options).status == 0
    assert cli(*options, "--bpf-keyring", "BUILTIN").status == 1
    (result,) = cli(*options, "--scheme", "inline", "--json").document["results"]
    assert len(result["decisions"]) == 3
    assert "loadtime is not for kernels" in cli(*options, "--scheme", "loadtime").err


def test_eval_of_an_object_is_that_of_an_unsigned_loader(cli: Cli, good: str) -> None:
    done = cli("policy", "eval", good, "--bundle", OBJECT)
    assert done.status == 1
    assert "the kfunc ends its run with -EPERM" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("policy",),
        ("policy", "dance", "good.pol"),
        ("policy", "check"),
        ("policy", "check", "good.pol", "--op", "BPF_PROG_LOAD"),
        ("policy", "eval", "good.pol"),
        ("policy", "eval", "good.pol", "good.pol", "--op", "BPF_PROG_LOAD"),
        ("policy", "eval", "good.pol", "--op", "EXECUTE"),
        ("policy", "eval", "good.pol", "--op", "BPF_PROG_LOAD", "--bpf-signature", "ok"),
        ("policy", "eval", "good.pol", "--op", "BPF_PROG_LOAD", "--bundle", "x"),
        ("policy", "eval", "good.pol", "--bundle", str(OBJECT), "--bpf-keyring", "NONE"),
        ("load", *MODEL, str(OBJECT), "--permissive"),
        ("load", *MODEL, str(OBJECT), "--success-audit"),
    ],
)
@pytest.mark.usefixtures("good")
def test_options_that_make_no_sense_are_usage_errors(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli(*arguments).status == 2


# load --policy


def test_load_under_a_policy_that_lets_it_through(
    cli: Cli, keys: Keys, good: str, signed: str
) -> None:
    load = ("load", *MODEL, signed, "--certificate", keys.certificate, "--policy", good)
    done = cli(*load)
    assert done.status == 0
    assert "verdict METADATA_VERIFIED" in done.out
    (result,) = cli(*load, "--success-audit", "--json").document["results"]
    assert [record["type"] for record in result["audit"]] == [1420] * 4


def test_load_names_the_rule_that_denies_and_what_to_do(
    cli: Cli, keys: Keys, locked_out: str, signed: str
) -> None:
    load = ("load", *MODEL, signed, "--certificate", keys.certificate, "--policy", locked_out)
    done = cli(*load)
    assert done.status == 1
    assert "REFUSED, prog_run: -EACCES: the policy denies on_exec at BPF_PROG_LOAD" in done.out
    assert f"{UNSIGNED}, line 2" in done.out
    assert f"hint: allow what loaders install before that: {INNER}" in done.out
    assert f'rule="{UNSIGNED}"' in done.out
    permissive = cli(*load, "--permissive")
    assert permissive.status == 0
    assert "enforcing=0" in permissive.out


def test_load_and_eval_agree(cli: Cli, keys: Keys, signed: str) -> None:
    for number, lines in enumerate(
        (
            (ALLOW,),
            (UNSIGNED, ALLOW),
            (INNER, UNSIGNED, ALLOW),
            (POST, ALLOW),
            ("DEFAULT action=DENY",),
        )
    ):
        path = write_policy(*lines, name=f"p{number}")
        evaluated = cli("policy", "eval", path, "--bundle", signed, "--json")
        (forecast,) = evaluated.document["results"]
        loaded = cli(
            "load", *MODEL, signed, "--certificate", keys.certificate, "--policy", path, "--json"
        )
        (outcome,) = loaded.document["results"]
        assert evaluated.status == loaded.status
        assert forecast["audit"] == outcome["audit"]
        assert forecast["step"] == outcome.get("refusal", {"step": ""})["step"]


def test_a_policy_that_is_malformed_is_bad_input(cli: Cli, signed: str) -> None:
    Path("bad.pol").write_text("?")
    done = cli("load", *MODEL, signed, "--policy", "bad.pol")
    assert done.status == 3
    assert done.err.startswith("bpfseal: load: bad.pol: line 1: -EBADMSG: ")
