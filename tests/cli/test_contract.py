"""What holds for every verb: options, exit status, where things are printed."""

from __future__ import annotations

import os
import pty
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bpfseal import __version__
from bpfseal.bundle.store import unpack
from bpfseal.cli import main as cli_main
from bpfseal.cli.load_targets import LINUX_ONLY, MODEL_ONLY
from bpfseal.cli.main import EXIT_BROKEN_PIPE, EXIT_BUG
from bpfseal.cli.options import Options, Parser
from bpfseal.cli.verbs import VERBS, verb_module

from .support import OBJECT, Cli, Keys, listing, run_process

# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("build",),
        ("build", "x", "--no-such-option"),
        ("build", "x", "--sch", "kfunc"),
        ("build", "x", "--scheme", "magic"),
        ("sign", "x"),
        ("sign", "x", "--private-key", "k"),
        ("sign", "x", "--private-key", "k", "--certificate", "c", "--jobs", "-1"),
        ("keygen", "--type", "dsa"),
        ("verify", "x"),
        ("inspect", "x", "y"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_and_one_line(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("bpfseal: ")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(cli: Cli, verb: str) -> None:
    done = cli(verb, "--help")
    assert done.status == 0
    assert done.out.startswith(f"usage: bpfseal {verb}")
    assert "--json" in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_in_the_manual(cli: Cli, verb: str) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert f"## {verb}\n" in manual
    help_text = cli(verb, "--help").out
    options = {word.strip("[],") for word in help_text.split() if word.startswith(("--", "[--"))}
    assert [option for option in sorted(options - {"--help"}) if option not in manual] == []


def test_a_mistyped_option_points_to_the_help_of_the_verb(cli: Cli) -> None:
    done = cli("verify", "x", "--certificat", "c")
    assert (done.status, done.out) == (2, "")
    assert "--certificat" in done.err
    assert done.err.endswith("(see: bpfseal verify --help)\n")


@pytest.mark.parametrize("verb", VERBS)
def test_help_marks_what_is_required(cli: Cli, verb: str) -> None:
    options = Options(Parser(prog=f"bpfseal {verb}"), verb)
    verb_module(verb).configure(options)
    text = " ".join(cli(verb, "--help").out.split())
    marked = {part.split()[-1] for part in text.split("(required)")[:-1] if part}
    assert len(marked) == sum(each.required for each in options._options.values())


def test_help_says_which_kernel_an_option_of_load_is_for(cli: Cli) -> None:
    text = " ".join(cli("load", "--help").out.split())
    for kernel, names in (("linux", LINUX_ONLY), ("model", MODEL_ONLY)):
        for name in names:
            option = text.split(f" --{name.replace('_', '-')} ")[-1]
            assert option.removeprefix("DIR ").removeprefix("FILE ").startswith(f"({kernel}) ")


def test_version_is_printed(cli: Cli) -> None:
    assert cli("--version").out == f"bpfseal {__version__}\n"


def test_help_does_not_load_cryptography() -> None:
    code = (
        "import sys; from bpfseal.cli import main; main(['--help']);"
        "print([m for m in ('cryptography', 'elftools', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("[]\n")


# Where options come from


def test_the_command_line_wins_over_variables_and_these_over_the_file(
    cli: Cli, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.toml").write_text(
        f"[sign]\nprivate-key = {str(keys.private_key)!r}\n"
        f"certificate = {str(keys.certificate)!r}\nhash = 'sha384'\n"
    )
    monkeypatch.setenv("BPFSEAL_CONFIG", "mine.toml")

    def digest(*options: str) -> str:
        cli("sign", OBJECT, "--scheme", "kfunc", "-o", "a", *options)
        signature = cli("inspect", "a", "--json").document["results"][0]["signatures"][0]
        return str(signature["signers"][0]["digest"])

    assert digest() == "sha384"
    monkeypatch.setenv("BPFSEAL_HASH", "sha512")
    assert digest() == "sha512"
    assert digest("--hash", "sha256") == "sha256"
    monkeypatch.setenv("BPFSEAL_HASH", "")
    assert digest() == "sha384"


def test_the_command_line_takes_back_what_another_place_switches_on(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bpfseal.toml").write_text("json = true\n[build]\nunpacked = true\n")
    assert cli("build", OBJECT, "--no-json", "--no-unpacked").out.startswith("exectrace.bpfseal: ")
    assert Path("exectrace.bpfseal").is_file()
    monkeypatch.setenv("BPFSEAL_UNPACKED", "1")
    assert cli("build", OBJECT, "-o", "folder").document["status"] == 0
    assert Path("folder").is_dir()
    monkeypatch.setenv("BPFSEAL_NO_METADATA_CHECK", "1")
    done = cli("load", "--kernel", "model", OBJECT, "--metadata-check")
    assert "options_from" not in done.document


def test_an_option_that_repeats_is_a_list_elsewhere(
    cli: Cli, keys: Keys, other_keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("sign", OBJECT, *keys.signing, "--scheme", "kfunc", "-o", "a")
    both = (str(other_keys.certificate), str(keys.certificate))
    monkeypatch.setenv("BPFSEAL_CERTIFICATE", os.pathsep.join(both))
    assert cli("verify", "a").status == 0
    # The command line replaces the list, it does not add to it.
    assert cli("verify", "a", "--certificate", other_keys.certificate).status == 1
    monkeypatch.delenv("BPFSEAL_CERTIFICATE")
    Path("mine.toml").write_text(f"[verify]\ncertificate = {list(both)!r}\n")
    assert cli("verify", "a", "--config", "mine.toml").status == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sign]\nprivat-key = 'x'\n", "[sign] has no option 'privat-key'"),
        ("[dance]\n", "'dance' is no verb and no option"),
        ("sign = 1\n", "sign is not a table"),
        ("json = 'yes'\n", "json: expected true or false"),
        ("[build]\nscheme = 'magic'\n", "[build] scheme: 'magic' is none of"),
        ("[build]\noutput = 3.5\n", "[build] output: expected a text"),
        ("[sign]\njobs = -3\n", ""),
        ("[build]\noutput = ''\n", "[build] output: '': empty"),
        ('[build]\noutput = "a\\u0000b"\n', "with a NUL character"),
        (f"[build]\npage-size = 0x{'f' * 5000}\n", "[build] page-size: a number: Exceeds"),
        ("config = 'other.toml'\n", "'config' is no verb and no option"),
    ],
)
def test_a_wrong_setting_in_the_file_is_a_usage_error(cli: Cli, text: str, message: str) -> None:
    Path("mine.toml").write_text(text)
    done = cli("sign" if "jobs" in text else "build", OBJECT, "--config", "mine.toml")
    assert done.status == 2
    assert message in done.err
    assert listing(Path()) == ["mine.toml"]


def test_a_wrong_variable_is_a_usage_error_that_names_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFSEAL_SCHEME", "magic")
    done = cli("build", OBJECT)
    assert done.status == 2
    assert "BPFSEAL_SCHEME: 'magic' is none of kfunc, " in done.err


def test_another_file_of_settings_can_be_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.toml").write_text("[build]\noutput = 'chosen'\n")
    assert cli("build", OBJECT, "--config", "mine.toml").status == 0
    monkeypatch.setenv("BPFSEAL_CONFIG", "mine.toml")
    assert cli("build", OBJECT).status == 0
    assert listing(Path()) == ["chosen", "mine.toml"]
    assert cli("build", OBJECT, "--config", "missing.toml").status == 3


def test_settings_that_are_not_toml_are_bad_input(cli: Cli) -> None:
    Path("bpfseal.toml").write_text("= = =")
    assert cli("build", OBJECT).status == 3


# What is printed


@pytest.mark.parametrize("place", ["before", "after"])
def test_json_prints_one_document_and_nothing_else(cli: Cli, place: str) -> None:
    arguments = ("--json", "build") if place == "before" else ("build", "--json")
    document = cli(*arguments, OBJECT).document
    assert document["verb"] == "build"
    assert document["status"] == 0
    assert document["results"][0]["output"] == "exectrace.bpfseal"


def test_json_holds_the_error_when_the_verb_fails(cli: Cli) -> None:
    done = cli("inspect", "missing", "--json")
    assert done.status == 3
    error = done.document["error"]
    assert (error["kind"], error["where"], error["status"]) == ("InputError", "missing", 3)
    assert done.err.startswith("bpfseal: inspect: missing: cannot be read")


def test_json_can_be_asked_for_by_a_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFSEAL_JSON", "1")
    assert cli("build", OBJECT).document["status"] == 0


def test_a_traceback_is_printed_for_debug_alone(cli: Cli) -> None:
    assert "Traceback" not in cli("inspect", "missing").err
    done = cli("inspect", "missing", "--debug")
    assert "Traceback" in done.err
    assert done.status == 3


def test_a_defect_of_ours_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(verb_module("inspect"), "run", fail)
    done = cli("inspect", "x")
    assert done.status == EXIT_BUG
    assert done.err == "bpfseal: internal error: ZeroDivisionError: oops (--debug shows where)\n"


def on_terminal(*arguments: str | Path, **environment: str) -> str:
    """Run the command line with stdout and stderr on a terminal and return what it showed."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "bpfseal", *map(str, arguments)]
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(
        command,
        stdout=slave,
        stderr=slave,
        env=plain | {"TERM": "xterm"} | environment,
        check=False,
    )
    os.close(slave)
    shown = bytearray()
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:  # the end: nobody has the other side open
            break
    os.close(master)
    return shown.decode()


def test_colour_and_boxes_appear_on_a_terminal_only(cli: Cli, keys: Keys) -> None:
    verify = ("verify", OBJECT, "--certificate", keys.certificate)
    assert "\x1b[" in on_terminal(*verify)
    assert "\x1b[" not in on_terminal(*verify, NO_COLOR="1")
    assert "\x1b[" not in cli(*verify).out
    assert "│" in on_terminal("inspect", OBJECT)
    assert "│" not in cli("inspect", OBJECT).out


def cells(shown: str) -> set[str]:
    """Return what the cells of the tables hold, of which each may go over several lines."""
    found: set[str] = set()
    row: list[str] = []
    for line in shown.splitlines():
        if line.startswith("│"):
            parts = [part.strip() for part in line.strip("│").split("│")]
            row = [a + b for a, b in zip(row or [""] * len(parts), parts, strict=True)]
            found.update(row)
            if parts[0]:
                found.update(parts)
                row = parts
        else:
            row = []
    return found


def test_no_table_cuts_what_decides(cli: Cli, keys: Keys) -> None:
    """80 columns are what `rich` takes for a terminal without a size."""
    policy = Path("site.pol")
    policy.write_text("policy_name=site policy_version=1.0.0\nDEFAULT action=ALLOW\n")
    assert cli("sign", OBJECT, *keys.signing, "-o", "a").status == 0
    certificate = ("--certificate", keys.certificate)
    shown = {
        arguments[0]: on_terminal(*arguments)
        for arguments in (
            ("inspect", "a"),
            ("verify", "a", "-v", *certificate),
            ("load", "a", "--kernel", "model", *certificate),
            ("policy", "eval", str(policy), "--bundle", "a"),
            ("probe",),
        )
    }
    for verb, text in shown.items():
        assert "│" in text, verb
        assert "…" not in text, verb
    assert {
        "btf_trace_sched_process_exec",
        "tp_btf/sched_process_exec",
    } <= cells(shown["inspect"])
    assert "BPF_PROG_LOAD_POST_INTEGRITY" in cells(shown["policy"])


def test_many_inputs_show_a_progress_bar_on_a_terminal(keys: Keys) -> None:
    Path("other.bpf.o").write_bytes(OBJECT.read_bytes())
    assert "signing" in on_terminal("sign", OBJECT, "other.bpf.o", *keys.signing)


# stdin and stdout


def test_an_object_goes_through_a_pipe_and_comes_out_signed(keys: Keys) -> None:
    done = run_process(
        "sign", "-", "-o", "-", "--scheme", "kfunc", *keys.signing, data=OBJECT.read_bytes()
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(unpack(done.stdout, "stdout").variant("kfunc").signatures) == 1
    verify = run_process("verify", "-", "--certificate", keys.certificate, data=done.stdout)
    assert verify.returncode == 0


def test_a_part_goes_to_stdout_alone() -> None:
    done = run_process("export", OBJECT, "--scheme", "kfunc", "--btf", "-", "--insns", "insns.bin")
    assert done.returncode == 0
    assert len(done.stdout) == 141
    assert Path("insns.bin").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("build", OBJECT, "-o", "-", "--json"),
        ("export", OBJECT, "--insns", "-", "--json"),
        ("build", OBJECT, OBJECT, "-o", "-"),
    ],
    ids=["build --json", "export --json", "two to stdout"],
)
def test_stdout_takes_one_thing(cli: Cli, arguments: tuple[str | Path, ...]) -> None:
    assert cli(*arguments).status == 2


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "bpfseal", "inspect", str(OBJECT)]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (EXIT_BROKEN_PIPE, b"")


# Output files


def test_a_failure_keeps_the_file_that_was_there(cli: Cli, keys: Keys) -> None:
    Path("old.bpfseal").write_bytes(b"old")
    Path("bad.bpf.o").write_bytes(b"\x7fELF")
    assert cli("sign", "bad.bpf.o", *keys.signing, "-o", "old.bpfseal").status == 3
    assert Path("old.bpfseal").read_bytes() == b"old"
    assert listing(Path()) == ["bad.bpf.o", "old.bpfseal"]


def test_a_disk_that_is_full_leaves_no_half_file() -> None:
    def fill_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    Path("old.bpfseal").write_bytes(b"old")
    done = run_process("build", OBJECT, "-o", "old.bpfseal", preexec_fn=fill_disk)
    assert done.returncode == 4
    assert b"old.bpfseal: cannot be written: File too large" in done.stderr
    assert Path("old.bpfseal").read_bytes() == b"old"
    assert listing(Path()) == ["old.bpfseal"]


def test_a_full_stdout_is_status_4() -> None:
    command = [sys.executable, "-m", "bpfseal", "build", str(OBJECT), "-o", "-"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 4
    assert done.stderr == b"bpfseal: stdout: cannot be written: No space left on device\n"


def test_a_place_that_cannot_be_written_is_status_4(cli: Cli) -> None:
    Path("file").touch()
    for arguments in (
        ("build", OBJECT, "-o", "file/a.bpfseal"),
        ("export", OBJECT, "--scheme", "kfunc", "--insns", "file/a"),
        ("keygen", "--out", "file/keys"),
    ):
        done = cli(*arguments)
        assert done.status == 4
        assert done.err.count("\n") == 1


def test_main_takes_the_arguments_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bpfseal", "--version"])
    assert cli_main() == 0
