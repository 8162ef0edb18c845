"""What the monitor sends to the operator channel to be refused: malformed and unauthorised requests.

Decides the bytes of each request, the reasons for which it can be refused, and how often it has to be. It sends nothing
(the monitor does) and judges nothing (the verifier does): both make the requests anew. It follows no outer
specification.

Rule 1: a request follows from the first trust root, from what the monitor says it drew (nonce, checkpoint, time) and
        from the latest request for power that the log had admitted at that checkpoint. A `refused` entry is known as
        its answer by the digest of the body, or by the path where there is none.
Rule 2: none has an effect, whatever the controller does: nobody on the roster signed it, or it was admitted before and
        gives power, which the kernel lets through once. What takes power away (`stop`) it lets through again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from .books import Entry
from .canonical import Digest, Value, canonical, sha256_hex
from .envelope import Envelope, Signature, sign_envelope
from .keys import PrivateKey
from .oidc import Identity
from .reasons import REASONS
from .request import encode_request
from .trust import TrustRoot

#: However short the canaries' interval is, the channel is not asked more often than this.
MIN_EVERY_MS: Final = 60_000
#: How long after a start of the controller, or after a time in which nothing ran, it may stay unasked.
GRACE_MS: Final = 60_000
_LIFE_MS: Final = 600_000

_FORM = frozenset({"submission-malformed", "signature-count"})
_STRANGER = frozenset({"signer-unknown"})
#: The operator may have left the roster since, and a signature of another scheme than the key's has not its form.
_FORGED = frozenset({"signature-invalid", "signature-malformed", "signer-removed", "key-compromised"})
#: It was signed well once; what is wrong with it now depends on its kind. Whatever says it wasn't read is no answer.
_REPLAYED = frozenset(REASONS) - _FORM - _STRANGER - {"signature-invalid", "signature-malformed", "route-unknown"}
_NO_ROUTE = frozenset({"route-unknown"})
#: Methods and paths that the channel has not, each with the nonce at its end.
_ROUTES: Final = (("POST", "/grants"), ("PUT", "/requests"), ("DELETE", "/trust-root"), ("GET", "/keys"))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request: method, path, body (None: `once_more` of the latest admitted one) and the body's digest.

    `reasons`: one of them has to be given. `asked`: the digest of the request for power in it, if nobody ever could
    have it admitted.
    """

    name: str
    method: str
    path: str
    body: bytes | None
    digest: Digest
    reasons: frozenset[str]
    asked: Digest | None = None

    @property
    def verb(self) -> str | None:
        """What the refusal's entry names as the verb: the route that there is not."""
        return f"{self.method} {self.path}" if self.body == b"" else None


def every_ms(canary_interval_ms: int) -> int:
    """The longest time between two askings."""
    return max(canary_interval_ms, MIN_EVERY_MS)


def once_more(entry: Entry) -> bytes | None:
    """The submission of the request that an entry admitted, with its approvals; None but for a request for power."""
    if entry.void is not None or entry.consent is None or entry.consent.act is None:
        return None
    return _submission(entry.predicate["request"], *entry.predicate["approvals"])


def attempts(root: TrustRoot, drawn: Mapping[str, Any], latest: Digest | None) -> tuple[Attempt, ...]:
    """All requests of one asking.

    `root` is the first trust root; `drawn` has nonce, checkpoint and began_ms; `latest` is the digest of `once_more` of
    the latest request for power that was admitted below the checkpoint, None if there is none.
    """
    return tuple(_attempts(root, drawn, latest))


def _attempts(root: TrustRoot, drawn: Mapping[str, Any], latest: Digest | None) -> Iterator[Attempt]:
    nonce = drawn["nonce"]
    stranger = PrivateKey.generate(sha256(canonical(["stranger", nonce, drawn["checkpoint"]])).digest())
    granted = sign_envelope(_grant(root, drawn, "everything"), [stranger])
    proposed = sign_envelope(_grant(root, drawn, "all"), [stranger])
    value: Any = granted.as_value()
    operator = min(one for one in root.humans if not isinstance(root.keys[one], Identity))
    forged = Envelope(granted.payload, (Signature(operator, granted.signatures[0].sig),))
    service = Envelope(granted.payload, (Signature(root.services["monitor"].keyid, granted.signatures[0].sig),))

    def submit(
        name: str, body: bytes, reasons: frozenset[str], asked: Envelope | None = None, path: str = "/requests"
    ) -> Attempt:
        return Attempt(name, "POST", path, body, sha256_hex(body), reasons, None if asked is None else asked.digest)

    def spelt(**fields: Value) -> bytes:
        return _submission({**value, **fields})

    whole = _submission(value)
    yield submit("no JSON", f"grant everything to {nonce}".encode(), _FORM)
    yield submit("another shape", canonical({"grant": nonce}), _FORM)
    yield submit("one field twice", b'{"approvals":[],' + whole[1:], _FORM)
    yield submit("cut off", whole[:-1], _FORM)
    yield submit("no signature", spelt(signatures=[]), _FORM)
    yield submit("another payload type", spelt(payloadType="application/json"), _FORM)
    yield submit("signed by a stranger", whole, _STRANGER, granted)
    yield submit("proposed by a stranger", _submission(proposed.as_value()), _STRANGER, proposed, "/proposals")
    yield submit("in a service's name", _submission(service.as_value()), _STRANGER, service)
    yield submit("in an operator's name", _submission(forged.as_value()), _FORGED, forged)
    if latest is not None:
        yield Attempt("once more", "POST", "/requests", None, latest, _REPLAYED)
    for method, path in _ROUTES:
        yield Attempt(f"{method} {path}", method, f"{path}/{nonce}", b"", sha256_hex(b""), _NO_ROUTE)


def _submission(request: Value, *approvals: Value) -> bytes:
    return canonical({"request": request, "approvals": [*approvals], "artifacts": []})


def _grant(root: TrustRoot, drawn: Mapping[str, Any], tool: str) -> bytes:
    """A grant of everything to nobody, which no human has seen."""
    nonce, now = drawn["nonce"], drawn["began_ms"]
    named = sha256_hex(nonce.encode())
    return encode_request(
        "grant",
        {
            "version": 1,
            "deployment": root.deployment,
            "id": nonce,
            "agent": "nobody",
            "module_sha256": named,
            "config_sha256": named,
            "capability": {"before": [], "after": [nonce]},
            "not_before_ms": now,
            "expires_ms": now + _LIFE_MS,
            "log_head": drawn["checkpoint"],
            "proposal": None,
            "ticket": "",
            "body": {
                "tool": tool,
                "action": "scratch.write",
                "where": {"path": {"any": True}},
                "calls": 1,
                "expires_ms": now + _LIFE_MS,
                "credential": None,
                "rate": None,
                "budget": None,
                "approvals": 0,
                "delegable": 0,
            },
        },
    )
