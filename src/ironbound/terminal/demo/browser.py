"""A headless Chromium with a passkey in software, by the WebDriver protocol and its WebAuthn extension.

For the demo and the tests, where nobody is there to touch an authenticator; no command signs through it. Source:
WebDriver (W3C), WebAuthn level 3 §11. The browser visits our own pages only, so it runs without its own sandbox, which
root can't have and a container often lacks.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx

from ironbound.core.canonical import FormatError, parse_json
from ironbound.terminal.voice import Stop

WAIT_S: Final = 60.0
_STARTED: Final = re.compile(r"started successfully on port ([0-9]+)")
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"
_ARGUMENTS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,1100",
)


#: What a page other than ours could ask of a passkey.
_ASSERT: Final = """
const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (b) => btoa(String.fromCharCode(...new Uint8Array(b)))
  .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const [challenge, credential, verification] = arguments;
return navigator.credentials.get({publicKey: {challenge: bytes(challenge), rpId: "localhost",
  allowCredentials: [{type: "public-key", id: bytes(credential)}], userVerification: verification}})
  .then((got) => ({authenticatorData: text(got.response.authenticatorData),
                   clientDataJSON: text(got.response.clientDataJSON), signature: text(got.response.signature)}));
"""


class Refused(Exception):
    """The driver refused; the text is its error's code and message."""


class Driver:
    """A chromedriver process with a home of its own. Stop if the machine has none."""

    def __init__(self) -> None:
        binary = shutil.which("chromedriver")
        if binary is None or shutil.which("chromium") is None:
            raise Stop(
                "no Chromium with its driver on this machine", "Debian: apt-get install chromium chromium-driver"
            )
        self._home = tempfile.mkdtemp(prefix="ironbound-browser-")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        with open(Path(self._home) / "driver.log", "w+b") as output:
            self._process = subprocess.Popen(
                [binary, "--port=0"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment | {"HOME": self._home, "TMPDIR": self._home},
                start_new_session=True,
            )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self._port()}", timeout=WAIT_S, trust_env=False)

    def _port(self) -> int:
        deadline = time.monotonic() + WAIT_S
        log = Path(self._home) / "driver.log"
        while self._process.poll() is None and time.monotonic() < deadline:
            found = _STARTED.search(log.read_text("utf-8", errors="replace"))
            if found:
                return int(found[1])
            time.sleep(0.02)
        said = log.read_text("utf-8", errors="replace").strip().splitlines()
        self.close()
        raise Stop(f"chromedriver did not start: {said[-1] if said else 'it said nothing'}")

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One WebDriver command: its value, or Refused."""
        answer = self._client.request(method, path, json=dict(body or {}) if method == "POST" else None)
        try:
            value = parse_json(answer.content, limit=32 << 20, depth=16)
        except FormatError as error:
            raise Refused(f"malformed: {error}") from None
        value = value.get("value") if type(value) is dict else None
        if answer.status_code != 200:
            said = value if type(value) is dict else {}
            raise Refused(f"{said.get('error')}: {str(said.get('message'))[:300]}")
        return value

    def close(self) -> None:
        """End the driver, its browsers, and their home."""
        if hasattr(self, "_client"):
            self._client.close()
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Browser:
    """One person's browser: a session of the driver, and one authenticator.

    `verifies`: the authenticator can verify its user (PIN, fingerprint), and does.
    """

    def __init__(self, driver: Driver, verifies: bool = True) -> None:
        self._driver = driver
        options = {"binary": shutil.which("chromium"), "args": list(_ARGUMENTS)}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        made = driver.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"
        device = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": False,
            "hasUserVerification": verifies,
            "isUserConsenting": True,
            "isUserVerified": verifies,
        }
        self._authenticator = f"/webauthn/authenticator/{self._call('POST', '/webauthn/authenticator', device)}"

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._driver.call(method, f"{self._session}{path}", body)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self._call("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        """Where the browser is."""
        return str(self._call("GET", "/url"))

    def text(self, selector: str) -> str:
        """What is read at the first element that the CSS selector finds."""
        return str(
            self.script(
                "const found = document.querySelector(arguments[0]); return found ? found.innerText : ''", selector
            )
        )

    def click(self, selector: str) -> None:
        """Click as a mouse does, which is the gesture that browsers want before a passkey is used."""
        self._call("POST", f"{self._element(selector)}/click")

    def fill(self, selector: str, text: str) -> None:
        """Type into a field."""
        self._call("POST", f"{self._element(selector)}/value", {"text": text})

    def _element(self, selector: str) -> str:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{found[_ELEMENT]}"

    def press(self, keys: str) -> None:
        """Type into what has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def script(self, body: str, *arguments: Any) -> Any:
        """Run a function body in the page; its result, promises waited for."""
        return self._call("POST", "/execute/sync", {"script": body, "args": list(arguments)})

    def assertion(self, challenge: str, credential: str, verification: str = "required") -> dict[str, str]:
        """What the passkey says to a challenge, at the page where the browser is; base64url all of it."""
        found: dict[str, str] = self.script(_ASSERT, challenge, credential, verification)
        return found

    def verify_user(self, verified: bool) -> None:
        """Whether the authenticator's next user verification succeeds."""
        self._call("POST", f"{self._authenticator}/uv", {"isUserVerified": verified})

    def credentials(self) -> list[dict[str, Any]]:
        """What the authenticator holds."""
        return list(self._call("GET", f"{self._authenticator}/credentials"))

    def media(self, name: str, value: str) -> None:
        """Let a media feature such as prefers-color-scheme have a value."""
        features = {"features": [{"name": name, "value": value}]}
        self._call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": features})

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of everything that a screen reader is told of."""
        nodes = self._call("POST", "/goog/cdp/execute", {"cmd": "Accessibility.getFullAXTree", "params": {}})["nodes"]
        return [
            (str(node["role"]["value"]), str(node.get("name", {}).get("value", "")))
            for node in nodes
            if not node.get("ignored")
        ]

    def screenshot(self) -> str:
        """What is seen, as a PNG in base64."""
        return str(self._call("GET", "/screenshot"))

    def close(self) -> None:
        """End the session."""
        self._call("DELETE", "")

    def sign(self, url: str) -> str:
        """Open a page and sign on it, and on those that follow; what the last one said, or Refused."""
        self.open(url)
        self.finish()
        return self.text("#status")

    def finish(self, reads: str = "", seen: list[str] | None = None) -> str:
        """Sign on the page that is open, and on those that follow: the mood of the end, or `failed`; else Refused.

        What is read at `reads` on each page, before it is signed, goes into `seen`.
        """
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            ended, failed, ready, words = self.script(
                "const sign = document.querySelector('#sign'), data = document.body.dataset;"
                "const read = arguments[0] && document.querySelector(arguments[0]);"
                "return [data.ended || null, data.failed || null, !!sign && !sign.disabled, read && read.innerText]",
                reads,
            )
            if ended or failed:
                return str(ended or "failed")
            if ready:
                if seen is not None and words:
                    seen.append(words)
                self.click("#sign")
            time.sleep(0.01)
        raise Refused(f"the page did not end: {self.text('body')[:300]}")
