"""What each verb does."""

from __future__ import annotations

import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bpfseal.bundle.model import Bundle, Signature
from bpfseal.bundle.sign import payload_of
from bpfseal.bundle.store import read_bundle, write_bundle
from bpfseal.scheme import SIGNED_SCHEMES
from bpfseal.signing import cms
from bpfseal.signing.signer import load_signer

from .support import MODEL, OBJECT, Cli, Keys, listing, make_keys


@pytest.fixture
def signed(cli: Cli, keys: Keys) -> str:
    assert cli("sign", OBJECT, *keys.signing, "--scheme", "kfunc").status == 0
    return "exectrace.bpfseal"


@pytest.fixture
def unsigned(cli: Cli) -> str:
    assert cli("build", OBJECT, "--scheme", "kfunc", "-o", "unsigned.bpfseal").status == 0
    return "unsigned.bpfseal"


def with_changed(path: str, **parts: Any) -> str:
    """Write a copy of a bundle whose loader has other parts, and return its path."""
    bundle = read_bundle(Path(path))
    (variant,) = bundle.variants
    changed = replace(variant, loader=replace(variant.loader, **parts))
    write_bundle(replace(bundle, variants=(changed,)), "changed.bpfseal")
    return "changed.bpfseal"


def signed_anyway(path: str, keys: Keys) -> str:
    """Sign a bundle's loader, which ``bpfseal sign`` refuses, in place."""
    bundle = read_bundle(Path(path))
    (variant,) = bundle.variants
    signer = load_signer(keys.private_key.read_bytes(), keys.certificate.read_bytes())
    made = Signature(cms.build(payload_of(variant.loader), signer), signer.certificate.der)
    write_bundle(replace(bundle, variants=(variant.with_signature(made),)), path)
    return path


# keygen


@pytest.mark.parametrize("key_type", ["rsa2048", "p256", "p384"])
def test_keygen_writes_a_private_key_and_a_certificate(cli: Cli, key_type: str) -> None:
    done = cli("keygen", "--type", key_type, "--out", "keys", "--common-name", "me", "--json")
    assert done.status == 0
    assert listing(Path("keys")) == ["cert.der", "cert.pem", "key.pem"]
    assert stat.S_IMODE(Path("keys/key.pem").stat().st_mode) == 0o600
    (result,) = done.document["results"]
    assert result["subject"] == "CN=me"
    text = subprocess.run(
        ["openssl", "x509", "-in", "keys/cert.pem", "-noout", "-text"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "Digital Signature" in text
    assert "Subject Key Identifier" in text


@pytest.mark.parametrize("name", ["key.pem", "cert.pem", "cert.der"])
def test_keygen_replaces_a_file_only_when_forced(cli: Cli, name: str) -> None:
    Path(name).write_text("mine")
    done = cli("keygen", "--type", "p256")
    assert done.status == 2
    assert f"{name}: is there already (--force replaces it)" in done.err
    assert listing(Path()) == [name]
    assert Path(name).read_text() == "mine"
    assert cli("keygen", "--type", "p256", "--force").status == 0
    assert Path(name).read_bytes() != b"mine"


# build


def test_build_writes_an_unsigned_bundle_into_the_current_directory(cli: Cli) -> None:
    done = cli("build", OBJECT, "--scheme", "kfunc")
    assert done.status == 0
    assert done.out == "exectrace.bpfseal: unsigned, kfunc\n"
    assert read_bundle(Path("exectrace.bpfseal")).variant("kfunc").signatures == ()


def test_build_makes_a_variant_for_each_scheme_that_can_be_signed(cli: Cli) -> None:
    assert cli("build", OBJECT).status == 0
    variants = read_bundle(Path("exectrace.bpfseal")).variants
    assert tuple(variant.loader.scheme_name for variant in variants) == SIGNED_SCHEMES


@pytest.mark.parametrize("verb", ["build", "sign"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--scheme", "inline"), ("inline",)),
        (("--scheme", "inline", "--inline-revision", "hardened"), ("inline",)),
        (("--scheme", "inline", "--inline-revision", "original"), ("inline-original",)),
        (("--scheme", "inline", "--inline-revision", "both"), ("inline-original", "inline")),
        (("--scheme", "inline-original"), ("inline-original",)),
        ((), ("kfunc", "inline-original", "inline", "loadtime")),
        (("--inline-revision", "both"), ("kfunc", "inline-original", "inline", "loadtime")),
        (("--inline-revision", "hardened"), ("kfunc", "inline", "loadtime")),
        (("--inline-revision", "original"), ("kfunc", "inline-original", "loadtime")),
    ],
    ids=lambda value: " ".join(value),
)
def test_inline_means_the_hardened_revision_unless_another_is_named(
    cli: Cli, keys: Keys, verb: str, options: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    signing = keys.signing if verb == "sign" else ()
    assert cli(verb, OBJECT, *signing, *options, "-o", "a").status == 0
    found = read_bundle(Path("a")).variants
    assert tuple(variant.loader.scheme_name for variant in found) == expected


def test_of_a_bundle_the_other_revision_is_not_signed(cli: Cli, keys: Keys) -> None:
    cli("build", OBJECT, "-o", "a")
    assert cli("sign", "a", *keys.signing, "--inline-revision", "original", "-o", "b").status == 0
    variants = read_bundle(Path("b")).variants
    signed = [variant.loader.scheme_name for variant in variants if variant.signatures]
    assert signed == ["kfunc", "inline-original", "loadtime"]
    cli("build", OBJECT, "--scheme", "inline", "-o", "c")
    done = cli("sign", "c", *keys.signing, "--scheme", "inline", "--inline-revision", "both")
    assert done.status == 2
    assert "no variant for scheme inline-original" in done.err
    assert cli("sign", "c", *keys.signing, "--inline-revision", "original").status == 2


@pytest.mark.parametrize("scheme", ["kfunc", "inline-original"])
def test_a_revision_beside_a_scheme_that_has_none_is_a_usage_error(cli: Cli, scheme: str) -> None:
    done = cli("build", OBJECT, "--scheme", scheme, "--inline-revision", "both")
    assert done.status == 2
    assert f"--inline-revision with --scheme {scheme}" in done.err


def test_build_is_deterministic(cli: Cli) -> None:
    cli("build", OBJECT, "-o", "one")
    cli("build", OBJECT, "-o", "two")
    assert Path("one").read_bytes() == Path("two").read_bytes()


def test_several_objects_go_into_a_directory(cli: Cli) -> None:
    Path("other.bpf.o").write_bytes(OBJECT.read_bytes())
    assert cli("build", OBJECT, "other.bpf.o", "-o", "new/folder").status == 0
    assert listing(Path("new/folder")) == ["exectrace.bpfseal", "other.bpfseal"]


@pytest.mark.parametrize("output", ["out/", "out"])
def test_one_object_goes_into_a_directory_too(cli: Cli, output: str) -> None:
    if output == "out":
        Path("out").mkdir()
    assert cli("build", OBJECT, "-o", output).status == 0
    assert listing(Path("out")) == ["exectrace.bpfseal"]


def test_two_inputs_that_would_share_an_output_are_refused(cli: Cli) -> None:
    Path("exectrace.o").write_bytes(OBJECT.read_bytes())
    done = cli("build", OBJECT, "exectrace.o")
    assert done.status == 2
    assert "would both be written" in done.err
    assert listing(Path()) == ["exectrace.o"]


def test_bundles_may_be_directories(cli: Cli, unsigned: str) -> None:
    options = ("--unpacked", "--scheme", "kfunc")
    assert cli("build", OBJECT, "-o", "unpacked", *options).status == 0
    assert read_bundle(Path("unpacked")) == read_bundle(Path(unsigned))
    assert cli("build", OBJECT, "-o", "folder/", *options).status == 0
    assert read_bundle(Path("folder/exectrace.bpfseal")) == read_bundle(Path(unsigned))


def test_a_bundle_directory_is_signed_in_place(cli: Cli, keys: Keys) -> None:
    cli("build", OBJECT, "-o", "unpacked", "--unpacked")
    assert cli("sign", "unpacked", *keys.signing, "-o", "unpacked").status == 0
    assert len(read_bundle(Path("unpacked")).variant("kfunc").signatures) == 1
    assert listing(Path()) == ["unpacked"]


# sign


def test_sign_makes_of_an_object_a_bundle_that_verifies(cli: Cli, keys: Keys, signed: str) -> None:
    done = cli("verify", signed, "--certificate", keys.certificate)
    assert done.status == 0
    assert done.out == f"{signed}: kfunc: verified, signed by CN=bpfseal signing key\n"


def test_signing_an_object_and_signing_its_bundle_is_the_same(cli: Cli, unsigned: str) -> None:
    rsa = make_keys(Path("rsa"), "--type", "rsa2048")
    assert cli("sign", OBJECT, *rsa.signing, "--scheme", "kfunc", "-o", "one").status == 0
    assert cli("sign", unsigned, *rsa.signing, "-o", "two").status == 0
    assert Path("one").read_bytes() == Path("two").read_bytes()


def test_a_second_signer_adds_a_signature(
    cli: Cli, keys: Keys, other_keys: Keys, signed: str
) -> None:
    assert cli("sign", signed, *other_keys.signing).status == 0
    for trusted in (keys, other_keys):
        assert cli("verify", signed, "--certificate", trusted.certificate).status == 0
        assert cli("load", *MODEL, signed, "--certificate", trusted.certificate).status == 0


def test_signing_again_with_the_same_rsa_key_changes_nothing(cli: Cli, unsigned: str) -> None:
    rsa = make_keys(Path("rsa"), "--type", "rsa2048")
    cli("sign", unsigned, *rsa.signing)
    once = Path(unsigned).read_bytes()
    cli("sign", unsigned, *rsa.signing)
    assert Path(unsigned).read_bytes() == once


@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_the_digest_can_be_chosen(cli: Cli, keys: Keys, hash_name: str) -> None:
    options = ("--hash", hash_name, "--scheme", "kfunc", "-o", "a")
    assert cli("sign", OBJECT, *keys.signing, *options).status == 0
    document = cli("verify", "a", "--certificate", keys.certificate, "--json").document
    assert document["results"][0]["signers"][0]["digest"] == hash_name


def test_a_passphrase_comes_from_a_file_or_a_named_variable(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("passphrase").write_text("open sesame\n")
    keys = make_keys(Path("keys"), "--passphrase-file", "passphrase")
    assert b"ENCRYPTED" in keys.private_key.read_bytes()
    assert cli("sign", OBJECT, *keys.signing, "--passphrase-file", "passphrase").status == 0
    monkeypatch.setenv("SECRET", "open sesame")
    assert cli("sign", OBJECT, *keys.signing, "--passphrase-env", "SECRET").status == 0
    done = cli("sign", OBJECT, *keys.signing, "--passphrase-env", "NO_SUCH_VARIABLE")
    assert done.status == 2
    assert "--passphrase-env: no such variable is set" in done.err


def test_many_inputs_are_signed_by_several_processes(cli: Cli, keys: Keys) -> None:
    names = [f"object{number}.bpf.o" for number in range(5)]
    for name in names:
        Path(name).write_bytes(OBJECT.read_bytes())
    Path("object2.bpf.o").write_bytes(b"\x7fELF")
    done = cli("sign", *names, *keys.signing, "-o", "signed", "--jobs", "2", "--json")
    assert done.status == 3
    results = done.document["results"]
    assert [result["input"] for result in results] == names
    assert [("error" in result) for result in results] == [False, False, True, False, False]
    assert listing(Path("signed")) == [f"object{number}.bpfseal" for number in (0, 1, 3, 4)]


def test_a_scheme_that_the_bundle_does_not_have_is_a_usage_error(cli: Cli, keys: Keys) -> None:
    write_bundle(Bundle("none", ()), "none.bpfseal")
    done = cli("sign", "none.bpfseal", *keys.signing, "--scheme", "kfunc")
    assert done.status == 2
    assert done.err == "bpfseal: sign: none.bpfseal: no variant for scheme kfunc (it has: none)\n"


def test_a_scheme_without_a_signature_cannot_be_signed(cli: Cli, keys: Keys) -> None:
    assert cli("build", OBJECT, "--scheme", "unsigned", "-o", "a").status == 0
    assert cli("sign", "a", *keys.signing).status == 2
    assert cli("sign", OBJECT, *keys.signing, "--scheme", "unsigned").status == 2


# verify


def test_an_unsigned_bundle_or_object_does_not_verify(cli: Cli, keys: Keys, unsigned: str) -> None:
    for name in (unsigned, OBJECT):
        done = cli("verify", name, "--certificate", keys.certificate, "--scheme", "kfunc")
        assert done.status == 1
        assert "NOT VERIFIED: not signed" in done.out


def test_a_signature_by_somebody_else_does_not_verify(
    cli: Cli, other_keys: Keys, signed: str
) -> None:
    done = cli("verify", signed, "--certificate", other_keys.certificate)
    assert done.status == 1
    assert "ENOKEY" in done.out


@pytest.mark.parametrize(
    ("part", "message"),
    [("insns", "EKEYREJECTED"), ("btf", "EKEYREJECTED"), ("metadata", "EBADMSG")],
)
def test_a_change_of_any_part_does_not_verify(
    cli: Cli, keys: Keys, signed: str, part: str, message: str
) -> None:
    loader = read_bundle(Path(signed)).variant("kfunc").loader
    data = bytearray(getattr(loader, part))
    data[-1] ^= 1
    changed = with_changed(signed, **{part: bytes(data)})
    done = cli("verify", changed, "--certificate", keys.certificate)
    assert done.status == 1
    assert message in done.out


def test_a_signed_loader_without_a_check_of_its_metadata_does_not_verify(
    cli: Cli, keys: Keys, unsigned: str
) -> None:
    exit_only = bytes.fromhex("b700000000000000 9500000000000000")
    changed = signed_anyway(with_changed(unsigned, insns=exit_only), keys)
    done = cli("verify", changed, "--certificate", keys.certificate)
    assert done.status == 1
    assert "carry no digest of the metadata" in done.out


def test_a_signed_loader_with_a_foreign_btf_does_not_verify(
    cli: Cli, keys: Keys, unsigned: str
) -> None:
    btf = read_bundle(Path(unsigned)).variant("kfunc").loader.btf
    foreign = btf.replace(b"bpf_loader_verify_metadata", b"bpf_loader_verify_anything")
    changed = signed_anyway(with_changed(unsigned, btf=foreign), keys)
    done = cli("verify", changed, "--certificate", keys.certificate)
    assert done.status == 1
    assert "loader BTF" in done.out


def test_a_directory_of_certificates_can_be_trusted(
    cli: Cli, keys: Keys, other_keys: Keys, signed: str
) -> None:
    trust = Path("trust")
    trust.mkdir()
    (trust / "README").write_text("not a certificate")
    (trust / "other.pem").write_bytes(other_keys.certificate.read_bytes())
    assert cli("verify", signed, "--trust", trust).status == 1
    (trust / "ours.der").write_bytes((keys.folder / "cert.der").read_bytes())
    assert cli("verify", signed, "--trust", trust).status == 0


def test_an_empty_directory_of_certificates_is_bad_input(cli: Cli, signed: str) -> None:
    Path("trust").mkdir()
    assert cli("verify", signed, "--trust", "trust").status == 3


def test_nobody_is_trusted_for_lying_in_the_bundle(cli: Cli, signed: str) -> None:
    done = cli("verify", signed)
    assert done.status == 2
    assert "nobody is trusted" in done.err


def test_of_several_inputs_each_has_a_line_and_the_worst_counts(
    cli: Cli, keys: Keys, signed: str, unsigned: str
) -> None:
    done = cli("verify", signed, unsigned, "--certificate", keys.certificate)
    assert done.status == 1
    assert [line.split(":")[0] for line in done.out.splitlines()] == [signed, unsigned]
    done = cli("verify", "missing", signed, unsigned, "--certificate", keys.certificate, "--json")
    assert done.status == 3
    verified = [result["verified"] for result in done.document["results"]]
    assert verified == [False, True, False]


# inspect


def test_inspect_shows_programs_maps_signer_and_what_the_signature_covers(
    cli: Cli, signed: str
) -> None:
    done = cli("inspect", signed)
    assert done.status == 0
    loader = read_bundle(Path(signed)).variant("kfunc").loader
    for fact in (
        "CN=bpfseal signing key",
        loader.excl_prog_hash.hex(),
        loader.metadata_digest.hex(),
        f"insns ({len(loader.insns)} bytes) + btf (141 bytes)",
        "tp_btf/sched_process_exec",
        "ringbuf",
    ):
        assert fact in done.out


def test_inspect_tells_the_same_of_an_object_and_of_its_bundle(cli: Cli, unsigned: str) -> None:
    of_object = cli("inspect", OBJECT, "--scheme", "kfunc", "--json").document["results"][0]
    of_bundle = cli("inspect", unsigned, "--json").document["results"][0]
    assert of_object | {"input": ""} == of_bundle | {"input": ""}
    assert [program["name"] for program in of_object["programs"]] == ["on_exec", "on_exit"]
    assert of_object["signatures"] == []


def test_inspect_shows_a_signature_that_cannot_be_read(cli: Cli, unsigned: str) -> None:
    bundle = read_bundle(Path(unsigned))
    broken = bundle.variants[0].with_signature(Signature(b"junk", b""))
    write_bundle(replace(bundle, variants=(broken,)), "broken.bpfseal")
    done = cli("inspect", "broken.bpfseal")
    assert done.status == 0
    assert "4 bytes, unreadable" in done.out


# load


def test_load_brings_up_programs_and_maps(cli: Cli, keys: Keys, signed: str) -> None:
    done = cli("load", *MODEL, signed, "--certificate", keys.certificate)
    assert done.status == 0
    assert "loaded, verdict METADATA_VERIFIED" in done.out
    document = cli("load", *MODEL, signed, "--certificate", keys.certificate, "--json").document
    (result,) = document["results"]
    assert [program["name"] for program in result["programs"]] == ["on_exec", "on_exit"]
    assert [entry["ident"] for entry in result["maps"]] == ["started", "events", "rodata", "bss"]
    assert [entry["frozen"] for entry in result["maps"]] == [False, False, True, False]


def test_load_says_which_names_it_assumed_without_a_kernels_btf(
    cli: Cli, keys: Keys, signed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpfseal.kernel.model.kernel_btf.RUNNING_KERNEL", Path("none"))
    done = cli("load", *MODEL, signed, "--certificate", keys.certificate)
    assert done.status == 0
    assert "assumed to exist: " in done.out
    assert "btf_trace_sched_process_exec" in done.out


@pytest.mark.parametrize("keyring", ["session", "user", "builtin", "secondary", "platform", "-5"])
def test_load_trusts_the_keyring_that_was_named(
    cli: Cli, keys: Keys, signed: str, keyring: str
) -> None:
    done = cli("load", *MODEL, signed, "--certificate", keys.certificate, f"--keyring={keyring}")
    assert done.status == 0


def test_load_refuses_a_keyring_that_is_none(cli: Cli, signed: str) -> None:
    assert cli("load", *MODEL, signed, "--keyring", "golden").status == 2
    done = cli("load", *MODEL, signed, "--keyring", "77")
    assert done.status == 1
    assert "REFUSED, prog_load: -EINVAL" in done.out


def test_a_refused_load_names_step_errno_rule_and_remedy(cli: Cli, signed: str) -> None:
    done = cli("load", *MODEL, signed, "--json")
    assert done.status == 1
    (result,) = done.document["results"]
    refusal = result["refusal"]
    assert (refusal["step"], refusal["errno"]) == ("prog_load", "ENOKEY")
    assert "verify_pkcs7_signature" in refusal["rule"]
    assert "--certificate" in refusal["hint"]
    assert "REFUSED, prog_load: -ENOKEY" in cli("load", *MODEL, signed).out


def test_an_unsigned_loader_is_refused_before_the_load(cli: Cli, unsigned: str) -> None:
    for name in (unsigned, OBJECT):
        done = cli("load", *MODEL, name)
        assert done.status == 1
        assert "REFUSED, before the load: nothing in the bundle is signed" in done.out


@pytest.mark.parametrize("scheme", SIGNED_SCHEMES)
def test_an_unsigned_loader_is_never_loaded_under_a_signed_name(cli: Cli, scheme: str) -> None:
    cli("build", OBJECT, "-o", "unsigned")
    for name in ("unsigned", OBJECT):
        done = cli("load", *MODEL, name, "--scheme", scheme, "--json")
        assert done.status == 1
        (result,) = done.document["results"]
        assert result["refusal"]["step"] == "before the load"
        assert result["refusal"]["message"] == f"the variant {scheme} is not signed"
        assert "bpfseal sign" in result["refusal"]["hint"]


def test_what_no_artifact_can_change_is_status_4_on_every_kernel(cli: Cli, keys: Keys) -> None:
    """The rule of the exit status: the kernel that lacks something is the environment."""
    cli("sign", OBJECT, *keys.signing, "-o", "signed")
    load = ("load", "signed", "--certificate", keys.certificate, "--kernel")
    done = cli(*load, "model:6.18-unverified")
    assert (done.status, "cannot verify signatures" in done.out) == (4, True)
    assert cli(*load, "model:6.12").status == 4
    assert cli("load", "signed", "--kernel", "model").status == 1  # no key


def test_only_the_scheme_unsigned_loads_without_a_signature(cli: Cli) -> None:
    for name in ("auto", "unsigned"):
        done = cli("load", *MODEL, OBJECT, "--scheme", name)
        assert done.status == (0 if name == "unsigned" else 1)
    cli("build", OBJECT, "--scheme", "unsigned", "-o", "a")
    assert cli("load", *MODEL, "a").status == 1
    assert cli("load", *MODEL, "a", "--scheme", "unsigned").status == 0
    assert cli("skeleton", "c", "a").status == 2
    assert cli("skeleton", "c", "a", "--scheme", "unsigned").status == 0


def test_changed_metadata_is_not_run_unless_the_kernel_is_to_be_asked(
    cli: Cli, keys: Keys, signed: str
) -> None:
    metadata = read_bundle(Path(signed)).variant("kfunc").loader.metadata
    changed = with_changed(signed, metadata=metadata[:-1] + b"?")
    options = (changed, "--certificate", keys.certificate)
    done = cli("load", *MODEL, *options, "--trace")
    assert done.status == 1
    assert "REFUSED, before the load" in done.out
    assert "prog_load(" not in done.out
    done = cli("load", *MODEL, *options, "--no-metadata-check")
    assert done.status == 1
    assert "REFUSED, prog_run: -EBADMSG" in done.out


def test_a_trace_has_every_call_in_order(cli: Cli, keys: Keys, signed: str) -> None:
    done = cli("load", *MODEL, signed, "--certificate", keys.certificate, "--trace", "--json")
    trace = done.document["results"][0]["trace"]
    assert [call["call"] for call in trace if call["by"] == "user"] == [
        "map_create",
        "map_update",
        "map_freeze",
        "btf_load",
        "prog_load",
        "prog_run",
        *["map_info"] * 4,
        *["prog_info"] * 2,
        "close",
        "close",
        "close",
    ]
    assert "bpf_loader_verify_metadata" in {call["call"] for call in trace}


def test_a_kernel_that_is_not_known_is_a_usage_error(cli: Cli, signed: str) -> None:
    assert cli("load", signed, "--kernel", "model:2.4").status == 2
    assert cli("load", signed, "--kernel", "hurd").status == 2


# export


def test_openssl_verifies_the_exported_signature(cli: Cli, keys: Keys, signed: str) -> None:
    assert cli("export", signed, "--signature", "s", "--signed-payload", "p").status == 0
    arguments = ("-inform", "DER", "-in", "s", "-content", "p", "-certfile", keys.certificate)
    subprocess.run(
        ["openssl", "cms", "-verify", "-binary", *arguments, "-noverify", "-out", "out"],
        check=True,
        capture_output=True,
    )


def test_export_writes_the_parts_as_they_are(cli: Cli, signed: str) -> None:
    done = cli("export", signed, "--insns", "i", "--data", "d", "--btf", "b", "--json")
    assert done.status == 0
    loader = read_bundle(Path(signed)).variant("kfunc").loader
    assert Path("i").read_bytes() == loader.insns
    assert Path("d").read_bytes() == loader.metadata
    assert Path("b").read_bytes() == loader.btf
    assert [result["part"] for result in done.document["results"]] == ["insns", "data", "btf"]


def test_export_of_a_part_that_is_not_there_writes_nothing(cli: Cli, unsigned: str) -> None:
    done = cli("export", unsigned, "--insns", "i", "--signature", "s")
    assert done.status == 2
    assert "0 signatures" in done.err
    assert listing(Path()) == [unsigned]


@pytest.mark.parametrize(
    "options",
    [(), ("--insns", "x", "--data", "x"), ("--insns", "-", "--data", "-")],
    ids=["nothing", "same file", "both to stdout"],
)
def test_export_options_that_make_no_sense_are_usage_errors(
    cli: Cli, unsigned: str, options: tuple[str, ...]
) -> None:
    assert cli("export", unsigned, *options).status == 2
