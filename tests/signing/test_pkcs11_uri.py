"""The syntax of RFC 7512, as far as it names a private key."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.errors import UsageError
from bpfseal.signing.pkcs11_uri import MAX_SIZE, Pkcs11Uri


def test_every_attribute_is_read() -> None:
    uri = Pkcs11Uri.parse(
        "pkcs11:token=a%20b;manufacturer=m;serial=0123;model=x;object=%c3%a9;type=private;"
        "id=%00%ffA;slot-id=7?module-path=/lib/a.so&module-name=a&pin-value=%31234"
    )
    assert uri == Pkcs11Uri(
        path=uri.path,
        token="a b",  # noqa: S106 - a label
        manufacturer="m",
        serial="0123",
        model="x",
        object="é",
        id=b"\x00\xffA",
        slot_id=7,
        module_path="/lib/a.so",
        module_name="a",
        pin_value="1234",
    )


def test_an_empty_path_fits_every_key() -> None:
    assert Pkcs11Uri.parse("pkcs11:") == Pkcs11Uri(path="pkcs11:")


def test_an_unknown_attribute_of_the_query_is_ignored() -> None:
    assert Pkcs11Uri.parse("pkcs11:object=a?x-vendor=1&x-vendor2=").object == "a"


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("file:/etc/pin", "/etc/pin"),
        ("file:%2Fetc%2Fpin", "/etc/pin"),
        ("file:///etc/pin", "/etc/pin"),
        ("file://localhost/etc/pin", "/etc/pin"),
        ("/etc/pin", "/etc/pin"),
    ],
)
def test_the_source_of_a_pin_is_a_local_file(source: str, path: str) -> None:
    assert Pkcs11Uri.parse(f"pkcs11:?pin-source={source}").pin_source == path


def test_neither_the_pin_nor_the_query_shows() -> None:
    uri = Pkcs11Uri.parse("pkcs11:object=a?pin-value=secret")
    assert "secret" not in repr(uri)
    assert uri.path == "pkcs11:object=a"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pkcs12:object=a", "does not begin"),
        ("pkcs11:object=a;object=b", "object is there twice"),
        ("pkcs11:?pin-value=a&pin-value=b", "pin-value is there twice"),
        ("pkcs11:?x=1&x=2", "x is there twice"),
        ("pkcs11:library-version=3", "library-version is not known"),
        ("pkcs11:x-vendor=1", "x-vendor is not known"),
        ("pkcs11:module-path=a.so", "module-path is not known"),
        ("pkcs11:object", "not of the form"),
        ("pkcs11:object=a;", "not of the form"),
        ("pkcs11:=a", "not of the form"),
        ("pkcs11:object=a b", "percent-encoded"),
        ("pkcs11:object=a/b", "percent-encoded"),
        ("pkcs11:object=a%2", "percent-encoded"),
        ("pkcs11:object=a%zz", "percent-encoded"),
        ("pkcs11:object=%ff", "not UTF-8"),
        ("pkcs11:object=%00", "NUL"),
        ("pkcs11:object=a\n", "no URI has"),
        ("pkcs11:object=é", "no URI has"),
        ("pkcs11:slot-id=x", "not a number"),
        ("pkcs11:slot-id=-1", "not a number"),
        ("pkcs11:type=cert", "not a private key"),
        ("pkcs11:?module-path=lib/a.so", "not an absolute path"),
        ("pkcs11:?module-name=../a", "not a plain name"),
        ("pkcs11:?pin-value=1&pin-source=/a", "both pin-source and pin-value"),
        ("pkcs11:?pin-source=|rm", "names a program"),
        ("pkcs11:?pin-source=https://host/pin", "not a local file"),
        ("pkcs11:?pin-source=file://host/pin", "not a local file"),
        ("pkcs11:?pin-source=file:pin", "not an absolute path"),
        ("pkcs11:object=" + "a" * MAX_SIZE, "longer than"),
    ],
)
def test_what_does_not_follow_the_rules_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=r"PKCS #11 URI") as caught:
        Pkcs11Uri.parse(text)
    assert reason in caught.value.message


def test_a_refusal_does_not_repeat_a_pin() -> None:
    with pytest.raises(UsageError) as caught:
        Pkcs11Uri.parse("pkcs11:object=a b?pin-value=secret")
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60), st.text("pkcs11:objectidn=;?&%0/|-", max_size=60))
def test_any_text_is_parsed_or_refused(text: str, likely: str) -> None:
    for each in (text, f"pkcs11:{text}", f"pkcs11:{likely}", f"pkcs11:?pin-source={likely}"):
        with contextlib.suppress(UsageError):
            Pkcs11Uri.parse(each)
