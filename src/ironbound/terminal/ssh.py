"""An operator's SSH key, through `ssh-keygen -Y sign`, which asks for passphrase, PIN and touch.

Decides nothing; every signature is checked here as everybody else will check it, so that one without a touch is
noticed before it is sent.

Rule 1: no agent ever signs: what can reach an agent's socket could have anything signed. ssh-keygen isn't told of one.
Rule 2: a software key without a passphrase is not used.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ironbound.core.canonical import FormatError, b64decode
from ironbound.core.keys import SignatureInvalid
from ironbound.core.reasons import REASONS
from ironbound.core.sshsig import SshKey, verify_sshsig

from .voice import Stop

_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----\n"
_END: Final = "-----END SSH SIGNATURE-----\n"
#: Seconds in which a human has typed and touched.
PATIENCE_S: Final = 120.0
#: What would let ssh-keygen sign through somebody else.
_SCRUBBED: Final = ("SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE")


class SshSigner:
    """Signs with the private key (or the security key's handle) in `path`; `public` is what is enrolled of it.

    `passphrase`: of the file, or the security key's PIN; None: ssh-keygen asks at the terminal.
    """

    def __init__(self, path: Path, public: SshKey, passphrase: bytes | None) -> None:
        self.path, self.public, self._passphrase = path, public, passphrase

    def sign(self, message: bytes) -> bytes:
        """The SSHSIG blob over a message; Stop if ssh-keygen or its user declines."""
        if self.public.application is None and self._opens_without_passphrase():
            raise Stop(f"{self.path} has no passphrase", f"anybody can use it: ssh-keygen -p -f {self.path}")
        words = ["ssh-keygen", "-Y", "sign", "-q", "-f", str(self.path), "-n", self.public.namespace]
        with ExitStack() as stack:
            environment = _environment() | self._askpass(stack)
            try:
                done = subprocess.run(
                    words, input=message, stdout=subprocess.PIPE, env=environment, timeout=PATIENCE_S, check=False
                )
            except FileNotFoundError:
                raise Stop("ssh-keygen is not installed", "Debian: apt-get install openssh-client") from None
            except subprocess.TimeoutExpired:
                raise Stop(f"{self.path}: nothing was signed in {PATIENCE_S:.0f} s") from None
        if done.returncode:
            raise Stop(f"{self.path}: ssh-keygen did not sign", "is the passphrase right, and the security key there?")
        try:
            signature = _unarmoured(done.stdout)
            verify_sshsig(self.public, signature, message)
        except (FormatError, UnicodeDecodeError) as error:
            raise Stop(f"{self.path}: ssh-keygen's answer is no signature: {error}") from error
        except SignatureInvalid as error:
            raise Stop(f"{self.path}: {error.code}: {error}", REASONS[error.code]) from error
        return signature

    def _opens_without_passphrase(self) -> bool:
        if not self.path.is_file():
            raise Stop(f"{self.path} is no private key's file", "keys in an agent are not used")
        words = ["ssh-keygen", "-y", "-P", "", "-f", str(self.path)]
        try:
            done = subprocess.run(words, env=_environment(), capture_output=True, timeout=PATIENCE_S, check=False)
        except FileNotFoundError:
            raise Stop("ssh-keygen is not installed", "Debian: apt-get install openssh-client") from None
        return done.returncode == 0

    def _askpass(self, stack: ExitStack) -> dict[str, str]:
        """Variables that make ssh-keygen take the passphrase from our memory; it is never on disk."""
        if self._passphrase is None:
            return {}
        descriptor = os.memfd_create("passphrase")
        stack.callback(os.close, descriptor)
        os.write(descriptor, self._passphrase + b"\n")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ironbound-")))
        script = folder / "askpass"
        script.write_text(f"#!/bin/sh\nexec cat /proc/{os.getpid()}/fd/{descriptor}\n", "utf-8")
        script.chmod(0o700)
        return {"SSH_ASKPASS": str(script), "SSH_ASKPASS_REQUIRE": "force"}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _SCRUBBED}


def _unarmoured(data: bytes) -> bytes:
    text = data.decode("ascii")
    if not (text.startswith(_BEGIN) and text.endswith(_END)):
        raise FormatError("ssh-blob", "no armoured signature")
    return b64decode(text[len(_BEGIN) : -len(_END)].replace("\n", ""))
