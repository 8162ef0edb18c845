"""`http.request`: one reading of a URL, credentials that stay where they belong, answers within bounds."""

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.canonical import FormatError
from ironbound.gateway.action import ArgumentsRefused, Performed
from ironbound.gateway.credentials import Credential, parse_credentials, read_credentials, spellings
from ironbound.gateway.providers import http
from ironbound.gateway.providers.http import HttpLimits, build_url, means_itself, normalise, parse_url, perform

SECRET = "Bearer s3cr3t/token+value=="
TOKEN = SECRET.split()[1]
LIMITS = HttpLimits(connect_s=2, read_s=2, total_s=4, max_response=4096)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.released = threading.Event()
        self.location = ""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers, body))
        answer, status, extra = b"{}", 200, {"content-type": "application/json"}
        token = headers.get("authorization", "none")
        if self.path.startswith("/api/echo/"):
            raw = token.encode()
            answer = {
                "plain": raw,
                "json": json.dumps({"a": token}).encode(),
                "base64": base64.b64encode(raw),
                "shifted": base64.b64encode(b"xx" + raw + b"yy"),
                "urlsafe": base64.urlsafe_b64encode(b"x" + raw),
                "quoted": quote(token, safe="").encode(),
                "quoted-lower": quote(token, safe="").lower().encode(),
                "hex": raw.hex().encode(),
                "utf-16": token.encode("utf-16-le"),
                "token": token.rpartition(" ")[2].encode(),
            }[self.path.rpartition("/")[2]]
            extra["etag"] = token
        elif self.path == "/api/redirect":
            status, extra = 302, {"location": self.server.location}
        elif self.path == "/api/large":
            answer = b"x" * 5000
        elif self.path == "/api/chunked":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                while not self.server.released.is_set():
                    self.wfile.write(b"100\r\n" + b"x" * 256 + b"\r\n")
            except OSError:
                return
            return
        elif self.path == "/api/gzip":
            extra["content-encoding"] = "gzip"
        elif self.path == "/api/slow":
            self.server.released.wait(30)
        elif self.path == "/api/drip":
            self.send_response(200)
            self.send_header("content-length", "1000000")
            self.end_headers()
            try:
                while not self.server.released.wait(0.05):
                    self.wfile.write(b"x")
            except OSError:
                pass
            return
        elif self.path == "/api/broken":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort")
            self.close_connection = True
            return
        elif self.path == "/api/missing":
            status = 404
        self.send_response(status)
        for name, value in extra.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = serve


@pytest.fixture
def server() -> Iterator[Server]:
    yield from running()


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    yield from running()


def running() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def at(server: Server, path: str = "/api/x") -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def credential(server: Server, **changes: object) -> Credential:
    fields = {
        "scheme": "http",
        "host": "127.0.0.1",
        "port": server.server_port,
        "path": "/api",
        "header": "authorization",
        "value": SECRET,
    }
    return parse_credentials(json.dumps({"records": {**fields, **changes}}).encode())["records"]


def request(url: str, cred: Credential | None = None, limits: HttpLimits = LIMITS, **more: object) -> Performed:
    call = normalise({"method": "GET", "url": url, **more})
    return asyncio.run(perform(call.args, call.headers, cred, limits))


def leaks(result: Performed) -> bool:
    shown = repr((result.detail, result.text, dict(result.facts))).encode()
    try:
        shown += base64.b64decode(result.text)
    except ValueError:
        pass
    return any(spelling in shown for spelling in spellings(SECRET))


# URLs


def test_the_parts_of_a_url_go_to_the_kernel_with_the_default_port_filled_in() -> None:
    call = normalise({"method": "POST", "url": "https://api.example.com/v1/x?a=b%20c", "body": "hi"})
    assert call.args == {
        "scheme": "https",
        "host": "api.example.com",
        "port": 443,
        "path": "/v1/x",
        "query": "a=b%20c",
        "method": "POST",
        "body": "hi",
    }
    assert normalise({"method": "GET", "url": "http://h.example"}).args == {
        "scheme": "http",
        "host": "h.example",
        "port": 80,
        "path": "/",
        "method": "GET",
    }


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://user@h.example/", "url-userinfo"),
        ("http://good.example:80@evil.example/", "url-userinfo"),
        ("http://good.example\\@evil.example/", "url-invalid"),
        ("http://h.example/a\\b", "url-invalid"),
        ("http://h.example/#x", "url-invalid"),
        ("http://h.example/a b", "url-path"),
        ("http://h.example/a\r\nHost: evil", "url-path"),
        ("http://h.example/\x00", "url-path"),
        (" http://h.example/", "url-invalid"),
        ("http://h.example/\n", "url-path"),
        ("http://h.example\n/", "url-invalid"),
        ("http://h\u00e9.example/", "url-invalid"),
        ("http://h\u3002example/", "url-invalid"),
        ("http://H.example/", "url-invalid"),
        ("HTTP://h.example/", "url-invalid"),
        ("http:/h.example/", "url-invalid"),
        ("//h.example/", "url-invalid"),
        ("file:///etc/passwd", "url-invalid"),
        ("http://h.example./", "url-host"),
        ("http://.h.example/", "url-host"),
        ("http://h..example/", "url-host"),
        ("http://-h.example/", "url-host"),
        ("http://[::1]/", "url-invalid"),
        ("http://127.1/", "url-host"),
        ("http://0177.0.0.1/", "url-host"),
        ("http://0x7f.0.0.1/", "url-host"),
        ("http://0x7f000001/", "url-host"),
        ("http://2130706433/", "url-host"),
        ("http://127.0.0.256/", "url-host"),
        ("http://127.0.0.01/", "url-host"),
        ("http://1.2.3.4.5/", "url-host"),
        ("http://foo.0x1/", "url-host"),
        ("http://h.example:0/", "url-port"),
        ("http://h.example:65536/", "url-port"),
        ("http://h.example:080/", "url-port"),
        ("http://h.example:/", "url-invalid"),
        ("http://h.example:8_0/", "url-invalid"),
        ("http://h.example/a/../b", "url-path"),
        ("http://h.example/..", "url-path"),
        ("http://h.example/./b", "url-path"),
        ("http://h.example/..;x/b", "url-path"),
        ("http://h.example//b", "url-path"),
        ("http://h.example/a//b", "url-path"),
        ("http://h.example/%2e%2e/b", "url-path"),
        ("http://h.example/a%2Fb", "url-path"),
        ("http://h.example/a%5cb", "url-path"),
        ("http://h.example/a%252e", "url-path"),
        ("http://h.example/a%00", "url-path"),
        ("http://h.example/a%0d%0a", "url-path"),
        ("http://h.example/a%zz", "url-path"),
        ("http://h.example/?a=%0d%0a", "url-query"),
        ("http://h.example/?a b", "url-query"),
        ("http://h.example/" + "a" * 5000, "url-too-long"),
    ],
)
def test_a_url_that_two_readers_could_read_differently_is_refused(url: str, code: str) -> None:
    with pytest.raises(ArgumentsRefused) as caught:
        parse_url(url)
    assert caught.value.code == code


hosts = st.sampled_from(["h.example", "127.0.0.1", "xn--mnchen-3ya.example", "a-b.c"])
paths = st.lists(st.text(alphabet="abZ019._~!$&'()*+,;=:@-", max_size=4), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)
queries = st.none() | st.text(alphabet="ab=&?/:@%20", max_size=8)


@given(hosts, st.none() | st.integers(0, 70000), paths, queries)
def test_what_was_judged_is_what_the_client_would_request(
    host: str, port: int | None, path: str, query: str | None
) -> None:
    url = (
        f"http://{host}" + (f":{port}" if port is not None else "") + path + (f"?{query}" if query is not None else "")
    )
    try:
        parts = parse_url(url)
    except ArgumentsRefused:
        return
    built = build_url(parts)
    assert (built.host, built.port or 80) == (host, parts["port"]) or host.startswith("xn--")
    assert built.raw_path.decode() == path + (f"?{query}" if query is not None else "")


@pytest.mark.parametrize("host", ["xn--a", "xn--99999999", "xn--ls8h.example"])
def test_a_host_that_the_client_library_fails_at_is_one_to_which_nothing_was_sent(host: str) -> None:
    result = request(f"http://{host}/")
    assert (result.status, result.detail.split(":")[0]) == ("not-performed", "url-ambiguous")


def test_nothing_is_sent_if_the_client_library_reads_the_url_differently(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = httpx.URL
    monkeypatch.setattr(httpx, "URL", lambda text: real(text + "x"))
    result = request(at(server))
    assert (result.status, result.detail.split(":")[0]) == ("not-performed", "url-ambiguous")
    assert server.seen == []
    monkeypatch.undo()
    assert request(at(server)).status == "performed"  # control


@given(st.text(max_size=60) | st.text(alphabet="htps:/.@#?%2e\\[]0x1a", max_size=40).map(lambda tail: "http://" + tail))
def test_garbage_urls_raise_arguments_refused_and_nothing_else(url: str) -> None:
    try:
        parts = parse_url(url)
    except ArgumentsRefused:
        return
    build_url(parts)


def test_arguments_that_are_not_the_parts_of_one_url_are_refused(server: Server) -> None:
    good = parse_url(at(server))
    for change in (
        {"host": "127.0.0.1@evil.example"},
        {"path": "/x#y"},
        {"path": "/a?b"},
        {"port": 0},
        {"query": "a#"},
    ):
        result = asyncio.run(perform({**good, **change, "method": "GET"}, {}, None, LIMITS))
        assert result.status == "not-performed"
    assert server.seen == []
    assert asyncio.run(perform({**good, "method": "GET"}, {}, None, LIMITS)).status == "performed"  # control


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"method": "CONNECT"}, "method-invalid"),
        ({"method": "get"}, "method-invalid"),
        ({"body": "x"}, "body-not-allowed"),
        ({"method": "POST", "body": {}}, "argument-type"),
        ({"headers": {"authorization": "x"}}, "header-not-allowed"),
        ({"headers": {"Host": "x"}}, "header-not-allowed"),
        ({"headers": {"accept": "a\r\nHost: b"}}, "header-not-allowed"),
        ({"headers": {"accept": "x-secret/data"}}, "header-not-allowed"),
        ({"headers": {"accept": "*/*", "Accept": "*/*"}}, "header-not-allowed"),
        ({"headers": {"accept": 1}}, "header-not-allowed"),
        ({"proxy": "http://evil"}, "argument-unknown"),
        ({"verify": False}, "argument-unknown"),
        ({"follow_redirects": True}, "argument-unknown"),
    ],
)
def test_other_methods_headers_and_arguments_are_refused(more: dict[str, object], code: str) -> None:
    with pytest.raises(ArgumentsRefused) as caught:
        normalise({"method": "GET", "url": "http://h.example/", **more})
    assert caught.value.code == code


# Requests


def test_a_request_reaches_its_server_with_the_credential_that_the_agent_never_sees(server: Server) -> None:
    call = normalise({
        "method": "POST", "url": at(server), "body": "hi", "headers": {"Content-Type": "application/json"},
    })  # fmt: skip
    result = asyncio.run(perform(call.args, call.headers, credential(server), LIMITS))
    assert (result.status, result.text, result.facts["status"]) == ("performed", "{}", 200)
    method, path, headers, body = server.seen[0]
    assert (method, path, body) == ("POST", "/api/x", b"hi")
    assert headers["authorization"] == SECRET
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert not leaks(result)


def test_without_a_credential_in_the_grant_none_is_sent(server: Server) -> None:
    assert request(at(server)).status == "performed"
    assert "authorization" not in server.seen[0][2]


@pytest.mark.parametrize("path", ["/api2/x", "/", "/other", "/apix"])
def test_a_credential_does_not_go_to_another_path(server: Server, path: str) -> None:
    result = request(at(server, path), credential(server))
    assert (result.status, result.detail.split(":")[0]) == ("not-performed", "credential-not-bound")
    assert server.seen == []


def test_a_credential_does_not_go_to_another_port_host_or_scheme(server: Server, elsewhere: Server) -> None:
    cred = credential(server)
    assert request(at(elsewhere), cred).status == "not-performed"
    assert elsewhere.seen == []
    for url in (at(server).replace("127.0.0.1", "127.0.0.2"), at(server).replace("127.0.0.1", "localhost"),
                at(server).replace("http:", "https:")):  # fmt: skip
        assert request(url, cred).detail.startswith("credential-not-bound")
    assert server.seen == []
    assert request(at(server), cred).status == "performed"  # control: its own place


def test_a_redirect_to_another_host_is_not_followed(server: Server, elsewhere: Server) -> None:
    server.location = at(elsewhere, "/stolen")
    result = request(at(server, "/api/redirect"), credential(server))
    assert result.facts["status"] == 302
    assert elsewhere.seen == []
    assert len(server.seen) == 1


def test_proxies_in_the_environment_are_not_used(
    server: Server, elsewhere: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, at(elsewhere, ""))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert request(at(server), credential(server)).status == "performed"
    assert (len(server.seen), len(elsewhere.seen)) == (1, 0)


@pytest.mark.parametrize(
    "form",
    ["plain", "json", "base64", "shifted", "urlsafe", "quoted", "quoted-lower", "hex", "utf-16", "token"],
)
def test_an_echoed_credential_is_scrubbed(server: Server, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = request(at(server, f"/api/echo/{form}"), credential(server))
    assert (result.status, len(server.seen)) == ("performed", 1)
    assert not leaks(result)
    monkeypatch.setattr(Credential, "scrub", lambda self, data: data)
    assert leaks(request(at(server, f"/api/echo/{form}"), credential(server)))  # control


def test_an_answer_over_the_limit_is_withheld_and_reading_stops(server: Server) -> None:
    for path in ("/api/large", "/api/chunked"):
        result = request(at(server, path))
        assert (result.status, result.facts) == ("performed", {"status": 200})
        assert "over 4096 bytes" in result.text
    wide = HttpLimits(max_response=5000)
    assert len(request(at(server, "/api/large"), limits=wide).text) == 5000  # control


def test_a_compressed_answer_is_withheld(server: Server) -> None:
    assert "compressed" in request(at(server, "/api/gzip"), credential(server)).text


def test_a_slow_server_ends_as_unknown(server: Server) -> None:
    quick = HttpLimits(connect_s=1, read_s=0.1, total_s=5)
    assert request(at(server, "/api/slow"), limits=quick).status == "unknown"
    assert len(server.seen) == 1


def test_a_server_that_drips_ends_as_unknown(server: Server) -> None:
    drip = HttpLimits(connect_s=1, read_s=5, total_s=0.3)
    result = request(at(server, "/api/drip"), limits=drip)
    assert (result.status, result.text) == ("unknown", "no complete answer within 0.3 s (TimeoutError)")


def test_an_answer_that_breaks_off_is_unknown_and_no_connection_is_not_performed(server: Server) -> None:
    assert request(at(server, "/api/broken")).status == "unknown"
    closed = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = closed.server_port
    closed.server_close()
    assert request(f"http://127.0.0.1:{port}/x").status == "not-performed"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A name server: what is put in resolves to that address."""
    table: dict[str, str] = {}
    resolve = socket.getaddrinfo

    def getaddrinfo(host: object, *more: Any, **others: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return resolve(table.get(str(name), host), *more, **others)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table


@pytest.mark.parametrize(("name", "status"), [("inside.example", "not-performed"), ("api.localhost", "performed")])
def test_a_name_is_no_way_to_what_listens_on_this_host(
    server: Server, names: dict[str, str], name: str, status: str
) -> None:
    names[name] = "127.0.0.1"
    result = request(f"http://{name}:{server.server_port}/api/x")
    assert result.status == status
    assert len(server.seen) == (status == "performed")
    assert ("address-not-meant" in result.text) == (status != "performed")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%eth0", "0.0.0.0", "::",
     "224.0.0.1", "fd00:ec2::254", "100.100.100.200", "::ffff:169.254.169.254"],
)  # fmt: skip
def test_addresses_of_this_host_its_link_and_a_clouds_credentials_have_to_be_meant(address: str) -> None:
    assert not means_itself("inside.example", address, "10.9.9.9")
    assert means_itself(address, address, address)


def test_other_addresses_private_ones_too_may_have_a_name() -> None:
    for address in ("10.1.2.3", "192.168.0.1", "93.184.216.34", "2001:db8::1", "fd12::1"):
        assert means_itself("inside.example", address, "10.9.9.9")
    assert means_itself("localhost", "127.0.0.1", "127.0.0.1") and means_itself("localhost", "::1", "::1")
    assert not means_itself("localhost", "169.254.169.254", "10.9.9.9")


def test_an_address_at_which_this_host_reaches_itself_has_to_be_meant(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("10.1.2.3", "2001:db8::1"):
        assert not means_itself("inside.example", address, address)
        assert means_itself(address, address, address)
    asked = []
    monkeypatch.setattr(http, "means_itself", lambda *ends: asked.append(ends))
    assert "address-not-meant" in request(at(server, "/api/a")).text
    assert asked == [("127.0.0.1",) * 3], "the host, and both ends of the connection that was made"


def test_an_error_status_is_a_failed_action(server: Server) -> None:
    result = request(at(server, "/api/missing"))
    assert (result.status, result.is_error, result.facts["status"]) == ("failed", True, 404)


# Credentials


@pytest.mark.parametrize(
    "change",
    [
        {"value": "short"}, {"value": "Bearer short"}, {"value": "se cret\r\nx: y12345"}, {"value": 12345678},
        {"port": "80"}, {"port": True}, {"port": 0}, {"scheme": "ftp"}, {"scheme": "http", "host": "api.example.com"},
        {"scheme": "http", "host": "localhost"}, {"host": "H"}, {"host": 1}, {"path": "api"}, {"path": "/api/"},
        {"path": "/a/../b"}, {"header": "Host"}, {"header": "host"}, {"header": "a b"}, {"extra": 1},
    ],
)  # fmt: skip
def test_a_malformed_credential_is_refused_without_showing_its_value(change: dict[str, object]) -> None:
    fields = {
        "scheme": "https", "host": "api.example.com", "port": 443, "path": "/v1", "header": "authorization",
        "value": SECRET, **change,
    }  # fmt: skip
    with pytest.raises(FormatError) as caught:
        parse_credentials(json.dumps({"records": fields}).encode())
    assert TOKEN not in str(caught.value) and str(fields["value"]) not in str(caught.value)


def test_a_credential_s_repr_and_a_syntax_error_hide_the_value() -> None:
    data = json.dumps({"a": {"scheme": "https", "host": "h", "port": 1, "path": "", "header": "x", "value": SECRET}})
    assert TOKEN not in repr(parse_credentials(data.encode()))
    for broken in (data[:-1], data.replace('"value"', '"header"'), data + TOKEN):
        with pytest.raises(FormatError) as caught:
            parse_credentials(broken.encode())
        assert TOKEN not in str(caught.value)


def test_a_credentials_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text("{}")
    for mode in (0o444, 0o440, 0o644, 0o600 | 0o004):
        path.chmod(mode)
        with pytest.raises(FormatError):
            read_credentials(str(path))
    path.chmod(0o400)
    assert read_credentials(str(path)) == {}
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError):
        read_credentials(str(link))
    with pytest.raises(FileNotFoundError):
        read_credentials(str(tmp_path / "missing"))


@given(st.binary(max_size=100))
def test_garbage_credentials_raise_format_error_and_nothing_else(data: bytes) -> None:
    try:
        parse_credentials(data)
    except FormatError:
        pass
