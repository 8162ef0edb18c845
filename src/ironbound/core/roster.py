"""How one version of the trust root follows another, and what a key that was stolen takes with it.

Decides whether a change of the roster is sound and whose consent it has: as The Update Framework changes its root
(TUF, 5.3.4), version n+1 is signed by the quorum of version n and by its own. Humans are counted, not keys. It is in
force from the entry after the one that carries it. Whether a change may happen now, the kernel decides (`authority`).

Rule 1: a change is to version n+1 of this deployment, names the version n that it replaces by digest, and is complete.
Rule 2: it changes people, their keys, acts and quorums, and nothing else. Log, witnesses, services and bounds stand in
        files of running processes too, and every pin and checkpoint rests on them: for those, make a new deployment.
Rule 3: each human counts once in each version, by the key that this version knows.
Rule 4: a key never goes to another human, and one that was flagged never comes back.
Rule 5: a signature made before a change keeps its meaning; what arrives after it is judged by the new version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from .authority import Refused
from .canonical import Digest, FormatError, canonical, sha256_hex
from .keys import KeyId
from .scheme import parse_key
from .statement import SHAPES
from .trust import Human, Roster, TrustRoot, read_roster

#: What a change may change; of everything else it repeats what the version before said.
CHANGEABLE: Final = frozenset({"version", "operators", "quorum", "break_glass"})
#: How long the ordinary quorum has to look at what sealed keys were used for: 72 hours.
REVIEW_DUE_MS: Final = 72 * 3_600_000


def body_digest(body: Mapping[str, Any]) -> Digest:
    """SHA-256 of a trust root's body in canonical JSON: the name by which a change knows what it changes."""
    return sha256_hex(canonical(dict(body)))


def read_change(trust: TrustRoot, asked: Mapping[str, Any]) -> Roster:
    """The roster that a change asks for (Rules 1, 2 and 4). Raises Refused; changes nothing."""
    body = asked["root"]
    try:
        SHAPES["trust-root"](body, "root")
        if body["version"] != trust.version + 1:
            raise Refused("trust-root-version")
        if body["deployment"] != trust.deployment:
            raise Refused("other-deployment")
        if asked["previous_sha256"] != body_digest(trust.body):
            raise Refused("trust-root-previous")
        if any(body[name] != trust.body[name] for name in body if name not in CHANGEABLE):
            raise Refused("trust-root-fixed")
        people = read_roster(body)
    except FormatError as error:
        raise Refused("trust-root-unsound") from error
    known = {**trust.former, **trust.humans, **trust.sealed}
    for keyid, human in {**people.humans, **people.sealed}.items():
        if keyid in trust.compromised:
            raise Refused("key-compromised")
        if known.get(keyid, human) != human or keyid in trust.voices or keyid in _parties(trust):
            raise Refused("trust-root-roster")
    return people


def _parties(trust: TrustRoot) -> set[KeyId]:
    """The keys of the log, the witnesses and the releases."""
    parties = [one.key for one in (trust.policy.log, *(witness.key for witness in trust.policy.witnesses))]
    return {one.keyid for one in (*parties, trust.release) if one is not None}


def counted(people: Roster | TrustRoot, keyids: Sequence[KeyId]) -> set[Human]:
    """The humans of one version behind these keys, who are on its roster for changing it. Refused if one signed twice.

    A key that this version does not know counts for nothing in it (Rule 3).
    """
    found: set[Human] = set()
    for human in (people.humans[one] for one in keyids if one in people.humans):
        if human in found:
            raise Refused("same-human-twice")
        if "reconfigure" not in people.acts[human]:
            raise Refused("act-not-on-roster")
        found.add(human)
    return found


def changed(trust: TrustRoot, body: Mapping[str, Any], people: Roster) -> TrustRoot:
    """The next version in force."""
    operators = {**people.humans, **people.sealed}
    before = {**trust.former, **trust.humans, **trust.sealed}
    return replace(
        trust,
        version=body["version"],
        body=body,
        keys={**people.keys, **{one.keyid: one for one in trust.services.values()}},
        humans=people.humans,
        acts=people.acts,
        sealed=people.sealed,
        former={keyid: human for keyid, human in before.items() if keyid not in operators},
        quorum=people.quorum,
    )


def flagged(trust: TrustRoot, keyid: KeyId, since: int) -> TrustRoot:
    """The trust root in which this key counts for nothing from entry `since` on; an earlier flag stays."""
    return replace(trust, compromised={**trust.compromised, keyid: min(since, trust.compromised.get(keyid, since))})


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What a change changes, as (what, before, after) with "-" for nothing: for people to read, in a fixed order."""
    for what, one, other in sorted(_pairs(before, after)):
        if one != other:
            yield what, one or "-", other or "-"


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    one, other = _facts(before), _facts(after)
    for what in one.keys() | other.keys():
        yield what, one.get(what, ""), other.get(what, "")


def _facts(body: Mapping[str, Any]) -> dict[str, str]:
    facts = {"version": str(body["version"])}
    facts |= {f"quorum {act}": str(needed) for act, needed in body["quorum"].items()}
    sealed = body["break_glass"] or {"holders": [], "quorum": ""}
    facts["quorum break-glass"] = str(sealed["quorum"])
    for role, people in (("operator", body["operators"]), ("holder", sealed["holders"])):
        for one in people:
            facts[f"{role} {one['name']} acts"] = " ".join(sorted(one.get("acts", ("break-glass",))))
            for value in one["keys"]:
                facts[f"{role} {one['name']} key {parse_key(value, body['deployment']).keyid}"] = value["scheme"]
    return {what: text for what, text in facts.items() if text}
