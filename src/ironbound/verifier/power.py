"""Claims C1, C2 and C3: power came from humans, and nothing acted without it.

Decides from the replayed log: the kernel and the humans' signatures were checked for every entry there, so
what is left is to look at what the services said and the kernel did not accept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ironbound.core.authority import Refused
from ironbound.core.canonical import Digest, FormatError, canonical, parse_json, sha256_hex
from ironbound.core.channel import parse_agent_surface, routes
from ironbound.core.envelope import Envelope, envelope_from_value
from ironbound.core.request import is_spoilt, verify_consent
from ironbound.core.roster import REVIEW_DUE_MS
from ironbound.core.statement import parse_statement

from .claims import MAX_INDEXES, Case, Claim
from .history import TAKEN_MS, History
from .probes import Run, channel_probed
from .release import Shipped

#: The bytes with a digest, or None if the bundle lacks them.
Artifact = Callable[[str], bytes | None]
#: Bytes of an operator's copy: a submission with its artifact in base64.
MAX_KEPT: Final = 128 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """An operator's own copy of a signed request, and the digest under which a refusal would name it."""

    request: Envelope
    submission: Digest


def read_kept(data: bytes) -> Kept:
    """A copy in the form of `ironbound … --out FILE`; FormatError if it is none."""
    value = parse_json(data, limit=MAX_KEPT)
    if type(value) is not dict or value.keys() != {"request", "approvals", "artifacts"}:
        raise FormatError("copy", "expected an object of request, approvals and artifacts")
    return Kept(envelope_from_value(value["request"]), sha256_hex(canonical(value)))


def claim_c1(history: History, kept: Sequence[Kept], end_ms: int) -> Claim:
    """Every grant, load, launch and reconfiguration traces to the humans the trust root asks for.

    `kept`: what operators have of what they signed; whatever of it the log lacks was never sent, or withheld.
    """
    case = Case("C1")
    case.counts["admitted"] = sum(history.admitted.values())
    case.counts |= {f"admitted {kind}": count for kind, count in sorted(history.admitted.items())}
    case.counts |= {f"asked by {human}": count for human, count in sorted(history.initiators.items())}
    case.counts |= {f"signatures {strength}": count for strength, count in sorted(history.strengths.items())}
    for issuer, keys in sorted(history.replay.books.issuers.items()):
        case.count("keys of identity providers, as two voices saw them", len(keys.confirmed()))
        if alone := len(keys.unconfirmed()):
            case.remark(f"{issuer}: {alone} keys are the controller's word alone, and count for nothing")
    case.counts["refused"] = history.said.get("refused", 0)
    for said in history.void.get("admitted", ()):
        case.found("request-not-authorised", said.index, f"{said.void}")
    for index, word in history.hurried:
        text = f"its signers meant it for later; by entry {word}, of node or gateway, that time had not come"
        case.found("admitted-early", index, text)
    _check_keys(case, history)
    _check_broken_glass(case, history)
    case.counts["snapshots said"] = history.said.get("snapshot", 0)
    for said in history.void.get("snapshot", ()):
        if said.void == "snapshot-differs":
            case.found("snapshot-differs", said.index, f"at size {said.says['size']}: {said.says['state_sha256']}")
    for one in kept:
        _check_kept(case, history, one, end_ms)
    case.population("admitted")
    return case.close()


def _check_keys(case: Case, history: History) -> None:
    """What a compromised key signed since then: named where the quorum stands without it, refuted where it doesn't."""
    replay = history.replay
    case.counts["version of the trust root"] = replay.trust.version
    case.counts["keys flagged as compromised"] = len(replay.trust.compromised)
    spoilt = []
    for index, signatories in replay.books.signed.items():
        keys = [one for one in signatories if is_spoilt(replay.trust, index, one)]
        if keys:
            spoilt.append(index)
        if keys and not (replay.stands(index) if index in replay.books.acts else True):
            act, key = replay.books.acts[index], keys[0]
            case.found("compromised-quorum", index, f"{act.kind}, signed with {key.human}'s key {key.keyid[:16]}")
    case.counts["acts signed with a compromised key"] = len(spoilt)
    if spoilt:
        shown = ", ".join(str(index) for index in spoilt[:MAX_INDEXES])
        case.remark(f"signed with a key that a quorum flagged as compromised by then: entries {shown}")


def _check_broken_glass(case: Case, history: History) -> None:
    """Each grant by sealed keys was reviewed by the ordinary quorum in time."""
    replay = history.replay
    case.counts["grants by sealed keys"] = len(replay.books.broken_glass)
    for glass in replay.books.broken_glass.values():
        due = history.clocks[glass.index] + REVIEW_DUE_MS
        if any(history.clocks[index] <= due and replay.stands(index) for index in glass.reviews):
            case.count("reviews of them in time")
        elif history.clock_ms <= due:
            case.found("break-glass-review-due", glass.index, f"until {due} (Unix milliseconds)")
        else:
            case.found("break-glass-unreviewed", glass.index, f"{len(glass.reviews)} reviews, none of them counts")


def _check_kept(case: Case, history: History, one: Kept, end_ms: int) -> None:
    case.count("copies kept by operators")
    if one.request.digest in history.requests or one.submission in history.refused:
        return
    replay = history.replay
    try:
        asked = parse_statement(one.request.payload).predicate
        begin = asked.get("not_before_ms", 0)
        consent = verify_consent(replay.trust, one.request, (), begin, replay.books.issuers)
    except (FormatError, Refused) as error:
        case.found("copy-not-signed", None, f"request {one.request.digest[:16]}: {error}")
        return
    if begin <= end_ms:
        text = f"{consent.statement.kind} {asked['id']}, signed by {consent.initiator} from {begin} on"
        case.found("request-withheld", None, text)


def claim_c2(history: History, runs: list[Run], artifact: Artifact, shipped: Shipped | None) -> Claim:
    """None was initiated by an agent; the agent channel has no route for it.

    (1) humans initiated  (2) a canary inside tried the verbs  (3) each gateway named its surface, whose document holds
    nothing but what `core/channel.py` lists  (4) with a release: it shipped that surface, and it is what ran.
    """
    case = Case("C2")
    case.counts["initiated by humans"] = sum(history.initiators.values())  # (1)
    probed = channel_probed(runs)
    case.counts["refusals of every operator verb on the agent channel"] = len(probed)
    if not probed:  # (2)
        case.found("channel-not-probed", None, "no canary named operator-verbs was refused")
    gateways = [said for said in history.services if said.says["role"] == "gateway"]
    case.counts["gateway starts"] = len(gateways)
    if not gateways:
        case.found("surface-not-announced", None, "no gateway announced itself")
    for said in gateways:  # (3)
        if said.says["surface_sha256"] is None:
            case.found("surface-not-announced", said.index, "a gateway started without naming its surface")
        elif shipped is not None:  # (4)
            _check_shipped(case, said.index, said.says["surface_sha256"], said.says["release_sha256"], shipped)
    for digest in sorted({said.says["surface_sha256"] for said in gateways} - {None}):
        index = next(said.index for said in gateways if said.says["surface_sha256"] == digest)
        _check_surface(case, index, digest, artifact(digest))
    if shipped is None:
        case.remark("no release was given: what shipped was not compared with what ran (see --release)")
    case.population("initiated by humans")
    return case.close()


def _check_surface(case: Case, index: int, digest: Digest, data: bytes | None) -> None:
    if data is None:
        case.found("artifact-missing", index, f"agent surface {digest}")
        return
    try:
        document = parse_agent_surface(data)
    except FormatError as error:
        case.found("agent-surface-malformed", index, str(error))
        return
    case.count("agent surfaces")
    for part in ("methods", "actions", "resources"):
        case.counts[f"{part} on the agent channel"] = len(document[part])
    for route in routes(document):
        case.found("agent-surface-route", index, f"{route} is nothing that was judged harmless")


def _check_shipped(case: Case, index: int, surface: Digest, release: Digest, shipped: Shipped) -> None:
    case.count("gateway starts compared with the release")
    if release != shipped.release:
        case.found("release-differs", index, f"the gateway ran {release[:16]}, the release is {shipped.release[:16]}")
    elif surface != shipped.surface:
        text = f"the gateway named {surface[:16]}, the release ships {shipped.surface[:16]}"
        case.found("agent-surface-differs", index, text)


def claim_c3(history: History) -> Claim:
    """No action took effect without a live grant."""
    case = Case("C3")
    case.counts["intents"] = history.intents
    case.counts |= {f"outcomes {status}": count for status, count in sorted(history.outcomes.items())}
    case.counts["denied"] = history.said.get("action-denied", 0)
    for taking, call in history.taken_late:
        text = f"entry {call}, more than {TAKEN_MS // 1000} s after a human signed what entry {taking} took away"
        case.found("taken-late", call, text)
    case.counts["intents without effect"] = len(history.void_intents)
    for said in history.void.get("action-outcome", ()):
        if said.says["status"] == "not-performed":
            continue
        index, status = said.says["intent"], said.says["status"]
        reason = history.void_intents.get(index, "no such intent")
        text = f"outcome {status} for entry {index}: {said.void}, {reason}"
        code = "outcome-unknown" if status == "unknown" else "acted-without-intent"
        case.found(code, said.index, text)
    case.population("intents")
    return case.close()
