"""The parser and 100,000 texts: it takes what the grammar takes, and nothing but its errors leave.

The grammar stands here a second time, as regular expressions of whole lines.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from errno import EBADMSG, EINVAL, ERANGE

from bpfseal.kernel.model.ipe import PolicyError, parse_policy
from bpfseal.kernel.model.ipe.audit import Process, access_record, load_record
from bpfseal.kernel.model.ipe.evaluate import evaluate
from bpfseal.kernel.model.ipe.policy import PROPERTIES, IpeOperation
from bpfseal.kernel.model.ipe.review import EVENTS, review
from support.fuzz import mutations

from .policies import CASES, EVERY_DEFAULT, FULL, HEADER, REST, SELFTEST

SEED = 20260501
MUTATED = 30_000
GENERATED = 70_000

_OPERATION = rb"op=(?:" + b"|".join(each.value.encode() for each in IpeOperation) + rb")"
_WORDS = rb"|".join(
    f"{name}=(?:{'|'.join(words)})".encode()
    if words
    else f"{name}=[^: \t]*:(?:[0-9A-Fa-f]{{2}})*".encode()
    for name, words in PROPERTIES.items()
)
_ACTION = rb"action=(?:ALLOW|DENY)"
_GAP = rb"[ \t]+"
_RULE = re.compile(
    rb"[ \t]*" + _OPERATION + rb"(?:" + _GAP + rb"(?:" + _WORDS + rb"))*" + _GAP + _ACTION
)
_DEFAULT = re.compile(rb"[ \t]*DEFAULT(?:" + _GAP + rb"(" + _OPERATION + rb"))?" + _GAP + _ACTION)
_HEADER = re.compile(
    rb"[ \t]*policy_name=[^ \t]+" + _GAP + rb"policy_version=([^ \t.]+)\.([^ \t.]+)\.([^ \t.]+)"
)
_NUMBER = re.compile(rb"\+?0*[0-9]{1,5}")


def grammar_takes(text: bytes) -> bool:
    """Tell whether a text is a policy."""
    text = text.split(b"\0")[0]
    kept = [re.sub(rb"#.*", b"", line, flags=re.DOTALL) for line in re.split(rb"[\n\r]", text)]
    lines = [line for line in (re.sub(rb"[\s\xa0]+\Z", b"", line) for line in kept) if line]
    header = _HEADER.fullmatch(lines[0]) if lines else None
    if not header:
        return False
    if not all(_NUMBER.fullmatch(part) and int(part) < 65536 for part in header.groups()):
        return False
    defaults: list[bytes | None] = []
    for line in lines[1:]:
        default = _DEFAULT.fullmatch(line)
        if default:
            defaults.append(default.group(1))
        elif not _RULE.fullmatch(line):
            return False
    complete = None in defaults or len(set(defaults)) == len(IpeOperation)
    return complete and len(set(defaults)) == len(defaults)


def errno_of(text: bytes) -> int:
    """Return the errno with which a text is refused, or 0; nothing else may leave the parser."""
    try:
        parse_policy(text)
    except PolicyError as refused:
        return refused.errno if str(refused) else -1
    return 0


def generated(count: int, seed: int) -> Iterator[bytes]:
    """Yield texts made of the language's own words, right and wrong."""
    source = random.Random(seed)  # noqa: S311 (the same texts in every run)
    operations = [f"op={each.value}".encode() for each in IpeOperation]
    properties = [f"{name}={word}".encode() for name, words in PROPERTIES.items() for word in words]
    properties += [b"dmverity_roothash=sha256:00ff", b"fsverity_digest=a:0", b"fsverity_digest=:"]
    actions = [b"action=ALLOW", b"action=DENY"]
    odd = [b"DEFAULT", b"op=", b"action=", b"=", b"#", b"\0", b"\xa0", b"bpf_keyring=NONE", b"x"]
    gaps = [b" ", b" ", b" ", b"\t", b"  ", b"\v"]
    numbers = [b"0", b"1", b"65535", b"65536", b"+7", b"x", b"", b"18446744073709551616"]

    def line() -> bytes:
        tokens = [source.choice(operations)]
        tokens += source.choices(properties, k=source.choice((0, 0, 1, 1, 2, 3)))
        tokens.append(source.choice(actions))
        if source.randrange(4) == 0:
            tokens = [b"DEFAULT", tokens[0], tokens[-1]]
        if source.randrange(12) == 0:
            tokens.insert(source.randrange(len(tokens) + 1), source.choice(odd + tokens))
        if source.randrange(16) == 0:
            source.shuffle(tokens)
        return source.choice(gaps).join(tokens)

    for _ in range(count):
        good = source.randrange(4) != 0
        version = b".".join(source.choices(numbers[:3] if good else numbers, k=3))
        lines = [b"policy_name=n policy_version=" + version]
        lines += [line() for _ in range(source.randrange(8))]
        if source.randrange(8):
            lines.append(source.choice((REST, EVERY_DEFAULT)).rstrip())
        yield source.choice((b"\n", b"\n", b"\r\n", b"\r", b"\n\n")).join(lines)


def texts() -> Iterator[bytes]:
    seeds = [FULL, SELFTEST, HEADER + EVERY_DEFAULT, *(case.text for case in CASES if case.text)]
    each, rest = divmod(MUTATED, len(seeds))
    for number, text in enumerate(seeds):
        yield from mutations(text, each + (number < rest), SEED + number)
    yield from generated(GENERATED, SEED)


def test_100_000_texts_are_taken_or_refused_as_the_grammar_says() -> None:
    outcomes: Counter[int] = Counter()
    for text in texts():
        errno = errno_of(text)
        assert (errno == 0) == grammar_takes(text), text
        outcomes[errno] += 1
    assert outcomes.total() == MUTATED + GENERATED
    assert set(outcomes) == {0, EBADMSG, EINVAL, ERANGE}
    assert outcomes[0] > 10_000


def test_every_policy_that_parses_can_be_reviewed_and_asked() -> None:
    asked = 0
    for text in generated(2_000, SEED + 1):
        try:
            policy = parse_policy(text)
        except PolicyError:
            continue
        for finding in review(policy):
            assert finding.hint
        for event in EVENTS:
            decision = evaluate(policy, event)
            access_record(event, decision, enforce=True, process=Process())
            asked += 1
        load_record(policy, Process())
    assert asked > 2_000


def test_cases_agree_with_the_grammar() -> None:
    for case in CASES:
        assert grammar_takes(case.text) == (case.errno == 0), case.name
