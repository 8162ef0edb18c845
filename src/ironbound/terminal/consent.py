"""What a human sees before they sign: the signed text, and around it who they are in this and who signed before.

Decides nothing; but nothing is shown for an approval that the controller would refuse for its signatures or its text.
The rows are `core.shown`'s; the terminal prints them, the approval page sets them in type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ironbound.core.authority import Refused
from ironbound.core.canonical import Digest, FormatError, sha256_hex
from ironbound.core.envelope import Envelope
from ironbound.core.oidc import Identity, IssuerKeys
from ironbound.core.reasons import REASONS
from ironbound.core.request import verify_consent
from ironbound.core.roster import body_digest, differences
from ironbound.core.shown import Row, as_text, shown_rows
from ironbound.core.statement import ACTS, SHAPES, Statement, parse_statement
from ironbound.core.trust import TrustRoot
from ironbound.core.words import words_of
from ironbound.wire.log import now_ms

from .voice import Stop


@dataclass(frozen=True, slots=True)
class Screen:
    """`signed`: the rows of the signed text; `around`: what is true of this signature and is not in the text.

    `declines`: what is signed is a decline, so that not to sign it leaves the request as it is.
    """

    human: str
    signed: tuple[Row, ...]
    around: tuple[Row, ...]
    declines: bool = False

    @property
    def text(self) -> str:
        """All of it as lines, as a terminal shows it."""
        return as_text(self.signed) + as_text(self.around)


def request_screen(trust: TrustRoot, payload: bytes, human: str) -> Screen:
    """Before the first signature: the one who asks."""
    statement = parse_statement(payload)
    around = _around(f"{human}, who asks", "nobody yet", _quorum(trust, ACTS[statement.kind], 0), sha256_hex(payload))
    return Screen(human, shown_rows(statement.kind, statement.predicate), (*_changes(trust, statement), *around))


def approval_screen(
    trust: TrustRoot,
    request: Envelope,
    approvals: Sequence[Envelope],
    human: str,
    issuers: Mapping[str, IssuerKeys] | None,
) -> Screen:
    """Before an approval. Stop if what is there to be approved would be refused as it is.

    `issuers`: the identity providers' keys, as the log has them; without the log (None) the devices' signatures alone
    are checked here.
    """
    if issuers is None:
        request, approvals = _devices(trust, request), [_devices(trust, one) for one in approvals]
    try:
        consent = verify_consent(trust, request, approvals, now_ms(), issuers or {})
    except Refused as error:
        raise Stop(f"the request can't be approved: {error.reason}", REASONS[error.reason]) from error
    if human in consent.humans:
        reason = "initiator-approves" if human == consent.initiator else "same-human-twice"
        raise Stop(f"{reason}: {human} signed this request already", REASONS[reason])
    kind = consent.statement.kind
    signed_by = ", ".join(f"{one.human} ({one.strength.value})" for one in consent.signatories)
    around = _around(
        f"{human}, who approves", signed_by, _quorum(trust, consent.act, len(consent.humans)), consent.digest
    )
    changes = _changes(trust, consent.statement)
    return Screen(human, shown_rows(kind, consent.statement.predicate), (*changes, *around))


def decline_screen(trust: TrustRoot, request: Envelope, human: str) -> Screen:
    """Before a decline: the same rows, under another heading."""
    statement = parse_statement(request.payload)
    title, *rest = shown_rows(statement.kind, statement.predicate)
    rows = (Row(title.label, f"decline, for good, to {title.value}"), *rest)
    initiator = trust.humans.get(request.signatures[0].keyid, "somebody who is not on the roster here")
    around = _around(f"{human}, who declines", str(initiator), "one human is enough to decline", request.digest)
    return Screen(human, rows, (*_changes(trust, statement), *around), declines=True)


def trust_root_screen(payload: bytes, human: str, signed_by: Sequence[str], quorum: int) -> Screen:
    """Before a signature of a new deployment's trust root."""
    statement = parse_statement(payload)
    needed = f"{quorum} {_humans(quorum)} sign a trust root at least"
    around = _around(f"{human}, who founds it", ", ".join(signed_by) or "nobody yet", needed, sha256_hex(payload))
    return Screen(human, shown_rows(statement.kind, statement.predicate), around)


def _changes(trust: TrustRoot, statement: Statement) -> tuple[Row, ...]:
    """Before → after, of a request that changes the trust root, against the one in force."""
    if statement.kind != "trust-root-change":
        return ()
    asked = statement.predicate["body"]
    if asked["previous_sha256"] != body_digest(trust.body):
        return (Row("changes", "another trust root than the one in force here"),)
    try:
        SHAPES["trust-root"](asked["root"], "root")
        found = list(differences(trust.body, asked["root"]))
    except FormatError as error:
        return (Row("changes", f"to what is no trust root: {error}"),)
    return tuple(Row("changes", f"{what}: {one} → {other}") for what, one, other in found)


def _devices(trust: TrustRoot, envelope: Envelope) -> Envelope:
    """The envelope without what identity providers said."""
    return Envelope(
        envelope.payload,
        tuple(one for one in envelope.signatures if not isinstance(trust.keys.get(one.keyid), Identity)),
    )


def _humans(count: int) -> str:
    return "human" if count == 1 else "humans"


def _quorum(trust: TrustRoot, act: str | None, signed: int) -> str:
    if act is None:
        return "one human is enough to take away"
    needed = trust.quorum[act]
    left = max(0, needed - signed - 1)
    after = f"{left} more after you" if left else "with you it is met"
    return f"{needed} {_humans(needed)} for a {act}; {after}"


def _around(you: str, signed_by: str, quorum: str, digest: Digest) -> tuple[Row, ...]:
    return (
        Row("you are", you),
        Row("signed by", signed_by),
        Row("quorum", quorum),
        Row("words", words_of(digest)),
        Row("SHA-256", digest),
    )
