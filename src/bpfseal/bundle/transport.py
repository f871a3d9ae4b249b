"""Requests to an OCI registry, through ``oras``, with every answer within limits.

``oras`` knows the log-in of registries (basic, bearer tokens, Docker's configuration and credential
helpers). What it leaves open is closed here: the time (`bpfseal.bundle.deadline`), the size of
every body, where a request may go, where credentials may go, and how often something is tried
again.

Where requests and credentials may go:

- Over http only if that was asked for, and credentials over http only to this machine.
- Credentials only to the registry, and to the token service that it names: on the same host, on one
  above or below it, or on a host that the caller has named. Redirects lose them (``requests``).
- Redirects are followed for reading alone, as registries send readers to where the blobs lie; what
  comes back is checked against its digest. An upload goes to the registry itself.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import inspect
import io
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import oras.container  # type: ignore[import-untyped]
import oras.provider  # type: ignore[import-untyped]
import requests
import urllib3
from oras.auth.utils import parse_auth_header  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter

from bpfseal.bundle.answers import Answer, RefusedError
from bpfseal.bundle.deadline import Deadline, OverError
from bpfseal.bundle.model import TOOL
from bpfseal.bundle.reference import Access, Reference, host_name, is_loopback
from bpfseal.errors import CapabilityError, InputError, UsageError

ATTEMPTS: Final = 3
"""How often something is tried that a connection or a busy registry prevented."""

PAUSE: Final = 0.3
"""Seconds before the second attempt; three times as many before each further one."""

MAX_ANSWER: Final = 1 << 20
"""The largest body of an answer that is no blob, in bytes."""

_TOKEN_HOSTS: Final = dict.fromkeys(
    ("docker.io", "index.docker.io", "registry-1.docker.io"), ("auth.docker.io",)
)
"""Token services that are known to belong to a registry and lie beside it."""

_MAX_REDIRECTS = 4
_CHUNK = 1 << 16

_T = TypeVar("_T")

_FAILURES = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    OverflowError,  # a chunk of more bytes than there are numbers for
    # What oras raises for answers that it does not expect.
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
)
_BEFORE_REASON = re.compile(r">: |\[Errno -?[0-9]+\] ")
_LOG_IN = "log in with --username and --password-file"
_BUSY = (429, 500, 502, 503, 504)

# Without a handler the messages of oras would go to stderr, unasked and over several lines.
logging.getLogger("oras.logger").addHandler(logging.NullHandler())


class _Adapter(HTTPAdapter):
    """Sends one request and takes its answer, redirects one by one, within the limits."""

    def __init__(self, reference: Reference, access: Access, deadline: Deadline) -> None:
        super().__init__()
        self._host = reference.host
        self._access = access
        self._deadline = deadline
        self.max_body = MAX_ANSWER
        deadline.watch_pools(self.poolmanager, Answer)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the manager of the connections to a proxy."""
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **options)
        if is_new and not proxy.lower().startswith("socks"):
            self._deadline.watch_pools(manager, Answer)
        return manager

    def send(  # type: ignore[override] # options by name only
        self, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        """Send a request; the answer has its whole body then."""
        self._check_target(request)
        try:
            timeout = self._deadline.patience()
            response = super().send(request, **(options | {"stream": True, "timeout": timeout}))
            raw = response.raw
            try:
                response.raw = io.BytesIO(self._body(raw))
            except BaseException:
                raw.close()  # nobody may read the rest as the next answer
                raise
            raw.release_conn()
        except _FAILURES:
            self._deadline.left()  # if it was cut off, that is what to say
            raise
        finally:
            self._deadline.forget_closed()
        self._deadline.left()  # else what came may be what was there when it was cut off
        return response

    def _check_target(self, request: requests.PreparedRequest) -> None:
        target = urlsplit(request.url or "")
        name = (target.hostname or "").lower()
        if target.scheme != "https" and not self._access.plain_http:
            raise RefusedError(f"is sent on to {target.scheme}://{name}, which is not encrypted")
        if request.method not in ("GET", "HEAD") and target.netloc != self._host:
            raise RefusedError(f"wants the upload to go to another host, {name}")
        authorization = request.headers.get("Authorization", "")
        if not authorization:
            return
        if target.scheme != "https" and not is_loopback(name):
            raise RefusedError(f"wants credentials sent to http://{name}, not encrypted")
        if target.netloc != self._host and not self._is_token_host(name):
            raise RefusedError(f"wants the credentials sent to {name} (--token-host allows it)")

    def _is_token_host(self, name: str) -> bool:
        """Tell whether a host belongs to whom the registry belongs to.

        That are the registry, hosts below and above it, and those of `_TOKEN_HOSTS`. A sibling may
        be anybody's: ``mine.azurecr.io`` and ``yours.azurecr.io``, ``a.co.uk`` and ``b.co.uk``.
        """
        own = host_name(self._host)
        named = (own, self._access.token_host.lower(), *_TOKEN_HOSTS.get(own, ()))
        is_related = own.endswith(f".{name}") or name.endswith(f".{own}")
        are_domains = "." in own and "." in name and not own[-1].isdigit()
        return name in named or (is_related and are_domains)

    def _body(self, raw: urllib3.HTTPResponse) -> bytes:
        if raw.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise RefusedError("answers compressed, unasked")
        body = bytearray()
        while chunk := raw.read1(_CHUNK, decode_content=False):
            body += chunk
            if len(body) > self.max_body:
                raise RefusedError(f"answers with more than {self.max_body} bytes")
        return bytes(body)


class _Session(requests.Session):
    """Follows redirects for reading alone, and takes credentials from nowhere but oras."""

    def __init__(self, adapter: _Adapter, *, environment: bool) -> None:
        super().__init__()
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        self.max_redirects = _MAX_REDIRECTS
        self.headers.update({"Accept-Encoding": "identity", "User-Agent": TOOL.replace(" ", "/")})
        self.trust_env = environment  # proxies and REQUESTS_CA_BUNDLE
        self.auth = _no_netrc

    def get_redirect_target(self, response: requests.Response) -> str | None:
        """Return where to read instead, if anywhere."""
        if response.request.method not in ("GET", "HEAD"):
            return None
        return super().get_redirect_target(response)


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class Connection:
    """A registry, ready to read from or write to one repository of it.

    Attributes:
        url: the repository, with ``/`` at its end.
    """

    def __init__(self, reference: Reference, access: Access) -> None:
        """Connect and find out how to log in.

        Raises:
            InputError: Docker's configuration cannot be read.
            UsageError: a password would go over the network in clear.
            CapabilityError: the registry cannot be reached, or is none.
        """
        if access.username and access.plain_http and not reference.is_loopback:
            raise UsageError(
                "a password over plain http", where=reference.host, hint="without --plain-http"
            )
        self._reference = reference
        self._deadline = Deadline(access.timeout)
        self._adapter = _Adapter(reference, access, self._deadline)
        scheme = "http" if access.plain_http else "https"
        self._root = f"{scheme}://{reference.host}/v2/"
        self.url = f"{self._root}{reference.name}/"
        session = _Session(
            self._adapter, environment=not (access.plain_http and reference.is_loopback)
        )
        self._headers: dict[str, str] = {}
        try:
            self._provider = self._connect(session, access)
        except BaseException:
            session.close()
            self._deadline.close()
            raise

    def _connect(self, session: _Session, access: Access) -> Any:
        """Return the oras provider with the kind of log-in that the registry asks for."""
        answer = self._trying(lambda: session.get(self._root))
        if answer.status_code not in (200, 401):
            raise self._failure(answer, "no registry there?")
        challenge = answer.headers.get("WWW-Authenticate", "")
        basic = challenge.lower().startswith("basic")
        provider = oras.provider.Registry(
            self._reference.host,
            insecure=access.plain_http,
            auth_backend="basic" if basic else "token",
        )
        provider.session.close()
        provider.session = provider.auth.session = session
        if access.username:
            provider.auth.set_basic_auth(access.username, access.password)
        elif not access.plain_http or self._reference.is_loopback:
            self._load_docker_config(provider)
        if basic:
            # oras would ask without it first each time, and fail if it has nothing to send then.
            if not getattr(provider.auth, "_basic_auth", None):
                raise self._failure(answer, "")
            self._headers = provider.auth.get_auth_header()
        elif challenge and not parse_auth_header(challenge).realm:
            raise CapabilityError(
                "the registry asks for a log-in of an unknown kind", where=self._reference.host
            )
        return provider

    def _load_docker_config(self, provider: Any) -> None:
        host, name = self._reference.host, self._reference.name
        try:
            provider.auth.load_configs(oras.container.Container(f"{host}/{name}"))
        except _FAILURES as error:
            raise InputError(
                f"cannot be read: {_one_line(error)}", where="~/.docker/config.json"
            ) from None

    def close(self) -> None:
        """End the connection."""
        self._provider.session.close()
        self._deadline.close()

    def exists(self, path: str) -> bool:
        """Whether the repository says that it has something (HEAD)."""
        return self._request("HEAD", path).status_code == 200

    def get(self, path: str, *, limit: int, accept: str = "*/*") -> requests.Response:
        """Read something of the repository.

        Args:
            path: relative to the repository, for example ``blobs/sha256:...``.
            limit: the most bytes to take.
            accept: the media type.

        Raises:
            InputError: it is not there, or is larger.
            CapabilityError: it cannot be had.
        """
        self._adapter.max_body = max(limit, MAX_ANSWER)
        try:
            answer = self._request("GET", path, headers={"Accept": accept})
        finally:
            self._adapter.max_body = MAX_ANSWER
        if answer.status_code == 404:
            raise InputError("not found in the registry", where=f"{self._reference}")
        if answer.status_code != 200:
            raise self._failure(answer, path)
        if len(answer.content) > limit:
            raise InputError(f"larger than {limit} bytes", where=f"{self._reference}: {path}")
        return answer

    def put(self, path: str, data: bytes, media_type: str) -> requests.Response:
        """Write a manifest.

        Raises:
            CapabilityError: the registry does not take it.
        """
        answer = self._request("PUT", path, data=data, headers={"Content-Type": media_type})
        if answer.status_code not in (200, 201, 202):
            raise self._failure(answer, path)
        return answer

    def upload(self, digest: str, data: bytes) -> None:
        """Write a blob, which the registry compares with its digest.

        Raises:
            CapabilityError: the registry does not take it.
        """
        answer = self._trying(lambda: self._upload(digest, data))
        if answer.status_code not in (201, 202, 204):
            raise self._failure(answer, f"blob {digest}")

    def _upload(self, digest: str, data: bytes) -> requests.Response:
        """Upload in one piece (OCI distribution specification, "POST then PUT")."""
        begun = self._send("POST", "blobs/uploads/", {}, b"")
        location = begun.headers.get("Location", "")
        if begun.status_code in _BUSY:
            return begun
        if begun.status_code != 202 or not location:
            raise self._failure(begun, "uploads")
        location = urljoin(self.url, location)
        joint = "&" if urlsplit(location).query else "?"
        kind = {"Content-Type": "application/octet-stream"}
        return self._send("PUT", f"{location}{joint}digest={digest}", kind, data)

    def _request(
        self, method: str, path: str, *, data: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> requests.Response:
        return self._trying(lambda: self._send(method, path, headers, data))

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], data: bytes | None
    ) -> requests.Response:
        """Make one request through oras, which logs in if it is asked to."""
        provider = self._provider
        request = inspect.unwrap(type(provider).do_request)  # without its waits of two minutes
        url = urljoin(self.url, path)
        for last in (False, True):
            answer: requests.Response = request(
                provider, url, method, data=data, headers={**headers, **self._headers}
            )
            if answer.status_code != 401 or last or not getattr(provider.auth, "token", None):
                break
            # A token for reading does not do for writing; oras would show the old one for ever.
            provider.auth.token = None
        return answer

    def _trying(self, work: Callable[[], requests.Response]) -> requests.Response:
        """Do something until it works, `ATTEMPTS` times at most."""
        for attempt in range(1, ATTEMPTS):
            with contextlib.suppress(*_FAILURES):
                answer = self._once(work)
                if answer.status_code not in _BUSY:
                    return answer
            self._once(functools.partial(self._deadline.pause, PAUSE * 3 ** (attempt - 1)))
        try:
            return self._once(work)
        except _FAILURES as error:
            raise self._broken(error) from None

    def _once(self, work: Callable[[], _T]) -> _T:
        """Do something, and say in our words what trying again would not change."""
        try:
            return work()
        except RefusedError as error:
            message = f"the registry {error}"
            raise CapabilityError(message, where=str(self._reference)) from None
        except OverError:
            message = f"the registry did not do it within {self._deadline.seconds:g} s"
            raise CapabilityError(
                message, where=str(self._reference), hint="--timeout gives it more"
            ) from None
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            # oras says it so, when it has nothing to log in with or that is refused.
            message = "the registry refuses access"
            raise CapabilityError(message, where=str(self._reference), hint=_LOG_IN) from None

    def _broken(self, error: Exception) -> CapabilityError:
        hint = ""
        if isinstance(error, requests.exceptions.SSLError) and self._reference.is_loopback:
            hint = "a registry without TLS needs --plain-http"
        message = f"the registry cannot be reached or breaks off: {_one_line(error)}"
        return CapabilityError(message, where=str(self._reference), hint=hint)

    def _failure(self, answer: requests.Response, what: str) -> CapabilityError:
        hint = {
            401: _LOG_IN,
            403: "this account may not do that",
            429: "try again later",
        }.get(answer.status_code, "")
        return CapabilityError(
            f"the registry answers {answer.status_code}{_reason(answer)}"
            + (f": {what}" if what else ""),
            where=str(self._reference),
            hint=hint,
        )


def _reason(answer: requests.Response) -> str:
    """Return the codes of an error answer (OCI distribution specification, "Error codes")."""
    try:
        errors = answer.json()["errors"]
        codes = [str(error["code"]) for error in errors[:3]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f" {', '.join(codes)[:100]}" if codes else ""


def _one_line(error: Exception) -> str:
    """Return the innermost reason of a failed request in a few words."""
    cause: object = error
    for _ in range(8):  # requests wraps urllib3, which wraps the socket's error
        inner = getattr(cause, "reason", None) or (
            cause.args[-1] if isinstance(cause, Exception) and cause.args else None
        )
        if not isinstance(inner, Exception):
            break
        cause = inner
    text = (isinstance(cause, OSError) and cause.strerror) or str(cause)
    *_, text = _BEFORE_REASON.split(text)
    return " ".join(text.split())[:200] or type(cause).__name__
