"""Keys and signatures of scenarios, made from what a scenario says of them.

They are made before it runs: where it runs, there need not be more than the standard library.

Example:
    >>> collection = read_collection(Path("conformance/signatures.json"))
    >>> given = with_signatures(collection).scenarios[0].steps[0]
    >>> given.call, given.arguments["payload"][:4]
    ('add_key', '3082')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from bpfseal.errors import InputError
from bpfseal.kernel.scenario import Collection, Step
from bpfseal.kernel.scenario_run import MALFORMED, MAX_ROOM, bytes_of
from bpfseal.signing import cms, der, oids
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.keygen import KeyPair, generate
from bpfseal.signing.public_key import HASHES
from bpfseal.signing.signer import SIGNING_HASHES, load_signer

FORMS: Final = ("plain", "attributes", "certificates", "issuer", "attached", "pss", "raw")
"""The forms of signatures: as loaders have them; with signed attributes; with the signer's
certificate; naming the signer by issuer and serial; with the content inside; with RSA-PSS; the bare
signature value without a message around it."""

_OPTION = pkcs7.PKCS7Options
_OPTIONS: Final = {
    "attributes": [_OPTION.DetachedSignature, _OPTION.Binary, _OPTION.NoCerts],
    "certificates": [_OPTION.DetachedSignature, _OPTION.Binary, _OPTION.NoAttributes],
    "issuer": [_OPTION.DetachedSignature, _OPTION.Binary, _OPTION.NoAttributes, _OPTION.NoCerts],
    "attached": [_OPTION.Binary, _OPTION.NoAttributes, _OPTION.NoCerts],
    "pss": [_OPTION.DetachedSignature, _OPTION.Binary, _OPTION.NoAttributes, _OPTION.NoCerts],
}


@cache
def key_pair(name: str) -> KeyPair:
    """Return the key of this name, the same one as long as the process lives.

    Args:
        name: a key type of `bpfseal.signing.keygen.KEY_TYPES`, with anything behind a slash:
            ``rsa2048`` and ``rsa2048/other`` are two keys of one type.
    """
    return generate(name.partition("/")[0], f"conformance {name}"[:64])


def with_signatures(collection: Collection) -> Collection:
    """Return the collection with each key and signature as bytes.

    ``add_key`` gets a ``payload`` in place of a key's name, ``prog_load`` the ``hex`` digits of a
    signature in place of what describes it.

    Raises:
        InputError: a signature that cannot be made.
    """
    scenarios = (
        replace(
            scenario, steps=tuple(_with_bytes(step, collection.blobs) for step in scenario.steps)
        )
        for scenario in collection.scenarios
    )
    return replace(collection, scenarios=tuple(scenarios))


def _with_bytes(step: Step, blobs: Mapping[str, bytes]) -> Step:
    try:
        return _with_keys(step, blobs)
    except MALFORMED as error:
        raise InputError(f"{step.call} with {dict(step.arguments)}: {error!r}") from error


def _with_keys(step: Step, blobs: Mapping[str, bytes]) -> Step:
    given = dict(step.arguments)
    if step.call == "add_key" and "key" in given:
        key = given.pop("key")
        given = {"description": key, "payload": key_pair(key).certificate_der.hex(), **given}
    elif "signature" in given:
        given["signature"] = {"hex": _signature(given["signature"], blobs).hex()}
    return replace(step, arguments=given)


def _signature(wanted: Mapping[str, Any], blobs: Mapping[str, bytes]) -> bytes:
    """Return a signature as it is described, with the changes that are made to it afterwards."""
    data: bytes
    if "hex" in wanted:
        data = _repeated(bytes.fromhex(wanted["hex"]), wanted.get("repeat", 1))
    else:
        payload = b"".join(bytes_of(blobs, name) for name in wanted["over"])
        data = _sign(
            wanted["key"], payload, wanted.get("digest", "sha256"), wanted.get("form", "plain")
        )
    if "flip" in wanted:
        changed = bytearray(data)
        changed[wanted["flip"]] ^= 1
        data = bytes(changed)
    end = len(data) - int(wanted.get("cut", 0))
    size = wanted.get("pad_to", 0)
    if size > MAX_ROOM:
        raise ValueError(f"more than {MAX_ROOM} bytes")
    return data[:end].ljust(size, b"\0")


def _repeated(data: bytes, times: int) -> bytes:
    if len(data) * times > MAX_ROOM:
        raise ValueError(f"more than {MAX_ROOM} bytes")
    return data * times


@cache
def _sign(key: str, payload: bytes, digest: str, form: str) -> bytes:
    """Return a signature: many scenarios want the same one.

    Raises:
        InputError: no such form, or a form that this key cannot have.
    """
    made = key_pair(key)
    if form == "plain" and digest in SIGNING_HASHES:
        return cms.build(payload, load_signer(made.private_key_pem, made.certificate_pem), digest)
    private = serialization.load_pem_private_key(made.private_key_pem, None)
    if form not in FORMS or digest not in HASHES or not isinstance(private, rsa.RSAPrivateKey):
        raise InputError(f"no signature of the form {form!r} with {digest} and the key {key}")
    algorithm = HASHES[digest]()
    value = private.sign(payload, padding.PKCS1v15(), algorithm)
    if form == "raw":
        return value
    if form == "plain":
        return _message(value, made.certificate_der, digest)
    if not isinstance(algorithm, (hashes.SHA256, hashes.SHA384, hashes.SHA512)):
        raise InputError(f"no signature of the form {form!r} with the digest {digest}")
    builder = pkcs7.PKCS7SignatureBuilder().set_data(payload)
    certificate = x509.load_der_x509_certificate(made.certificate_der)
    if form == "pss":
        scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
        builder = builder.add_signer(certificate, private, algorithm, rsa_padding=scheme)
    else:
        builder = builder.add_signer(certificate, private, algorithm)
    return builder.sign(serialization.Encoding.DER, _OPTIONS[form])


def _message(value: bytes, certificate: bytes, digest: str) -> bytes:
    """Return a message as loaders have it, with a digest that nobody should sign with.

    `bpfseal.signing.cms` makes none with SHA-1, SHA-224 or SHA-3, which kernels take.
    """
    digest_algorithm = der.sequence(der.oid(oids.DIGESTS[digest]))
    signer_info = der.sequence(
        der.integer(3),
        der.element(0x80, Certificate.from_der(certificate).require_subject_key_id()),
        digest_algorithm,
        der.sequence(der.oid(oids.RSA_ENCRYPTION), der.NULL),
        der.octets(value),
    )
    signed_data = der.sequence(
        der.integer(3),
        der.set_of(digest_algorithm),
        der.sequence(der.oid(oids.DATA)),
        der.set_of(signer_info),
    )
    return der.sequence(der.oid(oids.SIGNED_DATA), der.explicit(0, signed_data))
