"""The operator's side: builds a request from what the log says now, shows it, signs it, submits it.

Decides nothing: the operator does, by signing what `core.shown` says of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx

from ironbound.core.canonical import Digest, FormatError, Value, b64decode, b64encode, canonical, parse_json
from ironbound.core.envelope import Envelope, SigningKey, envelope_from_value, sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.oidc import Identity, IssuerKeys
from ironbound.core.reasons import REASONS
from ironbound.core.replay import Entry, Replay
from ironbound.core.request import encode_approval, encode_decline, encode_request, head_of
from ironbound.core.scheme import is_device
from ironbound.core.sshsig import SshKey
from ironbound.core.statement import parse_statement
from ironbound.core.trust import TrustRoot
from ironbound.core.webauthn import Passkey
from ironbound.wire.deployment import Deployment, DeploymentError, parse_address, read_file
from ironbound.wire.log import Log, LogBroken, LogUnavailable, fresh_id, now_ms

from .approval.signer import PageSigner, facing, page_signer
from .certificate import pinned_context
from .consent import Screen, approval_screen, decline_screen, request_screen
from .enrol import enrolled, is_passkey
from .login import Login, WithLogin, in_browser, keys_of
from .ssh import SshSigner
from .voice import Stop, note, passphrases

#: How long a request can be approved and submitted, unless the operator says otherwise.
REQUEST_LIFE_MS: Final = 15 * 60_000
MAX_SUBMISSION_FILE: Final = 96 << 20
CONTROLLER_TIMEOUT_S: Final = 60.0
#: Seconds that a ledger has to answer at all (it may be starting anew), and to hand out the whole log.
ANSWER_S: Final = 4.0
FOLD_TIMEOUT_S: Final = 300.0
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Submission:
    """A signed request with its approvals and the bytes that it names."""

    request: Envelope
    approvals: tuple[Envelope, ...]
    artifacts: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The form in which it is sent, and kept in a file between two operators."""
        value: Value = {
            "request": self.request.as_value(),
            "approvals": [one.as_value() for one in self.approvals],
            "artifacts": [b64encode(data) for data in self.artifacts],
        }
        return canonical(value)


async def folded(deployment: Deployment, listener: Callable[[Entry], None] | None = None) -> Log:
    """The whole log, followed and folded, each entry shown to `listener`; the caller closes it."""
    log = Log(deployment, None)
    if listener is not None:
        log.listen(listener)
    try:
        await log.start(timeout_s=FOLD_TIMEOUT_S, answer_s=ANSWER_S)
    except (LogUnavailable, LogBroken) as error:
        await log.close()
        raise Stop(str(error), f"start the services: `ironbound up -d {deployment.root}`") from error
    return log


def replayed(deployment: Deployment, listener: Callable[[Entry], None] | None = None) -> Replay:
    """The state that the log says, now; each entry is shown to `listener`."""

    async def fold() -> Replay:
        log = await folded(deployment, listener)
        await log.close()
        return log.replay

    return asyncio.run(fold())


@dataclass(frozen=True, slots=True)
class Signer:
    """An operator and what they sign with."""

    name: str
    key: SigningKey


def current(deployment: Deployment, replay: Replay) -> Deployment:
    """The deployment with the trust root that is in force now; whoever holds a key of it, also a sealed one, signs."""
    trust = replay.trust
    return replace(deployment, trust=replace(trust, humans={**trust.sealed, **trust.humans}))


def load_keys(
    deployment: Deployment, folder: Path, words: Sequence[str], descriptor: int | None, logins: Sequence[str] = ()
) -> list[Signer]:
    """What the operators sign with.

    `NAME` is the key file of that name in `folder`, `NAME=passkey` the passkey that the trust root enrols (with
    `:KEYID`, or its beginning, if there are several), `NAME=FILE` an SSH private key.
    Passphrases are lines of the descriptor, one for each operator without a passkey; without it we ask, or ssh-keygen
    does.
    `logins`: who logs in at their identity provider as well, each as `NAME` or `NAME=PORT`.
    """
    named = [(name, path) for name, _, path in (word.partition("=") for word in words)]
    files: dict[str, bytes] = {}
    for name, path in named:
        if path:
            continue
        try:
            files[name] = read_file(folder / f"{name}.key")
        except DeploymentError as error:
            raise Stop(
                f"operator {name}: {error}", "give the folder with --keys, or an SSH key with --sign NAME=FILE"
            ) from error
    asked = [name for name, path in named if not path or (descriptor is not None and not is_passkey(path))]
    phrases = dict(zip(asked, passphrases(descriptor, asked), strict=True)) if asked else {}
    keys: list[SigningKey] = []
    for name, path in named:
        if is_passkey(path):
            keys.append(_passkey(deployment, name, path))
        elif path:
            keys.append(_ssh_key(deployment, name, Path(path), phrases.get(name)))
        else:
            try:
                keys.append(PrivateKey.from_pem(files[name], phrases[name]))
            except FormatError as error:
                raise Stop(
                    f"operator {name}: the key does not open ({error.code})", "is the passphrase right?"
                ) from error
    names = [name for name, _ in named]
    both = with_logins(deployment.trust, names, keys, logins)
    return [Signer(name, key) for name, key in zip(names, both, strict=True)]


def with_logins(
    trust: TrustRoot, names: Sequence[str], keys: Sequence[SigningKey], logins: Sequence[str]
) -> list[SigningKey]:
    """The operators' keys, each with the login of those who log in too. Stop if somebody has nothing to log in with."""
    ports = {name: port for name, _, port in (word.partition("=") for word in logins)}
    for name, port in ports.items():
        if name not in names:
            raise Stop(f"{name} logs in and does not sign", f"an identity counts beside a key: --sign {name}=FILE")
        if port and not (port.isdecimal() and 1024 <= int(port) < 65536):
            raise Stop(f"{name}={port}: no port from 1024 to 65535", f"write --login {name}, or --login {name}=8765")
    return [
        WithLogin(key, _login(trust, name, key, int(ports[name] or 0))) if name in ports else key
        for name, key in zip(names, keys, strict=True)
    ]


def _login(trust: TrustRoot, name: str, key: SigningKey, port: int) -> Login:
    found = [one for keyid, one in trust.keys.items() if trust.humans.get(keyid) == name and isinstance(one, Identity)]
    if len(found) != 1:
        raise Stop(f"operator {name} has {len(found) or 'no'} identities in the trust root", "see `init --identity`")
    if not is_device(key.public):
        raise Stop(f"operator {name}: {REASONS['identity-alone']}", f"name the security key's file: --sign {name}=FILE")
    return Login(name, found[0], in_browser, port)


def _passkey(deployment: Deployment, name: str, word: str) -> PageSigner:
    """The one passkey of an operator that the word names."""
    beginning = word.partition(":")[2]
    keys: list[Passkey] = []
    for trust in _trust_roots(deployment):
        people = {**trust.sealed, **trust.humans}
        keys = [key for keyid, key in trust.keys.items() if people.get(keyid) == name and isinstance(key, Passkey)]
        if keys:
            break
    found = [key for key in keys if key.keyid.startswith(beginning)]
    if not found:
        raise Stop(f"operator {name} has no {'such ' if keys else ''}passkey in the trust root")
    if len(found) > 1:
        raise Stop(
            f"operator {name} has {len(found)} passkeys in the trust root",
            "name one by the beginning of its id: " + " or ".join(f"{name}=passkey:{key.keyid[:8]}" for key in found),
        )
    return page_signer(name, found[0], note)


def _ssh_key(deployment: Deployment, name: str, path: Path, passphrase: bytes | None) -> SshSigner:
    """The SSH key in a file, as the trust root enrols it for this human: the one given, or the one in force now."""
    public = enrolled(f"{path}.pub", deployment.trust.deployment)
    for trust in _trust_roots(deployment):
        found = trust.keys.get(public.keyid)
        if isinstance(found, SshKey) and {**trust.sealed, **trust.humans}.get(found.keyid) == name:
            return SshSigner(path, found, passphrase)
    raise Stop(f"{path}.pub is not a key of operator {name} in the trust root", "`ironbound roster` shows whose is")


def _trust_roots(deployment: Deployment) -> Iterator[TrustRoot]:
    yield deployment.trust
    with suppress(Stop):  # on another machine there is no log to ask
        yield replayed(deployment).trust


def build(
    replay: Replay,
    kind: str,
    *,
    agent: str | None = None,
    module: Digest | None = None,
    config: Digest | None = None,
    body: Mapping[str, Any] | None = None,
    ticket: str = "",
    life_ms: int = REQUEST_LIFE_MS,
) -> bytes:
    """A request's payload over the log as it is now. FormatError if it is not of its kind's shape."""
    request_id = fresh_id()
    before = replay.holds(agent) if agent else []
    after = before
    if kind == "grant":
        after = sorted([*before, request_id])
    elif kind == "revocation" and body is not None:
        after = [one for one in before if one != body["grant"]]
    now = now_ms()
    return encode_request(
        kind,
        {
            "version": 1,
            "deployment": replay.trust.deployment,
            "id": request_id,
            "agent": agent,
            "module_sha256": module,
            "config_sha256": config,
            "capability": {"before": before, "after": after},
            "not_before_ms": now,
            "expires_ms": now + life_ms,
            "log_head": head_of(replay.size, replay.tree.root()),
            "proposal": None,
            "ticket": ticket,
            "body": dict(body or {}),
        },
    )


def lasting(payload: bytes, life_ms: int) -> bytes:
    """The same request, valid for so long."""
    statement = parse_statement(payload)
    asked = statement.predicate
    return encode_request(statement.kind, {**asked, "expires_ms": asked["not_before_ms"] + life_ms})


def approve(request: Envelope, deployment: str, key: SigningKey) -> Envelope:
    """Another operator's approval of this very content."""
    expires = parse_statement(request.payload).predicate["expires_ms"]
    payload = encode_approval(request, deployment=deployment, approval_id=fresh_id(), expires_ms=expires)
    return sign_envelope(payload, keys_of(key))


def decline(deployment: Deployment, request: Envelope, signer: Signer, tell: Callable[[Screen], None]) -> Envelope:
    """An operator's decline of this very content; `tell` shows the screen before it is signed."""
    expires = parse_statement(request.payload).predicate["expires_ms"]
    name = deployment.trust.deployment
    payload = encode_decline(request, deployment=name, decline_id=fresh_id(), expires_ms=expires)
    screen = decline_screen(deployment.trust, request, signer.name)
    with closing_page(signer):
        tell(screen)
        return sign_envelope(payload, keys_of(facing(signer.key, screen, False)))


def sign(payload: bytes, deployment: str, keys: Sequence[SigningKey], artifacts: Sequence[bytes]) -> Submission:
    """Signed by the first key as initiator, approved by the others."""
    request = sign_envelope(payload, keys_of(keys[0]))
    approvals = tuple(approve(request, deployment, key) for key in keys[1:])
    return Submission(request, approvals, tuple(artifacts))


def collect(
    deployment: Deployment,
    payloads: Sequence[tuple[bytes, Sequence[bytes]]],
    signers: Sequence[Signer],
    tell: Callable[[Screen], None],
    issuers: Mapping[str, IssuerKeys] | None,
) -> list[Submission]:
    """Each payload with its artifacts, signed by the first as initiator and approved by the others.

    One human after the other, each for all payloads; `tell` shows each screen before it is signed. `issuers`: the
    identity providers' keys, as the log has them; None where the log is not here.
    """
    trust, asks = deployment.trust, signers[0]
    requests: list[Envelope] = []
    with closing_page(asks):
        for at, (payload, _) in enumerate(payloads, 1):
            screen = request_screen(trust, payload, asks.name)
            tell(screen)
            requests.append(sign_envelope(payload, keys_of(facing(asks.key, screen, at < len(payloads)))))
    approvals = collect_approvals(deployment, [(request, ()) for request in requests], signers[1:], tell, issuers)
    return [
        Submission(request, tuple(others), tuple(artifacts))
        for request, others, (_, artifacts) in zip(requests, approvals, payloads, strict=True)
    ]


def collect_approvals(
    deployment: Deployment,
    requests: Sequence[tuple[Envelope, Sequence[Envelope]]],
    signers: Sequence[Signer],
    tell: Callable[[Screen], None],
    issuers: Mapping[str, IssuerKeys] | None,
) -> list[list[Envelope]]:
    """The approvals of each request, those that it has first."""
    trust = deployment.trust
    collected = [list(approvals) for _, approvals in requests]
    for signer in signers:
        with closing_page(signer):
            for at, (request, _) in enumerate(requests):
                screen = approval_screen(trust, request, collected[at], signer.name, issuers)
                tell(screen)
                key = facing(signer.key, screen, at + 1 < len(requests))
                collected[at].append(approve(request, trust.deployment, key))
    return collected


@contextmanager
def closing_page(signer: Signer) -> Iterator[None]:
    """Ends the signer's page, if they have one, when they are done: the next one's may be at the same port."""
    try:
        yield
    finally:
        for key in keys_of(signer.key):
            if isinstance(key, PageSigner):
                key.close()


def read_submission(path: Path) -> Submission:
    """A submission kept in a file; Stop if it isn't one."""
    try:
        value = parse_json(read_file(path, MAX_SUBMISSION_FILE), limit=MAX_SUBMISSION_FILE, depth=16)
        if type(value) is not dict or value.keys() != {"request", "approvals", "artifacts"}:
            raise FormatError("submission-malformed", "expected request, approvals and artifacts")
        approvals, artifacts = value["approvals"], value["artifacts"]
        if type(approvals) is not list or type(artifacts) is not list:
            raise FormatError("submission-malformed", "approvals and artifacts are lists")
        return Submission(
            envelope_from_value(value["request"]),
            tuple(envelope_from_value(one) for one in approvals),
            tuple(b64decode(str(one)) for one in artifacts),
        )
    except (FormatError, DeploymentError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise Stop(f"{path}: {why}", "it should be a file written by `--out`") from error


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a controller is asked: a deployment's Unix socket, or an address with the certificate that it must show."""

    transport: httpx.HTTPTransport
    url: str
    hint: str


def local_channel(deployment: Deployment) -> Channel:
    """The Unix socket of a deployment on this machine."""
    transport = httpx.HTTPTransport(uds=deployment.socket("controller"))
    return Channel(transport, "http://controller", f"`ironbound up -d {deployment.root}`")


def pinned_channel(address: str, certificate: Path) -> Channel:
    """An address such as 127.0.0.1:8443, where only the controller with this very certificate is spoken to."""
    host, port = parse_address(address)
    try:
        context = pinned_context(read_file(certificate))
    except ValueError as error:
        raise Stop(f"{certificate} is no certificate", "it is the deployment's operator-channel.crt") from error
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Channel(httpx.HTTPTransport(verify=context), f"https://{where}", "is it the controller's certificate?")


def submit(deployment: Deployment, submission: Submission) -> dict[str, Any]:
    """Send it to the controller. The index at which it was admitted, or Stop with the reason."""
    return send(local_channel(deployment), submission.encode())


def send(channel: Channel, body: bytes) -> dict[str, Any]:
    """Send a submission to the operator channel; Stop with the reason code if it is refused."""
    return ask(channel, "POST", "/requests", body)


def ask(channel: Channel, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
    """What the operator channel answers; Stop with the reason code if it refuses."""
    try:
        with httpx.Client(transport=channel.transport, timeout=CONTROLLER_TIMEOUT_S, trust_env=False) as client:
            # In pieces: the client copies what is left of a body for each piece that the socket takes.
            pieces = (body[at : at + _PIECE] for at in range(0, len(body), _PIECE))
            length = {"content-length": str(len(body))}
            answer = client.request(method, f"{channel.url}{path}", content=pieces, headers=length)
        value = parse_json(answer.content, limit=1 << 20)
    except (httpx.HTTPError, OSError) as error:
        raise Stop(f"the controller does not answer: {error or type(error).__name__}", channel.hint) from error
    except FormatError as error:
        raise Stop(f"the controller's answer is malformed: {error}") from error
    if type(value) is not dict:
        raise Stop("the controller's answer is malformed")
    if answer.status_code != 200:
        reason = str(value.get("reason"))
        where = f", logged at {value['index']}" if value.get("index") is not None else ""
        raise Refusal(reason, f"{reason}: {value.get('text')}{where}")
    return value


class Refusal(Stop):
    """The controller refused; `reason` is the code."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(cause, REASONS.get(reason, ""))
        self.reason = reason
