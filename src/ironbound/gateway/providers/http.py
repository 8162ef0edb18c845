"""The `http.request` action: one request to one place, decided and made from the same parsed parts.

`normalise` turns the agent's arguments into what the kernel judges; `perform` makes the request from
exactly those. URLs follow RFC 3986, in the one spelling that leaves no two readers in disagreement. This
module doesn't decide whether the request is allowed: a grant's constraints do.

Rule 1: the URL is parsed once, here. `perform` rebuilds it from the judged arguments and refuses to act
        if the client library reads any part of it differently.
Rule 2: nothing follows redirects, proxies, cookies or the environment.
Rule 3: a credential goes out only if the grant names it (the caller passes it) and its own binding covers
        the request; otherwise nothing goes out at all.
Rule 4: what comes back is bounded in size and time, not compressed, and scrubbed of the credential.
Rule 5: an effect that may have happened is never reported as one that didn't.
Rule 6: a host's name is no way to this host or to its link: who means these writes `localhost` or the address. What
        counts is the address that was connected to, not one that was looked up before.
"""

import asyncio
import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from ironbound.core.canonical import FormatError, Value, parse_decimal
from ironbound.gateway.action import ArgumentsRefused, Performed, Status, members
from ironbound.gateway.credentials import Credential

ACTION: Final = "http.request"
ARGUMENTS: Final = ("scheme", "host", "port", "path", "query", "method", "body")
"""The arguments that a grant's constraints can name; `query` and `body` only where the call has them."""

MAX_URL: Final = 4_096
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_WITH_BODY: Final = ("POST", "PUT", "PATCH")
_DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
MEDIA_TYPES: Final = (
    "application/json",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "text/csv",
    "text/markdown",
    "text/plain",
    "text/plain; charset=utf-8",
)
"""The closed list of content types: a header is no side channel past the constraints."""
HEADERS: Final[Mapping[str, tuple[str, ...]]] = {"content-type": MEDIA_TYPES, "accept": (*MEDIA_TYPES, "*/*")}
_SHOWN: Final = ("content-type", "location", "etag", "last-modified", "retry-after", "allow")

_URL = re.compile(r"(https?)://([a-z0-9.-]{1,253})(?::([0-9]{1,5}))?(/[^?]*)?(?:\?(.*))?")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_OCTET = re.compile(r"0|[1-9][0-9]{0,2}")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
# Dots, slashes, backslashes, percent signs and control characters have no business behind a percent sign.
_PATH_ESCAPES = re.compile(r"%(?:2e|2f|5c|25|7f|[01][0-9a-f])", re.IGNORECASE)
_QUERY_ESCAPES = re.compile(r"%(?:00|0a|0d)", re.IGNORECASE)
_CONNECTED: Final = "connection.connect_tcp.complete"
#: Where clouds answer with a machine's own credentials, beside link-local addresses.
_METADATA: Final = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254")))


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request in parts: `args` for the kernel, `headers` from a closed list."""

    args: dict[str, Value]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Seconds to connect, between two pieces of the answer, and in all; bytes of the answer's body."""

    connect_s: float = 5.0
    read_s: float = 10.0
    total_s: float = 30.0
    max_response: int = 524_288


def normalise(arguments: Value) -> HttpCall:
    """The parts of {method, url, headers?, body?}. Raises ArgumentsRefused and nothing else."""
    given = members(arguments, {"method": str, "url": str}, {"headers": dict, "body": str})
    method = given["method"]
    if method not in METHODS:
        raise ArgumentsRefused("method-invalid", f"expected one of {', '.join(METHODS)}")
    args = parse_url(str(given["url"]))
    args["method"] = method
    if "body" in given:
        if method not in _WITH_BODY:
            raise ArgumentsRefused("body-not-allowed", f"{method} has no body")
        args["body"] = given["body"]
    return HttpCall(args, _headers(given.get("headers", {})))


def _headers(given: Value) -> dict[str, str]:
    headers: dict[str, str] = {}
    if not isinstance(given, dict):
        raise ArgumentsRefused("argument-type", "headers: expected an object")
    for name, value in given.items():
        known = name.lower() if name.isascii() else ""
        if known not in HEADERS or known in headers:
            raise ArgumentsRefused("header-not-allowed", f"{name[:80]!a}: expected content-type or accept, each once")
        if value not in HEADERS[known] or not isinstance(value, str):
            raise ArgumentsRefused("header-not-allowed", f"{known}: expected one of {', '.join(HEADERS[known])}")
        headers[known] = value
    return headers


# One URL, one reading


def parse_url(url: str) -> dict[str, Value]:
    """scheme, host, port, path and, if there is one, query. Raises ArgumentsRefused and nothing else."""
    if len(url) > MAX_URL:
        raise ArgumentsRefused("url-too-long", f"expected at most {MAX_URL} characters, got {len(url)}")
    for character, meaning in (("\\", "a backslash"), ("#", "a fragment"), ("@", None)):
        authority = url.partition("://")[2].partition("/")[0].partition("?")[0]
        if character == "@" and "@" in authority:
            raise ArgumentsRefused("url-userinfo", "the URL holds a user or password")
        if meaning is not None and character in url:
            raise ArgumentsRefused("url-invalid", f"the URL holds {meaning}")
    match = _URL.fullmatch(url)
    if match is None:
        raise ArgumentsRefused("url-invalid", "expected http(s)://host[:port]/path[?query], scheme and host lower-case")
    scheme, host, port, path, query = match.groups()
    parts: dict[str, Value] = {
        "scheme": scheme,
        "host": _host(host),
        "port": _DEFAULT_PORTS[scheme] if port is None else _port(port),
        "path": _path(path or "/"),
    }
    if query is not None:
        if _QUERY.fullmatch(query) is None or _QUERY_ESCAPES.search(query) is not None:
            raise ArgumentsRefused("url-query", "the query holds a character that must be percent-encoded")
        parts["query"] = query
    return parts


def _host(host: str) -> str:
    labels = host.split(".")
    if any(_LABEL.fullmatch(label) is None for label in labels):
        raise ArgumentsRefused("url-host", "expected a host name of letters, digits, hyphens, no dot at its end")
    # WHATWG and inet_aton read whatever ends in a number as an IPv4 address; only the plain form is one.
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]) is not None:
        plain = len(labels) == 4 and all(_OCTET.fullmatch(label) and int(label) <= 255 for label in labels)
        if not plain:
            raise ArgumentsRefused("url-host", "expected an IPv4 address as four decimal numbers")
    return host


def _port(text: str) -> int:
    try:
        port = parse_decimal(text)
    except FormatError:
        raise ArgumentsRefused("url-port", "expected a port without leading zero") from None
    if not 1 <= port <= 65_535:
        raise ArgumentsRefused("url-port", "expected a port from 1 to 65535")
    return port


def _path(path: str) -> str:
    if _PATH.fullmatch(path) is None:
        raise ArgumentsRefused("url-path", "the path holds a character that must be percent-encoded")
    if _PATH_ESCAPES.search(path) is not None:
        raise ArgumentsRefused("url-path", "the path hides a dot, a slash or a control character behind a percent sign")
    segments = path.split("/")[1:]
    if any(segment.split(";")[0] in (".", "..") for segment in segments):
        raise ArgumentsRefused("url-path", "the path holds a dot segment")
    if "" in segments[:-1]:
        raise ArgumentsRefused("url-path", "the path holds an empty segment")
    return path


def build_url(args: Mapping[str, Value]) -> httpx.URL:
    """The URL of judged arguments. Raises ArgumentsRefused if the client would read it differently."""
    target = str(args["path"]) + (f"?{args['query']}" if "query" in args else "")
    text = f"{args['scheme']}://{args['host']}:{args['port']}{target}"
    parts = {name: args[name] for name in ("scheme", "host", "port", "path", "query") if name in args}
    if parse_url(text) != parts:
        raise ArgumentsRefused("url-ambiguous", "the arguments are not the parts of one URL")
    try:
        url = httpx.URL(text)
        _ = url.host  # decoded when it is first looked at, which not every `xn--` lets it
    except (httpx.InvalidURL, UnicodeError):
        raise ArgumentsRefused("url-ambiguous", "the HTTP client can't read the URL") from None
    port = url.port if url.port is not None else _DEFAULT_PORTS[str(args["scheme"])]
    read = (url.scheme, url.raw_host, port, url.raw_path, url.userinfo, url.fragment)
    if read != (args["scheme"], str(args["host"]).encode(), args["port"], target.encode(), b"", ""):
        raise ArgumentsRefused("url-ambiguous", "the HTTP client reads the URL differently")
    return url


# The request


async def perform(
    args: Mapping[str, Value],
    headers: Mapping[str, str],
    credential: Credential | None,
    limits: HttpLimits,
) -> Performed:
    """Make the request of judged arguments. What goes wrong is a status, not an exception.

    If it is cancelled once the request is under way, the caller must count it as *unknown*.
    """
    try:
        url = build_url(args)
    except ArgumentsRefused as refusal:
        return Performed("not-performed", str(refusal), str(refusal))
    if credential is not None and not credential.covers(args):
        text = f"the credential {credential.name} does not belong to this scheme, host, port and path"
        return Performed("not-performed", f"credential-not-bound: {text}", text)
    request_headers = {"user-agent": "ironbound", "accept-encoding": "identity", "accept": "*/*", **headers}
    body = args.get("body")
    if body is not None:
        request_headers.setdefault("content-type", "text/plain; charset=utf-8")
    if credential is not None:
        request_headers[credential.header] = credential.value
    timeout = httpx.Timeout(limits.read_s, connect=limits.connect_s)
    # Rule 2: nothing from the environment, nothing followed, nothing kept.
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=timeout) as client:
        request = client.build_request(
            str(args["method"]),
            url,
            headers=request_headers,
            content=None if body is None else str(body).encode(),
            extensions={"trace": _connection_of(str(args["host"]))},
        )
        return await _exchange(client, request, credential, limits)


class _OwnAddress(Exception):
    """A name led to an address that has to be written as such."""


def means_itself(name: str, address: str, source: str) -> bool:
    """True if who wrote this host can have meant the address (as text): the same, `localhost`, or a place elsewhere.

    `source` is the connection's own end: at this host's addresses the kernel takes the same one for both.
    """
    if name == address:
        return True
    place = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(place, ipaddress.IPv6Address) and place.ipv4_mapped is not None:
        place = place.ipv4_mapped
    if place.is_loopback:
        return name == "localhost" or name.endswith(".localhost")
    return address != source and not (
        place.is_link_local or place.is_unspecified or place.is_multicast or place in _METADATA
    )


def _connection_of(host: str) -> Any:
    """The client's hook (httpcore's trace) that stops before the first byte where the name led to a wrong address."""

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event != _CONNECTED:
            return
        stream = info["return_value"]
        if not means_itself(host, *(stream.get_extra_info(f"{end}_addr")[0] for end in ("server", "client"))):
            await stream.aclose()
            raise _OwnAddress

    return trace


async def _exchange(
    client: httpx.AsyncClient, request: httpx.Request, credential: Credential | None, limits: HttpLimits
) -> Performed:
    sent = False
    try:
        async with asyncio.timeout(limits.total_s):
            response = await client.send(request, stream=True)
            sent = True
            try:
                return await _answer(response, credential, limits)
            finally:
                await response.aclose()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
        return _broken("not-performed", "no connection", error)
    except _OwnAddress:
        text = "address-not-meant: the name leads to this host or its link; write localhost or the address for that"
        return Performed("not-performed", text, text)
    except (httpx.HTTPError, httpx.StreamError) as error:
        return _broken("unknown", "the answer broke off" if sent else "no answer", error)
    except TimeoutError as error:
        return _broken("unknown", f"no complete answer within {limits.total_s:g} s", error)


def _broken(status: Status, what: str, error: Exception) -> Performed:
    # The library's own words may quote the far side: only their kind is kept.
    text = f"{what} ({type(error).__name__})"
    return Performed(status, text, text)


async def _answer(response: httpx.Response, credential: Credential | None, limits: HttpLimits) -> Performed:
    coding = response.headers.get("content-encoding", "identity").lower()
    if coding != "identity":
        # Compressed bytes can't be scrubbed, and may unpack to any size.
        text = "the answer is compressed although that was refused; it is withheld"
        return Performed("performed", f"{response.status_code}: {text}", text, {"status": response.status_code})
    received = bytearray()
    async for piece in response.aiter_raw():
        received += piece
        if len(received) > limits.max_response:
            text = f"the answer is over {limits.max_response} bytes; it is withheld"
            return Performed("performed", f"{response.status_code}: {text}", text, {"status": response.status_code})
    content = bytes(received)
    shown = {name: response.headers[name] for name in _SHOWN if name in response.headers}
    if credential is not None:
        content = credential.scrub(content)
        shown = {name: _latin(credential.scrub(value.encode("latin-1", "replace"))) for name, value in shown.items()}
    facts: dict[str, Value] = {
        "status": response.status_code,
        "headers": {name: _clip(value) for name, value in shown.items()},
    }
    try:
        text = content.decode("utf-8", "strict")
    except UnicodeDecodeError:
        text = base64.b64encode(content).decode()
        facts["encoding"] = "base64"
    failed = response.status_code >= 400
    detail = f"{response.status_code}, {len(content)} bytes"
    return Performed("failed" if failed else "performed", detail, text, facts, {"bytes": len(content)})


def _latin(data: bytes) -> str:
    return data.decode("latin-1")


def _clip(value: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in value)[:1_024]
