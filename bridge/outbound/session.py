"""Sends requests to one destination: guarded, bounded in time and size, never redirected, never repeated."""

from __future__ import annotations

import logging
import re
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol
from urllib.parse import urlsplit

import requests
from requests.exceptions import RequestException
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from bridge.core.errors import TargetError
from bridge.core.target import Answer, Request
from bridge.flow.judge import AnswerLost, NotSent
from bridge.flow.network import NetworkPolicy, Transport, check_destination, check_url
from bridge.outbound.adapter import Door, GuardedAdapter
from bridge.outbound.guard import Resolve, system_resolve

# urllib3 writes URLs into its log, also on level WARNING, and the URL of a hook is a secret.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


def _version() -> str:
    try:
        return version("campusbridge")
    except PackageNotFoundError:
        return "0"


USER_AGENT: Final = f"CampusBridge/{_version()}"
_BLOCK: Final = 64 * 1024
_TUNNEL: Final = re.compile(r"Tunnel connection failed: ([0-9]{3})\b")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Framing and routing belong to the transport: a mapping that could set them could smuggle a second request.
_OURS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"}
    | {"expect", "keep-alive", "proxy-authorization", "proxy-connection"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds to connect, between two bytes of an answer, and for the whole answer; bytes of its decoded body.

    A longer body is cut, or, with `cut` False, refused with AnswerTooLong: half a JSON document is none.
    """

    connect: float = 5.0
    read: float = 30.0
    total: float = 60.0
    body: int = 64 * 1024
    cut: bool = True


TARGET_LIMITS: Final = Limits()
API_LIMITS: Final = Limits(body=8 * 1024 * 1024, cut=False)


class AnswerTooLong(AnswerLost):
    """The answer has more bytes, once decompressed, than the limit."""


class Sender(Protocol):
    """Anything that turns a request into an answer, or raises NoAnswer, DestinationForbidden or TargetError."""

    def send(self, request: Request) -> Answer: ...


class GuardedSession:
    """One destination's connections, kept alive between requests. The policy is applied to every new connection.

    It speaks to the transport adapter itself and not to a `requests.Session`, whose redirects, cookies, `.netrc` and
    proxy variables are all unwanted here and cost a third of the time of a small request. The policy's `transport` says
    which proxy, authorities and certificate to use; its files are read once, here: OSError (ssl.SSLError) when they
    cannot be.

    `send` may be called from many threads at once: nothing in here changes after it is made but urllib3's pool, which
    has its own lock. `close` is for the end. Do not hand it on to a forked child.
    """

    def __init__(
        self,
        policy: NetworkPolicy,
        limits: Limits = TARGET_LIMITS,
        *,
        resolve: Resolve = system_resolve,
        connections: int = 16,
    ) -> None:
        self._limits = limits
        self._wire_url = lru_cache(maxsize=256)(partial(_wire_url, policy))
        proxy = policy.transport.proxy
        self._proxies = {} if proxy is None else {"http": proxy.url, "https": proxy.url}
        door = Door(policy=policy, resolve=resolve, total=limits.total)
        self._adapter = GuardedAdapter(door, connections, tls_context(policy.transport))

    def send(self, request: Request) -> Answer:
        """One request, one answer of any status.

        Raises NotSent or AnswerLost (AnswerTooLong), DestinationForbidden, and TargetError for a URL or header that
        HTTP cannot carry.
        """
        prepared = _prepared(request, self._wire_url(request.url))
        timeout = (self._limits.connect, self._limits.read)
        try:
            response = self._adapter.send(prepared, stream=True, timeout=timeout, proxies=self._proxies)
        except (RequestException, HTTPError, OSError) as error:
            # Whatever fails after the last byte was sent is AnswerLost already (see adapter.py).
            raise NotSent(_words(error)) from None
        if response.status_code == 407 and self._proxies:
            response.close()
            raise NotSent("the proxy wants a login: check the username and password of the proxy")
        try:
            body, whole = _read(response.raw, self._limits)
        except (HTTPError, HTTPException, OSError, ValueError, zlib.error) as error:
            response.close()
            raise AnswerLost(f"HTTP {response.status_code}, but its body broke off: {type(error).__name__}") from None
        if whole:
            response.raw.release_conn()
        else:
            response.close()
            if not self._limits.cut:
                raise AnswerTooLong(f"HTTP {response.status_code} with more than {self._limits.body} bytes")
        return Answer(
            status=response.status_code,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body,
        )

    def close(self) -> None:
        """Close all idle connections."""
        self._adapter.close()


@cache
def tls_context(transport: Transport) -> ssl.SSLContext:
    """Whom to believe: the system's authorities, where a campus puts its own, and Mozilla's; or one bundle alone.

    Certificates and names are always checked. Raises OSError (ssl.SSLError) for files that cannot be used; a key with
    a password is one of them.
    """
    bundle = transport.ca_bundle
    context = ssl.create_default_context(cafile=bundle)
    if bundle is None:
        context.load_verify_locations(cafile=DEFAULT_CA_BUNDLE_PATH)
    if transport.certificate is not None:
        context.load_cert_chain(transport.certificate, transport.key, password=bytes)
    return context


def _prepared(request: Request, url: str) -> requests.PreparedRequest:
    if not _NAME.fullmatch(request.method):
        raise TargetError("the method must be an HTTP token")
    prepared = requests.PreparedRequest()
    prepared.method = request.method
    prepared.url = url
    prepared.headers = _headers(request.headers)
    prepared.body = request.body or None
    if request.body or request.method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        prepared.headers["Content-Length"] = str(len(request.body))
    return prepared


def _wire_url(policy: NetworkPolicy, url: str) -> str:
    """A URL as it goes out: checked, the host as it was judged, unsafe characters percent-encoded."""
    host, _ = check_destination(url, policy)
    parts = urlsplit(url)
    # A name's final dot keeps search lists out; an address has none.
    dot = "." if (parts.hostname or "").endswith(".") and not host[-1].isdigit() else ""
    authority = f"[{host}]" if ":" in host else host + dot
    if parts.port is not None:
        authority += f":{parts.port}"
    scheme, slashes, rest = url.partition("//")
    prepared = requests.PreparedRequest()
    try:
        prepared.prepare_url(scheme + slashes + authority + rest[len(parts.netloc) :], None)
    except RequestException:
        raise TargetError("the URL cannot be sent over HTTP") from None
    wire = str(prepared.url)
    if check_url(wire)[0] != host:
        raise TargetError("the URL's host means different things to different readers")
    return wire


def _headers(given: Mapping[str, str]) -> CaseInsensitiveDict[str]:
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    headers["User-Agent"] = USER_AGENT
    headers["Accept"] = "*/*"
    headers["Accept-Encoding"] = "gzip"
    for name, value in given.items():
        if not _NAME.fullmatch(name) or name.lower() in _OURS:
            raise TargetError("a header has a name that may not be set")
        if not _VALUE.fullmatch(value):
            raise TargetError(f"header {name}: expected one line of Latin-1 text")
        headers[name] = value
    return headers


def _read(raw: BaseHTTPResponse, limits: Limits) -> tuple[bytes, bool]:
    """The body, decompressed and cut at the limit, and whether that is all of it.

    Bytes on the wire are counted too: a compressed stream can be endless and say nothing.
    """
    # 32 lets zlib tell gzip and zlib apart by their first bytes.
    packed = raw.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip", "deflate")
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None
    body = bytearray()
    wire = 0
    while block := raw.read(_BLOCK, decode_content=False):
        wire += len(block)
        body += block if decoder is None else decoder.decompress(block, limits.body + 1 - len(body))
        if max(len(body), wire) > limits.body:
            return bytes(body[: limits.body]), False
    if decoder is not None and wire and not decoder.eof:
        raise zlib.error
    return bytes(body), True


def _words(error: BaseException) -> str:
    """The kind of a failure; the text of an error of requests holds the URL, and a URL may be a secret."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS: the handshake failed"
        if refused := _TUNNEL.match(str(cause)):
            return f"the proxy answered {refused[1]} and made no connection"
        cause = cause.__context__
    return f"the request could not be sent ({type(error).__name__})"
