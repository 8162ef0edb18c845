"""Trust roots: every unsound one is refused, and the sound one is the one that the pin names."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from ironbound.core.canonical import FormatError, b64encode
from ironbound.core.envelope import parse_envelope, sign_envelope
from ironbound.core.keys import PrivateKey, SignatureInvalid
from ironbound.core.note import COSIGNATURE, Signer
from ironbound.core.policy import parse_policy
from ironbound.core.replay import Replay
from ironbound.core.statement import MAX_CONSENTS, QUORUMS, Subject, encode_statement, parse_statement
from ironbound.core.tpm import AttestationKey, parse_public
from ironbound.core.trust import Human, TrustRoot, parse_pin, parse_trust_root
from verifier.lab import DAY, ORIGIN, ROLES, Lab, digest_of, key
from verifier.quoter import Quoter

LAB = Lab()
BODY: dict[str, Any] = parse_statement(parse_envelope(LAB.entries[0]).payload).predicate
SUBJECT = (Subject("lab", digest_of("lab")),)  # type: ignore[arg-type]
NAMES = ("ada", "bob", "cy")
EVERYBODY = list(LAB.humans.values())


def signed(body: dict[str, Any], keys: list[PrivateKey] | None = None) -> bytes:
    return sign_envelope(encode_statement("trust-root", SUBJECT, body), keys or EVERYBODY).encode()


def public(one: PrivateKey) -> dict[str, str]:
    return {"scheme": "ed25519", "public": b64encode(one.public.raw)}


def _policy(witness: str | None, quorum: str) -> str:
    line = "" if witness is None else f"witness w {Signer('w.example', key(witness)).verifier(COSIGNATURE).vkey}\n"
    return f"log {LAB.log.verifier().vkey}\n{line}quorum {quorum}\n"


def _other_log(body: dict[str, Any]) -> None:
    body["log"]["vkey"] = Signer(ORIGIN, key("other log")).verifier().vkey


def _log_is_a_service(body: dict[str, Any]) -> None:
    body["services"]["node"] = public(key("log"))


def _log_is_an_operator(body: dict[str, Any]) -> None:
    body["operators"][0]["keys"].append(public(key("log")))


def _witness_is_an_operator(body: dict[str, Any]) -> None:
    body["operators"][0]["keys"].append(public(key("witness")))


def _witness_is_the_log(body: dict[str, Any]) -> None:
    body["witness_policy"] = _policy("log", "w")


def _witness_is_a_service(body: dict[str, Any]) -> None:
    body["witness_policy"] = _policy("monitor", "w")


def _no_witness(body: dict[str, Any]) -> None:
    body["witness_policy"] = _policy(None, "none")


def _witness_not_asked(body: dict[str, Any]) -> None:
    body["witness_policy"] = _policy("witness", "none")


def _same_human_twice(body: dict[str, Any]) -> None:
    body["operators"][1]["name"] = body["operators"][0]["name"]


def _one_key_for_two(body: dict[str, Any]) -> None:
    body["operators"][1]["keys"].append(body["operators"][0]["keys"][0])


def _one_key_twice(body: dict[str, Any]) -> None:
    body["operators"][0]["keys"] *= 2


def _operator_is_a_service(body: dict[str, Any]) -> None:
    body["services"]["gateway"] = body["operators"][2]["keys"][0]


def _two_roles_one_key(body: dict[str, Any]) -> None:
    body["services"]["gateway"] = body["services"]["node"]


def _quorum_beyond_the_roster(body: dict[str, Any]) -> None:
    body["quorum"]["grant"] = 4


def _second_version(body: dict[str, Any]) -> None:
    body["version"] = 2


def _release_is_a_service(body: dict[str, Any]) -> None:
    body["release"] = public(key("node"))


def _release_is_the_log(body: dict[str, Any]) -> None:
    body["release"] = public(key("log"))


def _log_of_another_name(body: dict[str, Any]) -> None:
    body["log"]["origin"] = "other.example/log"


def _small_order_key(body: dict[str, Any]) -> None:
    body["operators"][0]["keys"].append({"scheme": "ed25519", "public": b64encode(bytes(32))})


def _short_key(body: dict[str, Any]) -> None:
    body["operators"][0]["keys"].append({"scheme": "ed25519", "public": b64encode(bytes(31))})


def test_no_act_takes_more_humans_than_an_entry_holds_approvals() -> None:
    body = copy.deepcopy(BODY)
    body["quorum"]["grant"] = MAX_CONSENTS
    encode_statement("trust-root", SUBJECT, body)
    body["quorum"]["grant"] += 1
    with pytest.raises(FormatError, match="expected an integer from 1 to 16"):
        encode_statement("trust-root", SUBJECT, body)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_other_log, "trust-root-log"),
        (_log_is_a_service, "trust-root-roster"),
        (_log_is_an_operator, "trust-root-roster"),
        (_witness_is_an_operator, "trust-root-roster"),
        (_witness_is_a_service, "trust-root-roster"),
        (_no_witness, "trust-root-witness"),
        (_witness_not_asked, "trust-root-witness"),
        (_same_human_twice, "trust-root-roster"),
        (_one_key_for_two, "trust-root-roster"),
        (_one_key_twice, "trust-root-roster"),
        (_operator_is_a_service, "trust-root-roster"),
        (_two_roles_one_key, "trust-root-roster"),
        (_quorum_beyond_the_roster, "trust-root-quorum"),
        (_second_version, "trust-root-version"),
        (_release_is_a_service, "trust-root-roster"),
        (_release_is_the_log, "trust-root-roster"),
        (_log_of_another_name, "trust-root-log"),
        (_small_order_key, "key-invalid"),
        (_short_key, "trust-root-key"),
    ],
)
def test_an_unsound_trust_root_is_refused_and_begins_no_log(spoil: Callable[[Any], None], code: str) -> None:
    body = copy.deepcopy(BODY)
    spoil(body)
    with pytest.raises(FormatError) as refused:
        parse_trust_root(signed(body))
    assert refused.value.code == code
    replay = Replay()
    with pytest.raises(FormatError):
        replay.apply(signed(body))
    assert replay.size == 0
    assert replay.apply(LAB.entries[0]).void is None


def test_a_log_that_is_its_own_witness_is_refused() -> None:
    body = copy.deepcopy(BODY)
    _witness_is_the_log(body)
    with pytest.raises(FormatError):
        parse_trust_root(signed(body))


def test_too_few_humans_under_the_root_are_refused() -> None:
    with pytest.raises(SignatureInvalid):
        parse_trust_root(signed(BODY, [LAB.humans["ada"]]))
    body = copy.deepcopy(BODY)
    spare = key("ada's other key")
    body["operators"][0]["keys"].append(public(spare))
    with pytest.raises(SignatureInvalid):
        parse_trust_root(signed(body, [LAB.humans["ada"], spare]))
    assert parse_trust_root(signed(body, [spare, LAB.humans["bob"]])).humans[spare.public.keyid] == "ada"


def test_who_is_not_on_the_roster_for_a_change_does_not_count_under_the_root() -> None:
    body = copy.deepcopy(BODY)
    body["operators"][2]["acts"].remove("reconfigure")
    with pytest.raises(SignatureInvalid, match="signed by 1 humans, its quorum is 2"):
        parse_trust_root(signed(body, [LAB.humans["ada"], LAB.humans["cy"]]))
    parse_trust_root(signed(body, [LAB.humans["ada"], LAB.humans["bob"]]))


def test_a_stranger_or_a_service_under_the_root_is_refused() -> None:
    for other in (key("stranger"), LAB.services["node"]):
        with pytest.raises(SignatureInvalid):
            parse_trust_root(signed(BODY, [*EVERYBODY, other]))


def test_a_root_that_was_changed_after_it_was_signed_is_refused() -> None:
    body = copy.deepcopy(BODY)
    body["quorum"]["grant"] = 1
    value = json.loads(signed(BODY))
    value["payload"] = json.loads(signed(body))["payload"]
    with pytest.raises(SignatureInvalid):
        parse_trust_root(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def test_a_trust_root_is_read_as_it_was_signed() -> None:
    body = copy.deepcopy(BODY)
    holders = [LAB.holder(one) for one in ("eli", "fay", "gil")]
    body["break_glass"] = {"quorum": 3, "holders": holders}
    body["release"] = public(key("release"))
    data = signed(body)
    humans, services = [LAB.humans[one].public for one in NAMES], {one: LAB.services[one].public for one in ROLES}
    sealed = {LAB.humans[f"{one}, sealed"].public: Human(one) for one in ("eli", "fay", "gil")}
    assert parse_trust_root(data) == TrustRoot(
        deployment="lab", environment="production", version=1, body=body, digest=parse_envelope(data).digest,
        envelope=parse_envelope(data), keys={one.keyid: one for one in (*humans, *sealed, *services.values())},
        humans={one.keyid: Human(name) for one, name in zip(humans, NAMES, strict=True)},
        acts={Human(one): frozenset(QUORUMS) for one in NAMES},
        sealed={one.keyid: human for one, human in sealed.items()}, former={}, compromised={}, services=services,
        voices={one.keyid: role for role, one in services.items()},
        quorum={**dict.fromkeys(QUORUMS, 2), "break-glass": 3}, origin=ORIGIN, log_vkey=LAB.log.verifier().vkey,
        policy_text=LAB.policy, policy=parse_policy(LAB.policy), separation="user", users={}, drift_stop_ms=5_000,
        canary_interval_ms=DAY, heartbeat_ms=365 * DAY, tpm=None, release=key("release").public,
    )  # fmt: skip
    body["tpm"] = (quoter := Quoter()).enrolment
    tpm = parse_trust_root(signed(body)).tpm
    assert tpm == AttestationKey("hardware", parse_public(quoter.public()), quoter.name)
    body["break_glass"]["quorum"] = 4
    with pytest.raises(FormatError, match="holders of sealed keys are fewer") as refused:
        parse_trust_root(signed(body))
    assert refused.value.code == "trust-root-quorum"


def test_another_statement_is_no_trust_root_and_a_second_one_changes_nothing() -> None:
    lab = Lab()
    lab.announce()
    with pytest.raises(FormatError, match="expected a trust root, got service-started") as refused:
        parse_trust_root(lab.entries[1])
    assert refused.value.code == "trust-root-kind"
    before = lab.replay.trust
    assert lab.append(signed(BODY)).void == "voice-unknown"
    assert lab.replay.trust is before


def test_a_replay_without_a_root_has_no_trust() -> None:
    with pytest.raises(FormatError):
        _ = Replay().trust


def test_the_pin_names_the_root_and_nothing_else_passes_for_a_pin() -> None:
    pin = parse_trust_root(LAB.entries[0]).pin
    assert parse_pin(str(pin)) == pin == parse_pin(f"{pin}\n")
    for text in ("", ":", "a:b:c", f"{pin}:", f":{pin}", str(pin).replace(pin.root, pin.root[:-1]), "x" * 2000):
        with pytest.raises(FormatError, match="a pin is DEPLOYMENT:SHA256:LOG-KEY on one line") as refused:
            parse_pin(text)
        assert refused.value.code == "pin-malformed"
