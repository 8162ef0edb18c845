"""`ironbound roster`: who may consent to what, with which keys, and how that changes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError, canonical, parse_json
from ironbound.core.keys import PrivateKey
from ironbound.core.oidc import Identity
from ironbound.core.reasons import REASONS
from ironbound.core.replay import Replay
from ironbound.core.roster import body_digest, differences, read_change
from ironbound.core.scheme import OperatorKey, key_entry, parse_key
from ironbound.core.sshsig import SshKey
from ironbound.core.statement import QUORUMS, SHAPES
from ironbound.core.strength import Strength
from ironbound.core.trust import TrustRoot
from ironbound.core.webauthn import Passkey
from ironbound.terminal import operators
from ironbound.terminal.arguments import JSON, PLACED, Command, count, deployment_of, option
from ironbound.terminal.enrol import enrolled
from ironbound.terminal.voice import OK, Stop, emit, note, passphrases, say, table, usage
from ironbound.wire.deployment import read_file

from .signing import SIGNED, settle, tell


def strength_of(key: OperatorKey) -> Strength:
    """What a signature of this key proves if all is as enrolled."""
    match key:
        case SshKey():
            if key.application is None:
                return Strength.SOFTWARE
            return Strength.HARDWARE_VERIFIED if key.user_verification else Strength.HARDWARE_TOUCHED
        case Passkey():
            return Strength.SOFTWARE if key.synced else Strength.HARDWARE_VERIFIED
        case Identity():
            return Strength.PROVIDER
        case _:
            return Strength.SOFTWARE


def roster(replay: Replay) -> dict[str, Any]:
    """The roster in force, and the keys that were on it."""
    trust = replay.trust
    changes = [index for index, act in replay.books.acts.items() if act.kind == "trust-root-change"]

    def people(listed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "name": one["name"],
                "acts": list(one.get("acts", ())),
                "keys": [_key(trust, parse_key(value, trust.deployment)) for value in one["keys"]],
            }
            for one in listed
        ]

    sealed = trust.body["break_glass"]
    return {
        "deployment": trust.deployment,
        "version": trust.version,
        "entry": max(changes, default=0),
        "sha256": body_digest(trust.body),
        "quorum": dict(trust.quorum),
        "operators": people(trust.body["operators"]),
        "holders": [] if sealed is None else people(sealed["holders"]),
        "former": [{"keyid": keyid, "name": str(human)} for keyid, human in trust.former.items()],
        "compromised": dict(trust.compromised),
    }


def _key(trust: TrustRoot, key: OperatorKey) -> dict[str, Any]:
    return {
        "keyid": key.keyid,
        "scheme": key_entry(key)["scheme"],
        "strength": strength_of(key).value,
        "compromised_since": trust.compromised.get(key.keyid),
    }


def _show(arguments: argparse.Namespace) -> int:
    value = roster(operators.replayed(deployment_of(arguments)))
    if arguments.json:
        emit(value)
        return OK
    say(f"trust root version {value['version']} of {value['deployment']}, since entry {value['entry']}")
    say("quorum     " + ", ".join(f"{act} {needed}" for act, needed in value["quorum"].items()))
    rows = []
    for role, people in (("operator", value["operators"]), ("sealed key", value["holders"])):
        for one in people:
            for key in one["keys"]:
                since = key["compromised_since"]
                flag = "" if since is None else f"COMPROMISED since entry {since}"
                acts = "break-glass" if role == "sealed key" else " ".join(one["acts"]) or "revoke stop"
                rows.append((one["name"], role, key["keyid"][:16], key["scheme"], key["strength"], acts, flag))
    table(("NAME", "ROLE", "KEY", "SCHEME", "STRENGTH", "ACTS", ""), rows)
    for one in value["former"]:
        since = value["compromised"].get(one["keyid"])
        flag = "" if since is None else f", COMPROMISED since entry {since}"
        say(f"former     {one['keyid'][:16]} of {one['name']}{flag}")
    return OK


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    return name, value


def _quorum(text: str) -> tuple[str, int]:
    act, needed = _pair(text)
    if act not in QUORUMS:
        raise argparse.ArgumentTypeError(f"{act!r} is no act; the acts are {', '.join(QUORUMS)}")
    return act, count(needed)


def key_of(word: str, deployment: str) -> dict[str, Any]:
    """The entry of a key in a file: what `operator new` or `operator key` wrote, or what its owner's tool made."""
    path = Path(word)
    data = read_file(path, 32_768) if path.is_file() else b""
    if data.lstrip()[:1] == b"{":
        value = parse_json(data, limit=32_768, depth=8)
        entry: Any = value.get("entry") if isinstance(value, dict) else None
        if entry is not None:
            try:
                return key_entry(parse_key(entry, deployment))
            except (FormatError, KeyError, TypeError) as error:
                raise Stop(f"{path}: {error}", "it should be what `ironbound operator key` printed") from error
    return key_entry(enrolled(word, deployment))


def next_body(trust: TrustRoot, arguments: argparse.Namespace) -> dict[str, Any]:
    """The trust root's next version, as the options say."""
    deployment = trust.deployment
    people = {one["name"]: {**one, "keys": list(one["keys"])} for one in trust.body["operators"]}
    for name in arguments.remove:
        if people.pop(name, None) is None:
            raise Stop(f"no operator is called {name!r}", f"on the roster: {', '.join(sorted(people))}")
    for name, file in arguments.add:
        one = people.setdefault(name, {"name": name, "keys": [], "acts": list(QUORUMS)})
        one["keys"].append(key_of(file, deployment))
    for keyid in arguments.drop_key:
        _drop(people, keyid, deployment)
    for name, acts in arguments.acts:
        if name not in people:
            raise Stop(f"no operator is called {name!r}", f"on the roster: {', '.join(sorted(people))}")
        people[name]["acts"] = [] if acts == "none" else acts.split(",")
    sealed = trust.body["break_glass"]
    if arguments.unseal:
        sealed = None
    if arguments.sealed:
        holders: dict[str, dict[str, Any]] = {}
        for name, file in arguments.sealed:
            holders.setdefault(name, {"name": name, "keys": []})["keys"].append(key_of(file, deployment))
        sealed = {"quorum": 2, "holders": list(holders.values())}
    return {
        **trust.body,
        "version": trust.version + 1,
        "operators": list(people.values()),
        "quorum": {**trust.body["quorum"], **dict(arguments.quorum)},
        "break_glass": sealed,
    }


def _drop(people: dict[str, dict[str, Any]], keyid: str, deployment: str) -> None:
    found = [
        (one, value)
        for one in people.values()
        for value in one["keys"]
        if len(keyid) >= 8 and parse_key(value, deployment).keyid.startswith(keyid)
    ]
    if len(found) != 1:
        raise Stop(f"{len(found)} keys begin with {keyid!r}", "`ironbound roster` shows them; give 8 digits or more")
    one, value = found[0]
    one["keys"].remove(value)
    if not one["keys"]:
        raise Stop(f"that is the only key of {one['name']}", f"--remove {one['name']} takes them off the roster")


def show_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """What a change changes, for whoever is about to sign it."""
    for what, one, other in differences(before, after):
        note(f"{what}: {one} → {other}")


def _propose(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    replay = operators.replayed(deployment)
    trust = replay.trust
    body = next_body(trust, arguments)
    asked = {"previous_sha256": body_digest(trust.body), "root": body}
    if not [one for one in differences(trust.body, body) if one[0] != "version"]:
        usage("nothing changes", "say what: --add, --remove, --drop-key, --acts, --quorum, --sealed or --unseal")
    try:
        SHAPES["trust-root"](body, "trust-root")
        people = read_change(trust, asked)
    except FormatError as error:
        raise Stop(str(error)) from error
    except Refused as refusal:
        raise Stop(f"{refusal.reason}: {REASONS[refusal.reason]}", _hint(refusal)) from refusal
    payload = operators.build(replay, "trust-root-change", body=asked, ticket=arguments.ticket)
    both = replace(
        trust, keys={**people.keys, **trust.keys}, humans={**people.humans, **people.sealed, **in_force(trust)}
    )
    results = settle(arguments, deployment, replay, [(payload, [])], both)
    return tell(arguments, results, f"trust root version {body['version']}")


def _hint(refusal: Refused) -> str:
    cause = refusal.__cause__
    return "" if cause is None else str(cause)


def in_force(trust: TrustRoot) -> dict[Any, Any]:
    """Whoever holds a key of the roster in force, an ordinary or a sealed one."""
    return {**trust.sealed, **trust.humans}


def _flag(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    replay = operators.replayed(deployment)
    trust = replay.trust
    known = {**trust.former, **trust.sealed, **trust.humans}
    found = [keyid for keyid in known if len(arguments.key) >= 8 and keyid.startswith(arguments.key)]
    if len(found) != 1:
        raise Stop(f"{len(found)} keys begin with {arguments.key!r}", "`ironbound roster` shows them; 8 digits or more")
    if arguments.since > replay.size:
        raise Stop(f"the log has {replay.size} entries", "`ironbound log` shows them")
    signed = [
        index
        for index, people in replay.books.signed.items()
        if index >= arguments.since and any(found[0] in (one.keyid, one.identity) for one in people)
    ]
    note(f"key {found[0][:16]} of {known[found[0]]} counts for nothing from entry {arguments.since} on")
    note(f"it signed {len(signed)} acts since then: {', '.join(map(str, signed[:16])) or '-'}")
    note("those that don't reach their quorum without it are taken back, for good")
    body = {"key": found[0], "since": arguments.since}
    payload = operators.build(replay, "key-compromised", body=body, ticket=arguments.ticket)
    results = settle(arguments, deployment, replay, [(payload, [])])
    return tell(arguments, results, f"key {found[0][:16]} flagged")


def _review(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    replay = operators.replayed(deployment)
    glass = replay.books.broken_glass.get(arguments.grant)
    if glass is None:
        known = ", ".join(replay.books.broken_glass) or "there is none"
        raise Stop(f"{arguments.grant!r} is no grant by sealed keys", f"to review: {known}")
    body = {
        "grant": arguments.grant,
        "request_sha256": glass.request,
        "finding": arguments.finding,
        "text": arguments.text,
    }
    payload = operators.build(replay, "review", body=body, ticket=arguments.ticket)
    results = settle(arguments, deployment, replay, [(payload, [])])
    return tell(arguments, results, f"grant {arguments.grant} reviewed as {arguments.finding}")


def _new(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.init import write

    phrase = passphrases(arguments.passphrase_fd, [arguments.name], new=True)[0]
    if not phrase:
        raise Stop("the passphrase is empty", "a key without a passphrase is anybody's key")
    made = PrivateKey.generate(os.urandom(32))
    path = arguments.keys / f"{arguments.name}.key"
    if path.exists():
        raise Stop(f"{path} exists", "no command replaces a key")
    value: dict[str, Any] = {"entry": key_entry(made.public), "keyid": made.public.keyid}
    write(path, made.to_pem(phrase), 0o400)
    write(arguments.keys / f"{arguments.name}.json", canonical(value) + b"\n", 0o444)
    if arguments.json:
        emit({"file": str(path), **value})
    else:
        say(f"key {made.public.keyid[:16]} of {arguments.name}: {path}; its public half: {path.with_suffix('.json')}")
        note(f"ironbound roster propose --add {arguments.name}={path.with_suffix('.json')} --sign …")
    return OK


COMMANDS: Final = (
    Command("roster", _show, "Who may consent to what, with which keys.", "ironbound roster -d prod", PLACED),
    Command(
        "roster propose",
        _propose,
        "Change the roster: shown before → after, and signed by the quorums before and after.",
        "ironbound roster propose --add dora=dora.pub --remove cy --quorum grant=3 --sign ada --sign bo",
        (
            *SIGNED,
            option(
                "--add", action="append", default=[], type=_pair, metavar="NAME=FILE",
                help="an operator, or a further key of one: an SSH public key, a passkey's registration or an entry",
            ),
            option("--remove", action="append", default=[], metavar="NAME", help="an operator"),
            option("--drop-key", action="append", default=[], metavar="KEYID", help="one of an operator's keys"),
            option(
                "--acts", action="append", default=[], type=_pair, metavar="NAME=ACT,…",
                help=f"what an operator consents to, of {', '.join(QUORUMS)}; `none`: revoking and stopping only",
            ),
            option(
                "--quorum", action="append", default=[], type=_quorum, metavar="ACT=N",
                help="how many humans an act takes; no act takes more than reconfigure",
            ),
            option(
                "--sealed", action="append", default=[], type=_pair, metavar="NAME=FILE",
                help="a holder of a sealed key; all of them, three or more, of whom two together grant for an hour",
            ),
            option("--unseal", action="store_true", help="no more sealed keys"),
        ),
    ),
    Command(
        "roster flag",
        _flag,
        "Say that a key was not its owner's since an entry: what it signed since then no longer counts.",
        "ironbound roster flag 3fa94c01 --since 1234 --sign ada --sign bo",
        (
            *SIGNED,
            option("key", metavar="KEYID", help="8 digits or more, as `ironbound roster` shows them"),
            option("--since", type=count, required=True, metavar="INDEX", help="the first entry that does not count"),
        ),
    ),
    Command(
        "roster review",
        _review,
        "Say what sealed keys' grant was; it is due within 72 hours of it.",
        "ironbound roster review 5e884898da28047151d0e56f8dc62927 --finding justified --sign ada --sign bo",
        (
            *SIGNED,
            option("grant", metavar="GRANT"),
            option("--finding", choices=("justified", "misused"), required=True, help="`misused` revokes it as well"),
            option("--text", default="", metavar="TEXT", help="what you found, signed with it"),
        ),
    ),
    Command(
        "operator new",
        _new,
        "Make a key file for an operator, on the operator's own machine.",
        "ironbound operator new dora --keys ~/keys",
        (
            JSON,
            option("name", metavar="NAME"),
            option("--keys", type=Path, default=Path("."), metavar="DIR", help="where NAME.key and NAME.json go"),
            option("--passphrase-fd", type=int, metavar="N", help="the passphrase, a line"),
        ),
    ),
)  # fmt: skip
