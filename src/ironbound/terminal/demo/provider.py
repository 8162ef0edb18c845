"""A real identity provider for the demo and the tests: npm's `oidc-provider` on loopback, installed by its lock file.

Belongs to the demo; the product never starts it. Everybody's password is told to it at its start.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import base64url
from ironbound.core.keys import PrivateKey
from ironbound.terminal.voice import Stop

#: Seconds in which npm has fetched and unpacked a hundred small packages, on a busy machine too.
INSTALL_S: Final = 240
NEEDED: Final = ("node", "npm")
FILES: Final = ("package.json", "package-lock.json", "provider.mjs")


def missing() -> list[str]:
    """The programs that this machine lacks for a provider."""
    return [one for one in NEEDED if shutil.which(one) is None]


def install(place: Path) -> Path:
    """The provider with its packages in `place`, which is made, and nothing outside. Stop if it can't be had."""
    lacking = missing()
    if lacking:
        raise Stop(f"this machine lacks {' and '.join(lacking)}", "Debian: apt-get install nodejs npm")
    place.mkdir(parents=True, exist_ok=True)
    source = resources.files("ironbound.terminal.demo") / "oidc"
    for file in FILES:
        (place / file).write_bytes((source / file).read_bytes())
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(place / "cache")]
    try:
        done = subprocess.run(
            words, cwd=place, capture_output=True, text=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise Stop(f"npm could not install oidc-provider in {INSTALL_S} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise Stop(f"npm could not install oidc-provider: {' '.join(said)[:300]}", "is a registry reached from here?")
    return place


class IdentityProvider:
    """One provider, installed in `place`. Its port stays the same over restarts, so its issuer does.

    `keys`: private JWKs, the first of which signs; `accounts`: names and their passwords.
    """

    client = "ironbound"
    acr = "urn:ironbound:demo:phishing-resistant"
    clients: tuple[str, ...] = (client,)

    def __init__(
        self, place: Path, accounts: Mapping[str, str], keys: Sequence[Mapping[str, Any]] = (), token_s: int = 3600
    ) -> None:
        self.place, self.accounts, self.token_s = place, dict(accounts), token_s
        self.jwks = list(keys) or [_drawn_key()]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[str] | None = None

    @property
    def issuer(self) -> str:
        """The URL that its tokens name."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self) -> None:
        """Serve until `stop`, or until this process ends. Stop if it does not start."""
        settings: dict[str, Any] = {
            "port": self.port,
            "jwks": {"keys": self.jwks},
            "accounts": self.accounts,
            "acr": self.acr,
            "clients": list(self.clients),
            "token_s": self.token_s,
        }
        with open(self.place / f"{self.port}.log", "a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                ["node", "provider.mjs"], cwd=self.place, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        said = ""
        if self._process.stdin is not None and self._process.stdout is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps(settings) + "\n")
                self._process.stdin.flush()
            said = self._process.stdout.readline()
        if said != "ready\n":
            self.stop()
            tail = (self.place / f"{self.port}.log").read_text("utf-8", errors="replace")[-600:]
            raise Stop(f"oidc-provider did not start: {tail.strip() or 'it said nothing'}")

    def stop(self) -> None:
        """End it; it ends with its input."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _drawn_key() -> dict[str, str]:
    secret = os.urandom(32)
    public = PrivateKey.generate(secret).public.raw
    named = {"kty": "OKP", "crv": "Ed25519", "x": base64url(public), "d": base64url(secret)}
    return {"kid": "first", "use": "sig", "alg": "EdDSA", **named}
