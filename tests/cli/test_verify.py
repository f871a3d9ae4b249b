"""``bpfseal verify``: what it prints, for people and as JSON, and its exit status."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.bundle.store import read_bundle, write_bundle
from bpfseal.release import RELEASES
from bpfseal.signing import cms
from bpfseal.signing.signer import load_signer

from .support import OBJECT, Cli, Keys, make_keys


@pytest.fixture
def signed(cli: Cli, keys: Keys) -> str:
    """A bundle with the variants of all schemes."""
    assert cli("sign", OBJECT, *keys.signing, "-o", "all.bpfseal").status == 0
    return "all.bpfseal"


@pytest.fixture
def trap(signed: str, keys: Keys) -> str:
    """A loadtime loader whose signature covers the instructions alone; no tool of ours makes it."""
    loader = read_bundle(Path(signed)).variant("loadtime").loader
    signer = load_signer(keys.private_key.read_bytes(), keys.certificate.read_bytes())
    signature = Signature(cms.build(loader.insns, signer), signer.certificate.der)
    write_bundle(Bundle(loader.name, (SignedLoader(loader, (signature,)),)), "trap.bpfseal")
    return "trap.bpfseal"


def test_each_variant_has_a_verdict_that_names_the_signer(
    cli: Cli, keys: Keys, signed: str
) -> None:
    done = cli("verify", signed, "--certificate", keys.certificate)
    assert done.status == 0
    assert done.out.splitlines() == [
        f"all.bpfseal: {scheme}: verified, signed by CN=bpfseal signing key"
        for scheme in ("kfunc", "inline-original", "inline", "loadtime")
    ]


def test_details_are_what_is_covered_who_signed_and_each_kernel(
    cli: Cli, keys: Keys, signed: str
) -> None:
    loader = read_bundle(Path(signed)).variant("loadtime").loader
    done = cli("verify", signed, "-v", "--scheme", "loadtime", "--certificate", keys.certificate)
    sizes = f"insns ({len(loader.insns)} bytes), metadata ({len(loader.metadata)} bytes)"
    assert f"the signature covers {sizes}" in done.out
    assert "CN=bpfseal signing key: p256, sha256, found by key id" in done.out
    assert "6.18             no                          -EKEYREJECTED: " in done.out
    assert "7.3              yes    kernel" in done.out


def test_the_document_has_all_of_it(cli: Cli, keys: Keys, signed: str) -> None:
    options = ("--scheme", "kfunc", "--certificate", keys.certificate, "--json")
    (result,) = cli("verify", signed, *options).document["results"]
    loader = read_bundle(Path(signed)).variant("kfunc").loader
    assert result["verified"] is True
    assert result["covers"] == {"insns": len(loader.insns), "btf": 141}
    (signer,) = result["signers"]
    assert (signer["found_by"], signer["digest"]) == ("key id", "sha256")
    assert [kernel["kernel"] for kernel in result["kernels"]] == list(RELEASES)
    assert result["kernels"][0] == {
        "kernel": "kfunc",
        "loads": "yes",
        "metadata_checked_by": "kfunc",
        "errno": None,
        "reason": "",
    }
    assert result["kernels"][1]["errno"] == "EKEYREJECTED"


def test_a_downgrade_trap_is_refused_and_its_kernels_are_shown_without_being_asked(
    cli: Cli, keys: Keys, trap: str
) -> None:
    done = cli("verify", trap, "--certificate", keys.certificate)
    assert done.status == 1
    verdict, *table = done.out.splitlines()
    assert verdict.startswith(
        "trap.bpfseal: loadtime: NOT VERIFIED: downgrade trap: CN=bpfseal signing key signed the "
        "instructions alone: nobody checks the metadata on kfunc, 6.18, 6.19, 7.0, 7.1, 7.2"
    )
    assert [line.split()[:3] for line in table if "nobody" in line] == [
        [name, "yes", "nobody"] for name in ("kfunc", "6.18", "6.19", "7.0", "7.1", "7.2")
    ]


def test_a_downgrade_trap_is_an_error_of_its_own_kind_in_the_document(
    cli: Cli, keys: Keys, trap: str
) -> None:
    document = cli("verify", trap, "--certificate", keys.certificate, "--json").document
    (result,) = document["results"]
    assert result["verified"] is False
    assert result["error"]["kind"] == "DowngradeTrapError"
    assert result["covers"] == ["insns"]
    unchecked = [each for each in result["kernels"] if each["metadata_checked_by"] == "nobody"]
    assert len(unchecked) == 6


def test_a_bundle_with_a_trap_is_refused_whatever_else_it_holds(
    cli: Cli, keys: Keys, signed: str, trap: str
) -> None:
    good = read_bundle(Path(signed))
    bad = read_bundle(Path(trap)).variants
    rest = tuple(each for each in good.variants if each.loader.scheme_name != "loadtime")
    write_bundle(replace(good, variants=(*rest, *bad)), "both.bpfseal")
    assert cli("verify", "both.bpfseal", "--certificate", keys.certificate).status == 1


def test_sign_does_not_add_to_a_trap(cli: Cli, other_keys: Keys, trap: str) -> None:
    done = cli("sign", trap, *other_keys.signing, "-o", "signed.bpfseal")
    assert done.status == 1
    assert "downgrade trap" in done.err
    assert not Path("signed.bpfseal").exists()


@pytest.mark.parametrize(("kernel", "scheme"), [("6.19", "inline-original"), ("7.3", "loadtime")])
def test_a_kernel_that_is_named_has_to_load_some_variant(
    cli: Cli, keys: Keys, signed: str, kernel: str, scheme: str
) -> None:
    options = ("--certificate", keys.certificate, "--kernel", kernel)
    assert cli("verify", signed, *options).status == 0
    assert cli("verify", signed, "--scheme", scheme, *options).status == 0
    done = cli("verify", signed, "--scheme", "kfunc", *options)
    assert done.status == 1
    assert done.out.splitlines()[-1] == (
        f"all.bpfseal: NOT VERIFIED: no variant of it loads on {kernel}"
    )


@pytest.fixture
def partly(cli: Cli, keys: Keys) -> str:
    """A bundle with the variants of all schemes, of which one is signed."""
    assert cli("build", OBJECT, "-o", "bare.bpfseal").status == 0
    options = ("--scheme", "loadtime", "-o", "partly.bpfseal")
    assert cli("sign", "bare.bpfseal", *keys.signing, *options).status == 0
    return "partly.bpfseal"


def test_a_variant_that_is_not_signed_does_not_matter_for_a_kernel_that_is_named(
    cli: Cli, keys: Keys, partly: str
) -> None:
    verify = ("verify", partly, "--certificate", keys.certificate)
    assert cli(*verify).status == 1
    done = cli(*verify, "--kernel", "7.3", "--strict")
    assert done.status == 0
    assert done.out.splitlines() == [
        *(
            f"partly.bpfseal: {scheme}: not signed, so it is not asked about"
            for scheme in ("kfunc", "inline-original", "inline")
        ),
        "partly.bpfseal: loadtime: verified, signed by CN=bpfseal signing key",
    ]
    results = cli(*verify, "--kernel", "7.3", "--json").document["results"]
    assert [each["verified"] for each in results] == [False, False, False, True]
    assert results[0]["error"]["message"] == "not signed"


def test_what_nobody_signed_loads_on_no_kernel_that_is_named(
    cli: Cli, keys: Keys, partly: str
) -> None:
    for options in (("--kernel", "6.18"), ("--kernel", "7.3", "--scheme", "kfunc")):
        done = cli("verify", partly, "--certificate", keys.certificate, *options)
        assert done.status == 1
        assert f"NOT VERIFIED: no variant of it loads on {options[1]}" in done.out


def test_a_trap_beside_variants_that_are_not_signed_fails_for_every_kernel_that_it_opens(
    cli: Cli, keys: Keys, trap: str, partly: str
) -> None:
    bare = read_bundle(Path(partly)).variant("kfunc")
    bundle = read_bundle(Path(trap))
    write_bundle(replace(bundle, variants=(bare, *bundle.variants)), "both.bpfseal")
    done = cli("verify", "both.bpfseal", "--certificate", keys.certificate, "--kernel", "7.2")
    assert done.status == 1
    assert "nobody" in done.out


def test_a_bundle_that_is_partly_signed_loads_where_the_kernel_takes_the_signed_variant(
    cli: Cli, keys: Keys, partly: str
) -> None:
    load = ("load", partly, "--certificate", keys.certificate, "--kernel")
    assert cli(*load, "model:7.3").status == 0
    done = cli(*load, "model:kfunc")
    assert done.status == 1
    assert "the variant kfunc, which this kernel takes, is not signed" in done.out


def test_a_kernel_that_is_named_decides_which_digests_there_are(cli: Cli, signed: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command line is missing")
    variant = read_bundle(Path(signed)).variant("inline-original")
    Path("payload").write_bytes(variant.loader.insns)
    openssl = "openssl cms -sign -binary -noattr -nocerts -keyid -md sha3-256 -outform DER"
    options = "-in payload -out cms -inkey rsa/key.pem -signer rsa/cert.pem"
    make_keys(Path("rsa"), "--type", "rsa2048")  # openssl 3.0 has no ECDSA with SHA-3 for CMS
    subprocess.run([*openssl.split(), *options.split()], check=True)
    sha3 = replace(variant, signatures=(Signature(Path("cms").read_bytes(), b""),))
    write_bundle(Bundle(variant.loader.name, (sha3,)), "sha3.bpfseal")
    verify = ("verify", "sha3.bpfseal", "--certificate", "rsa/cert.pem")
    assert "-ENOPKG" in cli(*verify).out
    assert "only 6.18, 6.19, 7.0 have sha3-256" in cli(*verify).out
    assert cli(*verify, "--kernel", "6.19").status == 0
    done = cli(*verify, "--kernel", "7.0", "--kernel", "7.1")
    assert done.status == 1
    assert "no variant of it loads on 7.1" in done.out


def test_problems_of_a_certificate_are_warnings_and_failures_if_strict(
    cli: Cli, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command line is missing")
    subject = ("-subj", "/CN=plain", "-days", "1")
    files = ("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", *subject, *files],
        check=True,
        capture_output=True,
    )
    keys = Keys(tmp_path)
    cli("sign", OBJECT, *keys.signing, "--scheme", "kfunc", "-o", "plain")
    done = cli("verify", "plain", "--certificate", keys.certificate)
    assert done.status == 0
    assert "plain: kfunc: warning: certificate CN=plain: no keyUsage" in done.err
    done = cli("verify", "plain", "--certificate", keys.certificate, "--strict")
    assert done.status == 1
    assert "NOT VERIFIED: --strict: certificate CN=plain: no keyUsage" in done.out


def test_strict_has_nothing_against_a_good_bundle(cli: Cli, keys: Keys, signed: str) -> None:
    strict = ("--certificate", keys.certificate, "--strict")
    for scheme in ("kfunc", "inline", "loadtime"):
        assert cli("verify", signed, "--scheme", scheme, *strict).status == 0
    done = cli("verify", signed, "--scheme", "inline-original", *strict)
    assert done.status == 1
    assert "whether the map is exclusive" in done.out


def test_trust_comes_from_several_directories_and_dumps_of_keyrings(
    cli: Cli, keys: Keys, other_keys: Keys, signed: str
) -> None:
    for name, data in (
        ("one", (other_keys.folder / "cert.der").read_bytes()),
        ("two", (other_keys.folder / "cert.der").read_bytes() + b"\x30\x03\x02\x01\x01"),
    ):
        Path(name).mkdir()
        Path(name, "dump.x509").write_bytes(data)
    assert cli("verify", signed, "--trust", "one", "--trust", "two").status == 1
    with Path("two/dump.x509").open("ab") as dump:
        dump.write((keys.folder / "cert.der").read_bytes())
    done = cli("verify", signed, "--trust", "one", "--trust", "two")
    assert done.status == 0
    assert "warning: two/dump.x509: the certificate at byte" in done.err


def test_a_directory_of_certificates_may_hold_a_key_and_junk_which_are_named(
    cli: Cli, keys: Keys, other_keys: Keys, signed: str
) -> None:
    Path("trust").mkdir()
    Path("trust/key.pem").write_bytes(other_keys.private_key.read_bytes())
    Path("trust/junk.der").write_bytes(b"junk")
    done = cli("verify", signed, "--trust", "trust")
    assert (done.status, done.out) == (3, "")
    assert "trust: holds no certificate" in done.err
    Path("trust/cert.pem").write_bytes(keys.certificate.read_bytes())
    done = cli("verify", signed, "--trust", "trust")
    assert done.status == 0
    assert "trust/key.pem is passed over: no certificate in the PEM file" in done.err
    assert "trust/junk.der is passed over: no X.509 certificates" in done.err
    assert cli("verify", signed, "--trust", str(keys.folder)).status == 0
    assert cli("verify", signed, "--certificate", "trust/key.pem").status == 3


@pytest.mark.parametrize(
    ("scheme", "names"),
    [
        ("loadtime", ()),  # 7.1 has no SHA-512, and never loads it
        ("kfunc", ("does not always load on kfunc: -ENOPKG",)),
        (
            "inline-original",
            ("does not always load on kfunc, 7.2: -ENOPKG", "does not load on 7.1: -ENOPKG"),
        ),
    ],
)
def test_a_warning_about_a_digest_is_about_kernels_that_would_load_the_variant(
    cli: Cli, keys: Keys, scheme: str, names: tuple[str, ...]
) -> None:
    cli("sign", OBJECT, *keys.signing, "--scheme", scheme, "--hash", "sha512", "-o", "a")
    verify = ("verify", "a", "--certificate", keys.certificate)
    done = cli(*verify)
    told = [line for line in done.err.splitlines() if "load on" in line]
    assert len(told) == len(names)
    assert all(name in line for name, line in zip(names, told, strict=True))
    if scheme == "loadtime":
        assert cli(*verify, "--strict").status == 0


def test_a_damaged_certificate_is_not_trusted(cli: Cli, keys: Keys, signed: str) -> None:
    damaged = bytearray((keys.folder / "cert.der").read_bytes())
    damaged[-1] ^= 1
    Path("damaged.der").write_bytes(damaged)
    done = cli("verify", signed, "--certificate", "damaged.der")
    assert done.status == 3
    assert "its own signature does not match" in done.err


def test_a_pipe_in_a_directory_of_certificates_is_refused_without_waiting(
    cli: Cli, keys: Keys, signed: str, tmp_path: Path
) -> None:
    trust = tmp_path / "trust"
    trust.mkdir()
    (trust / "good.pem").write_bytes(Path(keys.certificate).read_bytes())
    os.mkfifo(trust / "bad.pem")
    done = cli("verify", signed, "--trust", str(trust))
    assert (done.status, done.err.strip()) == (
        3,
        f"bpfseal: verify: {trust}/bad.pem: not a regular file",
    )


def test_links_in_a_directory_of_certificates_are_followed(
    cli: Cli, keys: Keys, signed: str, tmp_path: Path
) -> None:
    trust = tmp_path / "trust"
    trust.mkdir()
    (trust / "link.pem").symlink_to(keys.certificate)
    assert cli("verify", signed, "--trust", str(trust)).status == 0
