"""`ironbound requests`: what was proposed, what it waits for, and approving or declining it on another machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError, canonical
from ironbound.core.envelope import Envelope, envelope_from_value
from ironbound.core.oidc import IssuerKeys
from ironbound.core.roster import body_digest, changed, read_change
from ironbound.core.statement import (
    ACTS,
    SHAPES,
    Shape,
    Statement,
    agent,
    choice,
    count,
    digest,
    document,
    each,
    identifier,
    index,
    maybe,
    moment,
    name,
    parse_statement,
    printable,
    record,
)
from ironbound.core.trust import TrustRoot, read_roster
from ironbound.terminal import operators
from ironbound.terminal.arguments import PLACED, Command, deployment_of, option
from ironbound.terminal.consent import Screen
from ironbound.terminal.show import clock
from ironbound.terminal.voice import OK, Stop, emit, note, say, table, usage
from ironbound.wire.deployment import Deployment

from .people import in_force, show_change
from .signing import KEYED, REACHED, reached, show_request, show_rows, signing_keys

_OVER: Final = frozenset({"applied", "declined", "expired", "refused"})
#: What a controller says of a proposal: read strictly, since it is shown beside what is signed.
_LISTED: Final = {
    "request_sha256": digest,
    "id": identifier,
    "index": index,
    "kind": choice(*ACTS),
    "agent": maybe(agent),
    "state": choice("waiting", "complete", *sorted(_OVER)),
    "reason": maybe(printable),
    "initiator": name,
    "approvers": each(name, 64),
    "needed": count,
    "expires_ms": moment,
    "applied": maybe(index),
    "declined": maybe(index),
    "declined_by": maybe(name),
}
_LIST: Final = record(proposals=each(record(**_LISTED), 256))
_WHOLE: Final = record(**_LISTED, request=document, approvals=each(document, 64))


def _said(shape: Shape, value: dict[str, Any]) -> dict[str, Any]:
    """A controller's answer, if it is of that shape."""
    try:
        shape(value, "answer")
    except FormatError as error:
        raise Stop(f"the controller's answer is malformed: {error}") from error
    return value


def _proposals(channel: operators.Channel) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = _said(_LIST, operators.ask(channel, "GET", "/proposals"))["proposals"]
    return listed


def _asked(channel: operators.Channel, beginning: str) -> dict[str, Any]:
    """The one proposed request whose id or digest begins so, in full; Stop if there is not exactly one.

    Both are looked up in the request's own bytes: a controller can't hand out another one under the name.
    """
    listed = _proposals(channel)
    found = [one for one in listed if one["id"].startswith(beginning) or one["request_sha256"].startswith(beginning)]
    if len(found) != 1 or len(beginning) < 4:
        raise Stop(f"{len(found)} proposed requests begin with {beginning!r}", "`ironbound requests` shows them")
    value = _said(_WHOLE, operators.ask(channel, "GET", f"/proposals/{found[0]['request_sha256']}"))
    try:
        request = envelope_from_value(value["request"])
        statement = parse_statement(request.payload)
        for one in value["approvals"]:
            envelope_from_value(one)
    except FormatError as error:
        raise Stop(f"the controller handed out what is no request: {error}") from error
    own = {"kind": statement.kind, "id": statement.predicate.get("id"), "request_sha256": request.digest}
    if any(found[0][field] != said for field, said in own.items()):
        raise Stop("the controller handed out another request than it named", "don't sign; look at the controller")
    return value


def _list(arguments: argparse.Namespace) -> int:
    listed = _proposals(reached(arguments))
    shown = listed if arguments.all else [one for one in listed if one["state"] not in _OVER]
    if arguments.json:
        emit(shown)
        return OK
    if not shown:
        say("nothing waits" + ("" if arguments.all or not listed else f"; --all shows {len(listed)} that are over"))
        return OK
    table(
        ("ID", "REQUEST", "AGENT", "STATE", "ASKED BY", "APPROVED BY", "HUMANS", "EXPIRES (UTC)"),
        [
            (
                one["id"][:12],
                one["kind"],
                one["agent"] or "-",
                _state(one),
                one["initiator"],
                ", ".join(one["approvers"]) or "-",
                f"{1 + len(one['approvers'])} of {one['needed']}",
                clock(one["expires_ms"]),
            )
            for one in shown
        ],
    )
    return OK


def _state(one: Mapping[str, Any]) -> str:
    """What became of it, and why or by whom it was ended."""
    ended = {"refused": one["reason"], "declined": f"by {one['declined_by']}"}.get(one["state"])
    return f"{one['state']} ({ended})" if ended else str(one["state"])


def _in_force(
    arguments: argparse.Namespace, channel: operators.Channel, deployment: Deployment
) -> tuple[Deployment, Mapping[str, IssuerKeys] | None]:
    """The deployment with the trust root in force, and identity providers' keys: from the log where it is here.

    Else the trust root is as the controller says, and there are no such keys.

    What a controller says of it is for showing; whose signatures count, each service decides by the log. A key that
    this folder knows keeps its owner, whatever the controller says.
    """
    if arguments.to is None:
        replay = operators.replayed(deployment)
        return operators.current(deployment, replay), replay.books.issuers
    body = operators.ask(channel, "GET", "/trust-root")
    first = deployment.trust
    try:
        SHAPES["trust-root"](body, "trust-root")
        trust = changed(first, body, read_roster(body))
    except FormatError as error:
        raise Stop(f"the controller's trust root is not sound: {error}") from error
    known, people = in_force(first), in_force(trust)
    swapped = [keyid for keyid, human in people.items() if keyid in first.voices or known.get(keyid, human) != human]
    if swapped or (body["version"] <= first.version and body != first.body):
        raise Stop(
            "the controller says another roster than this folder's, and calls it no change",
            "don't sign; look at the controller",
        )
    if body["version"] > first.version:
        note(f"the roster is version {body['version']}, as the controller says; this folder holds version 1")
    return replace(deployment, trust=replace(trust, humans=in_force(trust))), None


def _approver(trust: TrustRoot, approval: Envelope) -> str:
    """Whose key an approval names; whether it counts, the log says."""
    return str(trust.humans.get(approval.signatures[0].keyid, "somebody who is not on the roster here"))


def _show(arguments: argparse.Namespace) -> int:
    channel = reached(arguments)
    value = _asked(channel, arguments.id)
    if arguments.json:
        emit(value)
        return OK
    deployment, _ = _in_force(arguments, channel, deployment_of(arguments))
    request = envelope_from_value(value["request"])
    statement = parse_statement(request.payload)
    if statement.kind == "trust-root-change":
        _roster(deployment.trust, statement)
        show_change(deployment.trust.body, statement.predicate["body"]["root"])
    show_request(request)
    say(f"{_state(value)}: asked by {value['initiator']}, approved by {', '.join(value['approvers']) or 'nobody yet'}")
    return OK


def _roster(trust: TrustRoot, statement: Statement) -> TrustRoot:
    """Whose keys may sign; of a change of the trust root, the old or the new roster's. Stop if it can't be approved."""
    if statement.kind != "trust-root-change":
        return trust
    asked = statement.predicate["body"]
    if asked["previous_sha256"] != body_digest(trust.body):
        raise Stop(
            "trust-root-previous: the change replaces another trust root than the one in force", "propose it anew"
        )
    try:
        people = read_change(trust, asked)
    except Refused as refusal:
        raise Stop(f"the change can't be approved: {refusal.reason}") from refusal
    humans = {**people.humans, **people.sealed, **trust.humans}
    return replace(trust, keys={**people.keys, **trust.keys}, humans=humans)


def _open(
    arguments: argparse.Namespace, verb: str
) -> tuple[operators.Channel, Deployment, dict[str, Any], Mapping[str, IssuerKeys] | None]:
    """A request that can still be answered, by one operator: the channel, who is on the roster, the request in full."""
    if len(arguments.sign) != 1:
        usage(f"one operator {verb} at a time", "name the operator with --sign NAME")
    channel, deployment = reached(arguments), deployment_of(arguments)
    value = _asked(channel, arguments.id)
    if value["state"] in _OVER:
        raise Stop(f"the request is {_state(value)} already", "`ironbound requests --all` shows what became of it")
    deployment, issuers = _in_force(arguments, channel, deployment)
    return channel, deployment, value, issuers


def _decline(arguments: argparse.Namespace) -> int:
    channel, deployment, value, _ = _open(arguments, "declines")
    request = envelope_from_value(value["request"])
    (signer,) = signing_keys(arguments, deployment)

    def tell(screen: Screen) -> None:
        show_rows((*screen.signed, *screen.around))

    body = canonical({"decline": operators.decline(deployment, request, signer, tell).as_value()})
    done = _said(record(**_LISTED), operators.ask(channel, "POST", f"/proposals/{request.digest}/declines", body))
    if arguments.json:
        emit(done)
    else:
        say(f"declined by {done['declined_by']}: entry {done['declined']}; it can't be applied any more")
    return OK


def _approve(arguments: argparse.Namespace) -> int:
    channel, deployment, value, issuers = _open(arguments, "approves")
    request = envelope_from_value(value["request"])
    whose = _roster(deployment.trust, parse_statement(request.payload))
    show_request(request)
    given = [envelope_from_value(one) for one in value["approvals"]]
    for one in given:
        note(f"approved by {_approver(deployment.trust, one)}")
    deployment = replace(deployment, trust=whose)
    signers = signing_keys(arguments, deployment)
    (approvals,) = operators.collect_approvals(
        deployment, [(request, given)], signers, lambda screen: show_rows(screen.around), issuers
    )
    approval = approvals[-1]
    body = canonical({"approval": approval.as_value()})
    done = _said(record(**_LISTED), operators.ask(channel, "POST", f"/proposals/{request.digest}/approvals", body))
    if arguments.json:
        emit(done)
    elif done["state"] == "applied":
        say(f"applied: entry {done['applied']} ({', '.join([done['initiator'], *done['approvers']])})")
    else:
        say(f"approved; {1 + len(done['approvers'])} of {done['needed']} humans, {done['state']}")
    return OK


COMMANDS: Final = (
    Command(
        "requests",
        _list,
        "Requests that wait for approvals, and with --all what became of the others.",
        "ironbound requests -d prod",
        (
            *PLACED,
            *REACHED,
            option("--all", action="store_true", help="also those that were applied or declined, or have expired"),
        ),
    ),
    Command(
        "requests show",
        _show,
        "A proposed request, in the words that its signers see.",
        "ironbound requests show 1f2e3d4c",
        (*PLACED, *REACHED, option("id", metavar="ID", help="the request's id or digest, or its beginning")),
    ),
    Command(
        "requests approve",
        _approve,
        "Approve a proposed request; the approval that completes the quorum applies it.",
        "ironbound requests approve 1f2e3d4c --sign bo --to 127.0.0.1:8443 --certificate operator-channel.crt",
        (
            *PLACED,
            *REACHED,
            option("id", metavar="ID", help="the request's id or digest, or its beginning"),
            *KEYED,
        ),
    ),
    Command(
        "requests decline",
        _decline,
        "Decline a proposed request, or withdraw your own, for good; it takes one operator.",
        "ironbound requests decline 1f2e3d4c --sign bo",
        (
            *PLACED,
            *REACHED,
            option("id", metavar="ID", help="the request's id or digest, or its beginning"),
            *KEYED,
        ),
    ),
)
