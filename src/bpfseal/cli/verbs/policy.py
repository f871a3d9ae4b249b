"""``bpfseal policy``: check IPE policies, and say what one would decide."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from bpfseal.cli.console import Console, error_fields
from bpfseal.cli.inputs import ALL, read_input, shown
from bpfseal.cli.options import INPUT_HELP, Options
from bpfseal.cli.policies import print_records, read_policy, record_fields
from bpfseal.errors import BpfsealError, UsageError, errno_name
from bpfseal.scheme import KFUNC, SCHEMES

if TYPE_CHECKING:
    from bpfseal.bundle.model import SignedLoader
    from bpfseal.kernel.model.ipe.engine import Ipe, Question
    from bpfseal.kernel.model.ipe.review import Finding
    from bpfseal.kernel.model.lsm import Operation, ProgramFacts

CHECK: Final = "check"
EVAL: Final = "eval"
OPERATIONS: Final = ("BPF_PROG_LOAD", "BPF_PROG_LOAD_POST_INTEGRITY")
VERDICTS: Final = ("UNSIGNED", "OK", "METADATA_VERIFIED")
KEYRINGS: Final = ("NONE", "BUILTIN", "SECONDARY", "PLATFORM", "USER")
_EVENT_OPTIONS: Final = ("op", "bpf_signature", "bpf_keyring", "bpf_kernel")


def configure(options: Options) -> None:
    """Declare the arguments and options."""
    options.argument("question", choices=(CHECK, EVAL), help="what to do")
    options.argument("files", nargs="+", metavar="FILE", help="policy, - for stdin")
    options.flag("--strict", help="check: a finding is a failure", local=True)
    options.add("--op", choices=OPERATIONS, help="eval: the operation")
    options.add("--bpf-signature", choices=VERDICTS, help="eval: the verdict on the program")
    options.add("--bpf-keyring", choices=KEYRINGS, help="eval: the keyring of its signature")
    options.add("--bpf-kernel", choices=("FALSE", "TRUE"), help="eval: a running loader loads it")
    options.add("--bundle", metavar="IN", help=f"eval: all that a load asks of this {INPUT_HELP}")
    options.add(
        "--scheme",
        choices=tuple(SCHEMES),
        help=f"eval: its variant (default: {KFUNC.name}, or else the only one)",
    )
    options.flag("--permissive", help="eval: a denial is logged only")
    options.flag("--success-audit", help="eval: what is allowed is logged, too", local=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """Check each policy, or evaluate one."""
    if args.question == CHECK:
        if given := [name for name in (*_EVENT_OPTIONS, "bundle") if getattr(args, name)]:
            raise UsageError(f"--{given[0].replace('_', '-')} is for policy {EVAL}")
        return max(_check(path, console, strict=args.strict) for path in args.files)
    if len(args.files) > 1:
        raise UsageError("several policies", hint=f"policy {EVAL} takes one")
    return _evaluate(args, console)


# check


def _check(path: str, console: Console, *, strict: bool) -> int:
    from bpfseal.kernel.model.ipe import PolicyError
    from bpfseal.kernel.model.ipe.review import review

    try:
        policy = read_policy(path)
    except PolicyError as error:
        console.verdict(f"{shown(path)}: REFUSED: {error.reason}", good=False)
        if error.hint:
            console.say(f"  hint: {error.hint}")
        console.say(f"  rule: {error.rule}")
        console.result(
            input=path,
            accepted=False,
            errno=error.errno_name,
            line=error.line,
            rule=error.rule,
            error=error_fields(error),
        )
        return error.exit_status
    except BpfsealError as error:
        console.complain(error)
        console.result(input=path, accepted=False, error=error_fields(error))
        return error.exit_status
    findings = review(policy)
    count = f"{len(policy.rules)} rule{'s' * (len(policy.rules) != 1)}"
    good = not (findings and strict)
    console.verdict(
        f"{shown(path)}: policy {policy.name} {policy.version}, {count}"
        f"{', ' + _counted(findings) if findings else ''}",
        good=good,
    )
    for finding in findings:
        place = f"line {finding.line}: " if finding.line else ""
        console.say(f"  {place}{finding.name}: {finding.message}")
        console.say(f"    hint: {finding.hint}")
    console.result(
        input=path,
        accepted=True,
        name=policy.name,
        version=str(policy.version),
        default=policy.default.value if policy.default else None,
        defaults={each.value: action.value for each, action in policy.defaults.items()},
        rules=[{"line": rule.line, "text": str(rule)} for rule in policy.rules],
        findings=[
            {"name": each.name, "message": each.message, "hint": each.hint, "line": each.line}
            for each in findings
        ],
    )
    return 0 if good else 1


def _counted(findings: tuple[Finding, ...]) -> str:
    return f"{len(findings)} finding{'s' * (len(findings) != 1)}"


# eval


def _evaluate(args: argparse.Namespace, console: Console) -> int:
    from bpfseal.kernel.model.ipe import Ipe

    if args.bundle:
        questions = list(_bundle_questions(args, console))
    elif args.op:
        questions = [_single_question(args)]
    else:
        raise UsageError("nothing to evaluate", hint="--op OPERATION, or --bundle IN")
    policy = read_policy(args.files[0])
    ipe = Ipe.booted(policy, enforce=not args.permissive, success_audit=args.success_audit)
    answers = (ipe(operation, facts) for operation, facts in questions)
    refused = next((number for number, answer in enumerate(answers) if answer), None)
    document: dict[str, Any] = {
        "input": args.files[0],
        "policy": policy.name,
        "version": str(policy.version),
        "enforcing": not args.permissive,
        "allowed": refused is None,
        "answer": errno_name(-ipe.questions[-1].answer) if refused is not None else "",
        "decisions": [_question_fields(question) for question in ipe.questions],
        "not_asked": len(questions) - len(ipe.questions),
        "audit": record_fields(ipe.records),
    }
    if args.bundle:
        document["bundle"] = args.bundle
        document["step"] = "" if refused is None else _step_of(ipe.questions[refused])
    console.result(**document)
    _print(document, ipe, console)
    return 0 if refused is None else 1


def _single_question(args: argparse.Namespace) -> tuple[Operation, ProgramFacts]:
    from bpfseal.bpf.uapi import ProgType
    from bpfseal.kernel.model.lsm import Operation, ProgramFacts
    from bpfseal.kernel.model.verdict import KeyringKind, Verdict

    operation = Operation(args.op)
    is_late = operation is Operation.BPF_PROG_LOAD_POST_INTEGRITY
    usual = Verdict.METADATA_VERIFIED if is_late else Verdict.UNSIGNED
    verdict = Verdict[args.bpf_signature] if args.bpf_signature else usual
    keyring = KeyringKind.USER if verdict else KeyringKind.NONE
    if args.bpf_keyring:
        keyring = KeyringKind[args.bpf_keyring]
    is_kernel = args.bpf_kernel == "TRUE"
    return operation, ProgramFacts("program", ProgType.SYSCALL, verdict, keyring, is_kernel)


def _bundle_questions(
    args: argparse.Namespace, console: Console
) -> Iterable[tuple[Operation, ProgramFacts]]:
    from bpfseal.kernel.model.ipe.forecast import expected_questions
    from bpfseal.kernel.model.verdict import KeyringKind

    for name in ("op", "bpf_signature", "bpf_kernel"):
        if getattr(args, name):
            option = name.replace("_", "-")
            raise UsageError(f"--bundle says what is asked, --{option} does too")
    keyring = KeyringKind[args.bpf_keyring or "USER"]
    if keyring is KeyringKind.NONE:
        raise UsageError("a signature is verified with a keyring", hint="--bpf-keyring USER")
    variant = _variant(args.bundle, args.scheme)
    if not variant.signatures and variant.loader.scheme is KFUNC:
        path = shown(args.bundle)
        console.note(f"{path}: not signed: once it is loaded, the kfunc ends its run with -EPERM")
    return expected_questions(variant, keyring)


def _variant(path: str, scheme: str | None) -> SignedLoader:
    """Return the variant that was asked for, or the one that kernels with the series take."""
    from bpfseal.cli.inputs import single_variant

    bundle = read_input(path, scheme or KFUNC.name)
    if scheme is None:
        names = [variant.loader.scheme_name for variant in bundle.variants]
        scheme = KFUNC.name if KFUNC.name in names else ALL
    return single_variant(bundle, scheme)


def _question_fields(question: Question) -> dict[str, Any]:
    decision, event = question.decision, question.event
    return {
        "program": question.program,
        "op": event.operation.value,
        "bpf_signature": event.verdict.name,
        "bpf_keyring": event.keyring.name,
        "bpf_kernel": event.is_kernel,
        "action": decision.action.value,
        "decided_by": decision.scope.value,
        "rule": str(decision),
        "line": decision.rule.line if decision.rule else 0,
    }


def _step_of(question: Question) -> str:
    """Return the step of a load in which a denial shows."""
    event = question.event
    first = event.operation.value == OPERATIONS[0] and not event.is_kernel
    return "prog_load" if first else "prog_run"


def _print(document: dict[str, Any], ipe: Ipe, console: Console) -> None:
    path = shown(document["input"])
    if "bundle" not in document:
        (decided,) = document["decisions"]
        place = f"line {decided['line']}" if decided["line"] else decided["decided_by"]
        console.verdict(
            f"{path}: {decided['action']}: {decided['rule']} ({place})",
            good=decided["action"] == "ALLOW",
        )
    else:
        console.table(
            ("program", "asked at", "with", "says", "rule"),
            [
                (
                    question.program,
                    question.event.operation.value,
                    str(question.event),
                    question.decision.action.value,
                    str(question.decision),
                )
                for question in ipe.questions
            ],
        )
        subject = shown(document["bundle"])
        if document["allowed"]:
            console.verdict(f"{path}: lets {subject} load", good=True)
        else:
            console.verdict(
                f"{path}: REFUSES {subject}, {document['step']}: -{document['answer']}", good=False
            )
        if document["not_asked"]:
            console.say(f"  questions that are not asked any more: {document['not_asked']}")
    print_records(ipe.records, console)
    if not document["enforcing"]:
        console.say("  permissive: a denial is logged only")
