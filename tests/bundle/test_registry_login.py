"""Logging in to a registry, and where passwords never go."""

from __future__ import annotations

import base64
import datetime
import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("oras", reason="the extra bpfseal[oci] is not installed")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from bpfseal.bundle import transport
from bpfseal.bundle.deadline import Deadline
from bpfseal.bundle.layout import encode
from bpfseal.bundle.reference import Access, Reference, parse_reference
from bpfseal.bundle.registry import pull, push
from bpfseal.errors import CapabilityError, InputError, UsageError
from support.registry import Registry, proxied, replacing, running

from .support import BUNDLE

FILES = encode(BUNDLE)
USER, PASSWORD = "me", "open sesame"
HTPASSWD = f"{USER}:$2b$04$GQWQId4CZFI5Bb/v9.4W2.svYfdpFeJ52KBuV9WIjDFSVT8YLmi/q\n"
"""The password in the one form that the registry takes (bcrypt)."""

BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
ANONYMOUS = Access(plain_http=True, timeout=5)
KNOWN = Access(plain_http=True, timeout=5, username=USER, password=PASSWORD)
WRONG = Access(plain_http=True, timeout=5, username=USER, password="shut")  # noqa: S106


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(transport, "PAUSE", 0.0)
    return tmp_path


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("basic")
    (folder / "htpasswd").write_text(HTPASSWD)
    login = {"htpasswd": {"realm": "basic-realm", "path": str(folder / "htpasswd")}}
    with running(folder, auth=login) as started:
        yield started


def tool(host: str) -> Reference:
    return parse_reference(f"{host}/tool:1")


def docker_config(home: Path, document: object) -> None:
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps(document))


# Basic


def test_a_password_opens_the_registry(registry: Registry) -> None:
    push(FILES, tool(registry.host), KNOWN)
    assert pull(tool(registry.host), KNOWN) == FILES


def test_dockers_configuration_opens_the_registry(registry: Registry, home: Path) -> None:
    docker_config(home, {"auths": {registry.host: {"auth": BASIC}}})
    push(FILES, tool(registry.host), ANONYMOUS)
    assert pull(tool(registry.host), ANONYMOUS) == FILES


@pytest.mark.parametrize("access", [ANONYMOUS, WRONG], ids=["anonymous", "wrong password"])
def test_nothing_else_opens_the_registry(registry: Registry, access: Access) -> None:
    for work in (
        lambda: push(FILES, tool(registry.host), access),
        lambda: pull(tool(registry.host), access),
    ):
        with pytest.raises(CapabilityError, match="--username") as caught:
            work()
        assert "sesame" not in str(caught.value)


def test_netrc_takes_no_part(registry: Registry, home: Path) -> None:
    (home / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    with pytest.raises(CapabilityError, match="--username"):
        pull(tool(registry.host), ANONYMOUS)


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": [1]}'])
def test_a_configuration_that_is_broken_is_bad_input(
    registry: Registry, home: Path, text: str
) -> None:
    docker_config(home, None)
    (home / ".docker" / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"\.docker/config\.json: cannot be read"):
        pull(tool(registry.host), ANONYMOUS)


def test_a_password_is_not_printed_with_its_owner() -> None:
    assert "sesame" not in repr(KNOWN)


# Where passwords do not go


def test_a_password_never_goes_over_a_network_in_clear() -> None:
    with pytest.raises(UsageError, match="a password over plain http"):
        pull(tool("registry.example.org"), KNOWN)


def test_a_redirect_loses_the_password(registry: Registry) -> None:
    push(FILES, tool(registry.host), KNOWN)
    with proxied(registry) as other:
        elsewhere = other.host.replace("127.0.0.1", "localhost").encode()
        redirect = b"HTTP/1.1 307 Elsewhere\r\nLocation: http://" + elsewhere + b"/v2/\r\n"
        with (
            proxied(registry, to_client=replacing(b"HTTP/1.1 200 OK\r\n", redirect)) as proxy,
            pytest.raises(CapabilityError),
        ):
            pull(tool(proxy.host), KNOWN)
        assert BASIC.encode() in proxy.seen
        assert b"GET /v2/" in other.seen
        assert b"Authorization" not in other.seen


def test_redirects_end(registry: Registry) -> None:
    with proxied(registry) as proxy:
        circle = b"HTTP/1.1 307 Here\r\nLocation: http://" + proxy.host.encode() + b"/v2/\r\n"
        proxy.to_client = replacing(b"HTTP/1.1 401 Unauthorized\r\n", circle)
        with pytest.raises(CapabilityError, match="Exceeded 4 redirects"):
            pull(tool(proxy.host), KNOWN)


def test_an_upload_goes_to_no_other_host(registry: Registry) -> None:
    with proxied(registry) as other, proxied(registry) as proxy:
        there, elsewhere = (
            proxy.host.encode(),
            other.host.replace("127.0.0.1", "localhost").encode(),
        )
        proxy.to_client = replacing(b"Location: http://" + there, b"Location: http://" + elsewhere)
        with pytest.raises(CapabilityError, match="wants the upload to go to another host"):
            push(encode_other(), tool(proxy.host), KNOWN)
        assert not other.seen


def encode_other() -> dict[str, bytes]:
    """Return a bundle that the registry does not have yet."""
    (variant,) = BUNDLE.variants
    loader = replace(variant.loader, metadata=b"of another loader")
    return encode(replace(BUNDLE, variants=(replace(variant, loader=loader),)))


# Tokens


class TokenService:
    """Gives tokens to who has the password, as the distribution project specifies them."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.bundle = folder / "tokens.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.scopes: list[str] = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                scope = parse_qs(urlsplit(self.path).query).get("scope", [""])[0]
                service.scopes.append(scope)
                known = self.headers.get("Authorization") == f"Basic {BASIC}"
                body = json.dumps({"token": service.token(scope)} if known else {}).encode()
                self.send_response(200 if known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def token(self, scope: str) -> str:
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        access = []
        if scope:
            kind, name, actions = scope.split(":")
            access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        claims = {
            "iss": "tokens",
            "sub": USER,
            "aud": "registry",
            "exp": now + 60,
            "nbf": now - 60,
            "iat": now,
            "jti": "1",
            "access": access,
        }
        signed = ".".join(urlsafe(json.dumps(part).encode()) for part in (header, claims))
        signature = self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = utils.decode_dss_signature(signature)
        return f"{signed}.{urlsafe(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def settings(self, host: str) -> dict[str, object]:
        return {
            "token": {
                "realm": f"http://{host}:{self.port}/token",
                "service": "registry",
                "issuer": "tokens",
                "rootcertbundle": str(self.bundle),
            }
        }


def urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenService]:
    with TokenService(tmp_path_factory.mktemp("tokens")) as service:
        yield service


def test_a_token_for_each_thing_is_asked_for(tokens: TokenService, tmp_path: Path) -> None:
    with running(tmp_path / "registry", auth=tokens.settings("127.0.0.1")) as registry:
        push(FILES, tool(registry.host), KNOWN)
        assert pull(tool(registry.host), KNOWN) == FILES
        assert "repository:tool:pull" in tokens.scopes
        assert {"repository:tool:pull,push", "repository:tool:push,pull"} & set(tokens.scopes)
        for access in (ANONYMOUS, WRONG):
            with pytest.raises(CapabilityError, match=r"refuses access \(log in"):
                pull(tool(registry.host), access)


def test_a_token_service_elsewhere_gets_the_password_only_if_it_was_named(
    tokens: TokenService, tmp_path: Path
) -> None:
    named = replace(KNOWN, token_host="localhost")  # noqa: S106
    with running(tmp_path / "registry", auth=tokens.settings("localhost")) as registry:
        with pytest.raises(CapabilityError, match=r"credentials sent to localhost \(--token-host"):
            push(FILES, tool(registry.host), KNOWN)
        push(FILES, tool(registry.host), named)
        assert pull(tool(registry.host), named) == FILES


@pytest.mark.parametrize(
    ("registry_host", "service", "expected"),
    [
        ("registry.example.org", "example.org", True),
        ("example.org", "auth.example.org", True),
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry.example.org", "auth.example.org", False),
        ("registry.corp.co.uk", "evil.co.uk", False),
        ("mine.azurecr.io", "evil.azurecr.io", False),
        ("registry.example.org:5000", "registry.example.org", True),
        ("registry.example.org", "example.org.evil.org", False),
        ("registry.example.org", "evil.org", False),
        ("10.0.0.1", "99.9.0.1", False),
        ("localhost", "evil.localhost", False),
    ],
)
def test_a_token_service_above_or_below_is_the_registrys_own_and_no_sibling(
    registry_host: str, service: str, *, expected: bool
) -> None:
    with Deadline(5) as deadline:
        adapter = transport._Adapter(tool(registry_host), Access(), deadline)
    assert adapter._is_token_host(service) is expected
