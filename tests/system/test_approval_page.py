"""The approval page, in a real browser with a passkey: what it shows, who may answer it, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from stand import COMMAND, until

from authenticators import DEPLOYMENT, PasskeyDevice
from browsers import Waiting, hear_ctrl_c, post
from ironbound.core.envelope import PAYLOAD_TYPE, Envelope, pae, sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.scheme import verify_scheme
from ironbound.core.shown import Row, as_text
from ironbound.core.strength import Strength
from ironbound.core.webauthn import Passkey, base64url, challenge_of
from ironbound.terminal.approval.server import TRIES, PageServer
from ironbound.terminal.approval.signer import enrol, page_signer
from ironbound.terminal.consent import Screen, approval_screen, decline_screen, request_screen
from ironbound.terminal.demo import browser as driving
from ironbound.terminal.demo.browser import Browser, Driver, Refused
from ironbound.terminal.init import free_ports
from ironbound.terminal.voice import Stop
from verifier.lab import Lab

PAYLOAD = b'{"content":1}'
OTHER = b'{"content":2}'
SCREEN = Screen(
    "ada",
    (Row("request", "grant a capability"), Row("deployment", "lab"), Row("query", "ANYTHING, or nothing", True, True),
     Row("ticket", '"<img src=x onerror=alert(1)> & </dd>"')),
    (Row("you are", "ada, who asks"), Row("words", "acid acorn adobe alarm amber anchor angle apron")),
)  # fmt: skip


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    try:
        with Driver() as made:
            yield made
    except Stop as stop:
        pytest.skip(f"{stop.cause} ({stop.hint})")


@pytest.fixture(scope="module")
def browser(driver: Driver) -> Iterator[Browser]:
    made = Browser(driver)
    yield made
    made.close()


@pytest.fixture(scope="module")
def passkey(browser: Browser) -> Passkey:
    """ada's, made on the enrolment page of the real command's own code."""
    (port,) = free_ports(1)
    making = Waiting(lambda tell: enrol("ada", "lab", port, tell))
    assert "Done" in browser.sign(making.url)
    key, registration = making.result()
    assert key.origin == f"http://localhost:{port}" and registration.keys() == {"id", "response"}
    assert isinstance(key, Passkey)
    return key


@pytest.fixture
def plain_key() -> Passkey:
    """An enrolled passkey whose device nobody needs, at a port of its own."""
    (port,) = free_ports(1)
    device = PasskeyDevice("ada")
    return Passkey(device.spki, device.credential, "localhost", f"http://localhost:{port}", False)


def signing(key: Passkey, *payloads: bytes, patience_s: float = 60.0, screen: Screen = SCREEN) -> Waiting:
    """The command's side: asks for a signature of each payload."""

    def call(tell: Callable[[str], None]) -> list[Envelope]:
        signer = page_signer("ada", key, tell, patience_s)
        try:
            return [
                sign_envelope(payload, [signer.facing(screen, at < len(payloads))])
                for at, payload in enumerate(payloads, 1)
            ]
        finally:
            signer.close()

    return Waiting(call)


def challenge(payload: bytes) -> str:
    return base64url(challenge_of(pae(PAYLOAD_TYPE, payload)))


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_of(key: Passkey) -> int:
    return int(key.origin.rpartition(":")[2])


# What it shows, and the honest way


def test_a_passkey_signs_what_the_page_shows(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD)
    browser.open(waiting.url)
    shown = browser.script(
        "return [...document.querySelectorAll('dl > div')].map((row) => [row.children[0].textContent, "
        "row.children[1].textContent])"
    )
    assert shown == [[row.label, row.value] for row in (*SCREEN.signed, *SCREEN.around)]
    assert SCREEN.text == as_text(SCREEN.signed) + as_text(SCREEN.around)
    assert browser.script("return document.images.length") == 0
    assert "acid acorn adobe alarm amber anchor angle apron" in browser.text("#status")
    browser.click("#sign")
    (envelope,) = waiting.result()
    proven = verify_scheme(passkey, envelope.signatures[0].sig, pae(PAYLOAD_TYPE, PAYLOAD))
    assert proven.strength is Strength.HARDWARE_VERIFIED
    until("the page says so", lambda: "Done" in browser.text("#status"))
    assert is_free(port_of(passkey))


def test_one_page_after_the_other_for_several_requests(browser: Browser, passkey: Passkey) -> None:
    payloads = [b'{"content":%d}' % number for number in range(5)]
    waiting = signing(passkey, *payloads)
    assert "Done" in browser.sign(waiting.url)
    assert [one.payload for one in waiting.result()] == payloads
    assert len([line for line in waiting.told if "open http" in line]) == 1


def test_a_screen_reader_is_told_and_a_keyboard_is_enough(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD)
    browser.open(waiting.url)
    nodes = browser.accessible()
    for role, name in (
        ("heading", "Grant a capability"), ("button", "Sign with passkey"), ("button", "Decline"),
        ("region", "What is signed"), ("region", "You and the others"),
    ):  # fmt: skip
        assert (role, name) in nodes
    assert any(role == "status" for role, _ in nodes)
    assert browser.script("return document.documentElement.lang") == "en"
    assert browser.script("return document.activeElement === document.body"), "nothing is signed by a stray Enter"
    browser.press("\ue004")
    assert browser.script("return document.activeElement.id") == "sign"
    browser.press("\ue007")
    assert waiting.result()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_read_stands_out_enough(browser: Browser, passkey: Passkey, scheme: str) -> None:
    """Contrast of 4.5 (WCAG 2.2, 1.4.3) for text, in the light and in the dark."""
    waiting = signing(passkey, PAYLOAD)
    browser.media("prefers-color-scheme", scheme)
    browser.open(waiting.url)
    body = """
    const light = (rgb) => rgb.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
      .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const parts = (color) => color.match(/[0-9.]+/g).map(Number);
    const behind = (node) => {
      for (; node; node = node.parentElement) {
        const color = parts(getComputedStyle(node).backgroundColor);
        if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
      }
      return [255, 255, 255];
    };
    return [...document.querySelectorAll("h1, h2, dt, dd, p, button")].map((node) => {
      const [a, b] = [parts(getComputedStyle(node).color).slice(0, 3), behind(node)].map(light);
      return [node.textContent.slice(0, 30), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
    """
    found = browser.script(body)
    assert len(found) > 10
    assert [row for row in found if row[1] < 4.5] == []
    ground = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 23, 26)") == (scheme == "dark")
    browser.click("#decline")
    browser.media("prefers-color-scheme", "light")
    with pytest.raises(Stop, match="declined"):
        waiting.result()


def test_the_page_of_a_decline_says_what_each_button_does(browser: Browser, passkey: Passkey) -> None:
    """Not to sign a decline leaves the request open: no button may look as if it declined."""
    screen = dataclasses.replace(SCREEN, declines=True)
    waiting = signing(passkey, PAYLOAD, screen=screen)
    browser.open(waiting.url)
    assert [browser.text(one) for one in ("#sign", "#decline")] == ["Decline with passkey", "Don't sign"]
    browser.click("#decline")
    with pytest.raises(Stop, match="ada signed no decline; the request is as it was"):
        waiting.result()
    waiting = signing(passkey, PAYLOAD, screen=screen)
    assert "Done" in browser.sign(waiting.url)
    assert waiting.result()


def test_declining_signs_nothing(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD)
    browser.open(waiting.url)
    browser.click("#decline")
    with pytest.raises(Stop, match="ada declined; nothing was signed"):
        waiting.result()
    assert is_free(port_of(passkey))


# What it refuses


def test_a_user_who_is_not_verified_signs_nothing(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD)
    browser.verify_user(False)
    try:
        assert "did not sign" in browser.sign(waiting.url)
        assert waiting.waits
        # A page that asks for less gets an assertion from the authenticator; it is refused all the same.
        weak = browser.assertion(challenge(PAYLOAD), base64url(passkey.credential), "discouraged")
        status, said = post(browser, weak)
        assert (status, said["reason"], said["again"]) == (422, "user-verification-missing", True)
        assert waiting.waits
    finally:
        browser.verify_user(True)
    # The positive control: the same way, with a user who is verified.
    strong = browser.assertion(challenge(PAYLOAD), base64url(passkey.credential))
    assert post(browser, strong)[0] == 200
    assert waiting.result()


def test_an_answer_to_another_challenge_and_a_replayed_one_are_refused(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD, OTHER)
    browser.open(waiting.url)
    for wrong in (challenge(OTHER), base64url(bytes(32)), base64url(challenge_of(PAYLOAD))):
        answer = browser.assertion(wrong, base64url(passkey.credential))
        assert post(browser, answer)[1]["reason"] == "challenge-differs"
    good = browser.assertion(challenge(PAYLOAD), base64url(passkey.credential))
    status, said = post(browser, good)
    assert status == 200 and said["next"]
    first = waiting.url
    assert httpx.post(first, json=good, trust_env=False).status_code == 404
    browser.open(passkey.origin + said["next"])
    assert post(browser, good)[1]["reason"] == "challenge-differs"
    for broken, reason in (({}, "signature-malformed"), (good | {"more": 1}, "signature-malformed"),
                           (good | {"signature": "A"}, "base64"), (good, "challenge-differs")):  # fmt: skip
        assert post(browser, broken)[1]["reason"].startswith(reason)
    with pytest.raises(Stop):
        waiting.result()


def test_after_too_many_refused_answers_the_command_ends(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD)
    browser.open(waiting.url)
    said = [post(browser, {})[1]["again"] for _ in range(TRIES)]
    assert said == [True] * (TRIES - 1) + [False]
    with pytest.raises(Stop, match="signature-malformed"):
        waiting.result()


def test_an_assertion_made_at_another_origin_is_refused(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD)
    browser.open(waiting.url)
    secret = browser.script("return document.querySelector('main').dataset.secret")
    with elsewhere("<p>evil</p>") as evil:
        browser.open(f"http://localhost:{evil}/")
        stolen = browser.assertion(challenge(PAYLOAD), base64url(passkey.credential))
    headers = {"origin": passkey.origin, "ironbound-page": secret}
    answer = httpx.post(waiting.url, json=stolen, headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["reason"]) == (422, "origin-differs")
    httpx.post(waiting.url, json={"declined": True}, headers=headers, trust_env=False)
    with pytest.raises(Stop, match="declined"):
        waiting.result()


def test_a_page_opened_twice_is_shown_once(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD)
    thief = httpx.get(waiting.url, trust_env=False)
    assert thief.status_code == 200 and "Grant a capability" in thief.text
    browser.open(waiting.url)
    assert "opened already" in browser.text("body") and not browser.text("#sign")
    assert any("a second time" in line for line in waiting.told)
    secret = re.search(r'data-secret="([^"]+)"', thief.text)
    assert secret is not None
    headers = {"origin": passkey.origin, "ironbound-page": secret[1]}
    httpx.post(waiting.url, json={"declined": True}, headers=headers, trust_env=False)
    with pytest.raises(Stop):
        waiting.result()


def test_every_answer_forbids_caching_framing_and_foreign_code(plain_key: Passkey) -> None:
    waiting = signing(plain_key, PAYLOAD, patience_s=20)
    origin = plain_key.origin
    with httpx.Client(trust_env=False) as client:
        answers = [client.get(f"{origin}/"), client.put(waiting.url), client.get(waiting.url), client.get(waiting.url)]
    assert [one.status_code for one in answers] == [404, 405, 200, 410]
    for one in answers:
        policy = one.headers["content-security-policy"]
        assert one.headers["cache-control"] == "no-store" and one.headers["referrer-policy"] == "no-referrer"
        assert one.headers["x-frame-options"] == "DENY" and one.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert "server" not in one.headers
    page = answers[2].text
    assert not re.search(r"<[a-z]+[^>]*\s(?:src|href)=", page), "it loads something"
    decline(waiting, page, origin)


def decline(waiting: Waiting, page: str, origin: str) -> None:
    found = re.search(r'data-secret="([^"]+)"', page)
    assert found is not None
    httpx.post(waiting.url, json={"declined": True}, headers={"origin": origin, "ironbound-page": found[1]},
               trust_env=False)  # fmt: skip
    with pytest.raises(Stop, match="declined"):
        waiting.result()


def test_the_page_runs_no_script_but_its_own(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD)
    browser.open(waiting.url)
    with elsewhere("stolen") as evil:
        tried = browser.script(
            """
            const element = document.createElement("script");
            try { element.textContent = "window.escaped = 1"; document.body.append(element); } catch {}
            try { document.body.innerHTML += "<img src=x onerror='window.escaped = 2'>"; } catch {}
            const out = [window.escaped || 0];
            const body = document.createElement("form");
            return fetch(arguments[0]).then(() => [...out, "sent"], () => [...out, "blocked"]);
            """,
            f"http://localhost:{evil}/",
        )
    assert tried == [0, "blocked"]
    browser.click("#decline")
    with pytest.raises(Stop):
        waiting.result()


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"host": "evil.example"}, 421),
        ("GET", {"host": "127.0.0.1:{port}"}, 421),
        ("GET", {"host": "localhost"}, 421),
        ("GET", {"host": "localhost.evil.example:{port}"}, 421),
        ("GET", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", {"sec-fetch-site": "same-site"}, 403),
        ("GET", {"sec-fetch-dest": "iframe"}, 403),
        ("GET", {"sec-fetch-mode": "no-cors"}, 403),
        ("GET", {"sec-purpose": "prefetch;prerender"}, 403),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "http://127.0.0.1:{port}"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"origin": None}, 403),
        ("POST", {"sec-fetch-site": "same-site"}, 403),
        ("POST", {"ironbound-page": "x"}, 403),
        ("POST", {"ironbound-page": None}, 403),
        ("POST", {"content-type": "text/plain"}, 415),
        ("POST", {"host": "evil.example"}, 421),
        ("OPTIONS", {}, 405),
        ("HEAD", {}, 405),
    ],
)  # fmt: skip
def test_another_site_gets_no_page_and_answers_none(
    plain_key: Passkey, method: str, headers: dict[str, str | None], status: int
) -> None:
    waiting = signing(plain_key, PAYLOAD)
    page = httpx.get(waiting.url, trust_env=False) if method == "POST" else None
    found = re.search(r'data-secret="([^"]+)"', page.text) if page else None
    good: dict[str, str | None] = {"origin": plain_key.origin, "content-type": "application/json"}
    good["ironbound-page"] = found[1] if found else None
    sent = {name: value.replace("{port}", str(port_of(plain_key)))
            for name, value in (good | headers).items() if value is not None}  # fmt: skip
    content = b'{"declined":true}' if method == "POST" else None
    answer = httpx.request(method, waiting.url, headers=sent, content=content, trust_env=False)
    assert answer.status_code == status
    assert waiting.waits and "data-secret" not in answer.text
    decline(waiting, (page or httpx.get(waiting.url, trust_env=False)).text, plain_key.origin)


def test_an_answer_of_any_size_is_not_read(plain_key: Passkey) -> None:
    waiting = signing(plain_key, PAYLOAD)
    page = httpx.get(waiting.url, trust_env=False)
    found = re.search(r'data-secret="([^"]+)"', page.text)
    assert found is not None
    headers = {"origin": plain_key.origin, "ironbound-page": found[1], "content-type": "application/json"}
    answer = httpx.post(waiting.url, content=b" " * 40_000, headers=headers, trust_env=False)
    assert answer.status_code == 413
    for nonsense in (b"", b"[]", b'{"a":1,"a":2}', b"\xff", b'{"declined":1}'):
        answer = httpx.post(waiting.url, content=nonsense, headers=headers, trust_env=False)
        assert answer.status_code == 422
    with pytest.raises(Stop):
        waiting.result()


def test_a_name_that_somebody_else_makes_mean_this_machine_gets_nothing(
    driver: Driver, plain_key: Passkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding for real: in this browser evil.example is 127.0.0.1, and it knows the page's path."""
    monkeypatch.setattr(
        driving, "_ARGUMENTS", (*driving._ARGUMENTS, "--host-resolver-rules=MAP evil.example 127.0.0.1")
    )
    rebound = Browser(driver)
    try:
        waiting = signing(plain_key, PAYLOAD)
        for host in ("evil.example", "127.0.0.1", "evil.localhost"):
            rebound.open(waiting.url.replace("localhost", host))
            assert rebound.text("body").strip() == "this page is at localhost only"
        assert waiting.waits
        rebound.open(waiting.url)
        assert rebound.url == waiting.url and "Grant a capability" in rebound.text("body"), "the positive control"
        rebound.click("#decline")
        with pytest.raises(Stop, match="declined"):
            waiting.result()
    finally:
        rebound.close()


def test_a_real_site_in_the_same_browser_gets_nothing(browser: Browser, passkey: Passkey) -> None:
    waiting = signing(passkey, PAYLOAD)
    with elsewhere(f'<iframe src="{waiting.url}"></iframe>') as evil:
        browser.open(f"http://localhost:{evil}/")
        got = browser.script(
            """
            const [url] = arguments;
            return (async () => [
              await fetch(url).then((got) => got.text(), () => "blocked"),
              await fetch(url, {method: "POST", mode: "no-cors", body: '{"declined":true}'})
                .then(() => "sent", () => "blocked"),
            ])();
            """,
            waiting.url,
        )
    assert got[0] == "blocked"
    assert waiting.waits, "a blind POST of another site declined it"
    assert "Done" in browser.sign(waiting.url), "the other site's requests did not use the page up"
    assert waiting.result()


# A change of the people


def test_a_change_of_the_trust_root_shows_before_and_after_to_whoever_signs_it() -> None:
    """On the page and in the terminal: the rows are the same, and the whole new trust root alone nobody would read."""
    lab = Lab()
    lab.announce()
    lab.humans["eve"] = PrivateKey.generate(bytes(32))
    trust, root = lab.replay.trust, lab.next_root(operators=[lab.person(one) for one in ("ada", "bob", "eve")])
    request = lab.change(root)
    lab.now = time.time_ns() // 1_000_000
    lasting = lab.change(root, expires_ms=lab.now + 600_000)
    gone, come = (f"operator {name} key {lab.humans[name].public.keyid}: " for name in ("cy", "eve"))
    for screen in (
        request_screen(trust, request.payload, "ada"),
        approval_screen(trust, lasting, [], "bob", {}),
        decline_screen(trust, request, "bob"),
    ):
        changes = [row.value for row in screen.around if row.label == "changes"]
        assert screen.declines == (screen.signed[0].value.startswith("decline"))
        assert changes[-1] == "version: 1 → 2" and f"{gone}ed25519 → -" in changes and f"{come}- → ed25519" in changes
        assert f"changes        {gone}ed25519 → -\n" in screen.text
    for broken, says in (
        (lab.change(root, previous_sha256="0" * 64), "another trust root than the one in force here"),
        (lab.change({**root, "operators": 1}), "to what is no trust root"),
        (lab.change({}), "to what is no trust root"),
    ):
        (change,) = [row.value for row in decline_screen(trust, broken, "bob").around if row.label == "changes"]
        assert change.startswith(says)


# Enrolment


def test_a_passkey_whose_user_is_not_verified_is_not_enrolled(browser: Browser) -> None:
    (port,) = free_ports(1)
    making = Waiting(lambda tell: enrol("ada", "lab", port, tell))
    browser.verify_user(False)
    try:
        assert "did not sign" in browser.sign(making.url)
    finally:
        browser.verify_user(True)
    devices = {
        "challenge-differs": PasskeyDevice("ada", origin=f"http://localhost:{port}").registration(),
        "registration": {"id": "AA"},
    }
    for reason, registration in devices.items():
        answer = {"id": registration["id"], "response": registration.get("response", {})}
        assert post(browser, answer)[1]["reason"] == reason
    asked = json.loads(browser.script("return document.querySelector('main').dataset.options"))
    client = {"challenge": asked["challenge"], "type": "webauthn.create", "crossOrigin": False}
    unverified = PasskeyDevice("ada", origin=f"http://localhost:{port}", flags=0x01).registration()
    unverified["response"]["clientDataJSON"] = base64url(
        json.dumps(client | {"origin": f"http://localhost:{port}"}).encode()
    )
    assert post(browser, unverified)[1]["reason"] == "user-verification-missing"
    elsewhere_made = PasskeyDevice("ada", origin=f"http://localhost:{port + 1}").registration()
    elsewhere_made["response"]["clientDataJSON"] = base64url(
        json.dumps(client | {"origin": f"http://localhost:{port + 1}"}).encode()
    )
    assert post(browser, elsewhere_made)[1]["reason"] == "origin-differs"
    assert not post(browser, {})[1]["again"]
    with pytest.raises(Stop, match="registration"):
        making.result()


# Ends


def test_nobody_signs_in_time(plain_key: Passkey) -> None:
    waiting = signing(plain_key, PAYLOAD, patience_s=0.2)
    with pytest.raises(Stop, match="nothing was signed in 0 s"):
        waiting.result()
    assert is_free(port_of(plain_key))


def test_a_port_that_somebody_else_has_is_not_shared(plain_key: Passkey) -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as other:
            try:
                other.bind((host, port_of(plain_key)))
            except OSError:  # a machine without IPv6, where nobody can be on that half either
                assert family == socket.AF_INET6
                continue
            other.listen(1)
            with pytest.raises(Stop, match="is not free"):
                signing(plain_key, PAYLOAD).result()
    waiting = signing(plain_key, PAYLOAD)
    decline(waiting, httpx.get(waiting.url, trust_env=False).text, plain_key.origin)


@pytest.mark.parametrize("origin", ["https://approve.example", "https://localhost:8790", "http://localhost"])
def test_a_passkey_of_another_place_opens_no_page(origin: str) -> None:
    with pytest.raises(Stop, match="can't open a page"):
        PageServer(origin, print)


def test_ctrl_c_ends_page_and_command_and_leaves_nothing(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    words = ("operator", "passkey", "ada", "--deployment-id", DEPLOYMENT, "--key", f"passkey:{port}")
    words = (*COMMAND, *words, "--out", str(tmp_path / "ada.json"))
    command = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
    try:
        assert command.stderr is not None
        line = command.stderr.readline()
        assert f"open http://localhost:{port}/" in line and not is_free(port)
        path = line.strip().rpartition("/")[2]
        for place in ("cmdline", "environ"):  # what other users of the machine can read, or the same one's programs
            assert path.encode() not in Path(f"/proc/{command.pid}/{place}").read_bytes()
        os.kill(command.pid, signal.SIGINT)
        assert command.wait(30) == 130, "as a shell has it"
        rest = command.stderr.read()
        assert "Traceback" not in rest
    finally:
        command.kill()
        command.wait()
        if command.stderr is not None:
            command.stderr.close()
    assert is_free(port) and not (tmp_path / "ada.json").exists()


def test_the_driver_says_what_went_wrong(driver: Driver) -> None:
    with pytest.raises(Refused, match="invalid"):
        driver.call("GET", "/session/none/url")


class elsewhere:
    """Another site on this machine, at a port of its own: one page for every path."""

    def __init__(self, page: str) -> None:
        body = f"<!doctype html><title>x</title>{page}".encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._server.server_address[1])

    def __exit__(self, *ended: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
