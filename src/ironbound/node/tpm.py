"""A small client for a TPM 2.0: measures a launch into PCR 14, and has the TPM quote it with the enrolled key.

Decides nothing: what a quote proves, `core.tpm` and the verifier decide. It sends six commands and takes their
answers strictly. Follows TPM 2.0 Library, part 3 (commands): 12.4, 18.4, 22.2, 22.4, 24.1, 28.5.

An address is `swtpm:PATH`, the Unix socket of a software TPM's data channel, or the path of a TPM's device, whose
resource manager (`/dev/tpmrm0`) lets others use the TPM too.

Rule 1: measuring and quoting are one step: nobody in this process extends in between.
Rule 2: an error of the TPM ends the step; there is no going on without a quote where a key is enrolled.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, b64encode
from ironbound.core.tpm import PCR, name_of, parse_public

#: Where the attestation key is kept in the TPM: a persistent handle of the owner's hierarchy.
KEY_HANDLE: Final = 0x8101_4B14
#: Seconds that a command may take; a hardware TPM makes a key in a few.
TIMEOUT_S: Final = 60.0
MAX_ANSWER: Final = 4096
RETRIES: Final = 100
RETRY_S: Final = 0.02

_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_OWNER: Final = 0x4000_0001
_EVICT, _CREATE_PRIMARY, _QUOTE, _FLUSH, _READ_PUBLIC, _PCR_READ, _PCR_EXTEND = (
    0x120, 0x131, 0x158, 0x165, 0x173, 0x17E, 0x182,
)  # fmt: skip
_HANDLE_EMPTY: Final = 0x18B
#: The TPM has not begun the command (yielded, testing, retry): the same bytes are sent again.
_NOT_BEGUN: Final = frozenset((0x908, 0x90A, 0x922))
#: The empty password, as one session.
_PASSWORD: Final = bytes.fromhex("00000009 40000009 0000 01 0000")
_SELECTION: Final = bytes.fromhex("00000001 000b 03") + (1 << PCR).to_bytes(3, "little")
#: A restricted ECDSA key on P-256 with SHA-256, fixed to this TPM.
_TEMPLATE: Final = bytes.fromhex("0023 000b 00050072 0000 0010 0018 000b 0003 0010 0000 0000")


class TpmError(Exception):
    """The TPM can't be reached, refuses a command, or answers what no TPM answers."""


class TpmRefused(TpmError):
    """The TPM's own error; `code` is its response code."""

    def __init__(self, command: int, code: int) -> None:
        super().__init__(f"the TPM refuses command {command:#x}: response code {code:#x}")
        self.code = code


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


class _Answer:
    """A cursor over an answer's bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise TpmError("the TPM's answer ends within a field")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)


class Tpm:
    """One TPM at an address, used by one process; its methods block, and take their turns."""

    def __init__(self, address: str) -> None:
        self._turn = threading.RLock()
        path = address.removeprefix("swtpm:")
        self._socket: socket.socket | None = None
        try:
            if path != address:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.settimeout(TIMEOUT_S)
                self._socket.connect(path)
                self._device = self._socket.fileno()
            else:
                self._device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise TpmError(f"{address}: {error.strerror or error}") from error

    def close(self) -> None:
        """Let go of the TPM."""
        if self._socket is not None:
            self._socket.close()
        elif hasattr(self, "_device"):
            os.close(self._device)

    def enrolment(self, root: str) -> dict[str, str]:
        """The attestation key as the trust root holds it; made and kept in the TPM if it has none yet.

        `root` says whether the TPM is `hardware` or `software`.
        """
        with self._turn:
            try:
                public, name = self._read_public()
            except TpmRefused as error:
                if error.code != _HANDLE_EMPTY:
                    raise
                self._make_key()
                public, name = self._read_public()
        return {"root": root, "public": b64encode(public), "qualified_name": name.hex()}

    def quote(self, measurement: Digest, expected: bytes) -> dict[str, Any]:
        """Extend PCR 14 with the measurement and quote it for `expected`; as a statement carries it."""
        with self._turn:
            before = self._pcr()
            digest = bytes.fromhex(measurement)
            self._command(_PCR_EXTEND, _number(PCR), _number(1) + b"\x00\x0b" + digest, _PASSWORD)
            parameters = _sized(expected) + b"\x00\x10" + _SELECTION
            answer = self._command(_QUOTE, _number(KEY_HANDLE), parameters, _PASSWORD)
        said = _Answer(answer.take(answer.number(4)))
        attest = said.sized()
        return {"attest": b64encode(attest), "signature": b64encode(said.rest()), "before": before.hex()}

    def _read_public(self) -> tuple[bytes, bytes]:
        """The key's public area and its qualified name."""
        answer = self._command(_READ_PUBLIC, _number(KEY_HANDLE))
        public, name, qualified = answer.sized(), answer.sized(), answer.sized()
        try:
            parse_public(public)
        except FormatError as error:
            raise TpmError(f"what lies at handle {KEY_HANDLE:#x} is no attestation key: {error}") from error
        if name != name_of(public):
            raise TpmError("the TPM gives its key another name than the one that follows from it")
        return public, qualified

    def _make_key(self) -> None:
        parameters = _sized(bytes(4)) + _sized(_TEMPLATE) + bytes(2) + bytes(4)
        handle = self._command(_CREATE_PRIMARY, _number(_OWNER), parameters, _PASSWORD).take(4)
        try:
            self._command(_EVICT, _number(_OWNER) + handle, _number(KEY_HANDLE), _PASSWORD)
        finally:
            self._command(_FLUSH, b"", handle)

    def _pcr(self) -> bytes:
        answer = self._command(_PCR_READ, b"", _SELECTION)
        answer.take(4)  # how often any register was changed
        if answer.take(len(_SELECTION)) != _SELECTION or answer.number(4) != 1:
            raise TpmError(f"the TPM has no SHA-256 bank with PCR {PCR}")
        return answer.sized()

    def _command(self, code: int, handles: bytes, parameters: bytes = b"", session: bytes = b"") -> _Answer:
        body = handles + session + parameters
        tag = _SESSIONS if session else _NO_SESSIONS
        message = tag.to_bytes(2, "big") + _number(10 + len(body)) + _number(code) + body
        for _ in range(RETRIES):
            try:
                self._send(message)
                data = self._receive()
            except OSError as error:
                raise TpmError(f"the TPM: {error.strerror or error}") from error
            result = int.from_bytes(data[6:10], "big")
            if not result:
                return _Answer(data[10:])
            if result not in _NOT_BEGUN:
                raise TpmRefused(code, result)
            time.sleep(RETRY_S)
        raise TpmRefused(code, result)

    def _send(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket.sendall(data)
        elif os.write(self._device, data) != len(data):  # a device takes a command in one write
            raise TpmError("the TPM took only a part of a command")

    def _receive(self) -> bytes:
        if self._socket is None:
            data = os.read(self._device, MAX_ANSWER)
        else:
            data = self._exactly(10)
            data += self._exactly(min(MAX_ANSWER, int.from_bytes(data[2:6], "big")) - 10)
        if len(data) < 10 or int.from_bytes(data[2:6], "big") != len(data):
            raise TpmError("the TPM's answer has another length than it says")
        return data

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size and self._socket is not None:
            part = self._socket.recv(size - len(data))
            if not part:
                raise TpmError("the TPM closed the connection")
            data += part
        return data
