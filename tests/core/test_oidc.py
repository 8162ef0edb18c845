"""An identity: each forgery of a token, of its login or of its provider's keys is refused for the reason that it has,
an identity alone counts for nothing, and a provider's keys are those that controller and monitor both said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha3_256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authenticators import DEPLOYMENT, PasskeyDevice, SshDevice, seed
from identities import ACR, CLIENT, ISSUER, Login, ProviderKey, archive
from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError, base64url, canonical, sha256_hex
from ironbound.core.envelope import Envelope, SigningKey, sign_envelope
from ironbound.core.keys import PrivateKey, SignatureInvalid
from ironbound.core.oidc import FRESH_LOGIN_S, SKEW_S, Identity, IssuerKeys, PresentIdentity, nonce_of, verify_identity
from ironbound.core.reasons import REASONS
from ironbound.core.replay import Entry
from ironbound.core.request import encode_approval, encode_decline
from ironbound.core.scheme import key_entry, parse_key, verify_scheme
from ironbound.core.statement import Subject, encode_statement, parse_statement
from ironbound.core.strength import Strength
from ironbound.core.trust import parse_trust_root
from verifier.lab import Lab, digest_of

MESSAGE = b"DSSEv1 28 application/vnd.in-toto+json 2 {}"
OTHER = b"DSSEv1 28 application/vnd.in-toto+json 4 {  }"
NOW_S = 1_800_000_000
KEY, THIEF = ProviderKey("k1"), ProviderKey("thief")


def present(keys: IssuerKeys | None = None, now_s: int = NOW_S, login: Login | None = None) -> PresentIdentity:
    return PresentIdentity((login or Login()).public, archive(KEY) if keys is None else keys, now_s * 1000)


def refused(key: Any, signature: bytes, message: bytes = MESSAGE) -> str:
    with pytest.raises(SignatureInvalid) as caught:
        verify_scheme(key, signature, message)
    assert caught.value.code in REASONS
    return caught.value.code


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_a_fresh_login_for_this_content_counts_as_the_providers_word(alg: str) -> None:
    login = Login(key=ProviderKey("k2", alg))
    keys = archive(KEY, login.key)
    assert verify_scheme(present(keys), login.sign(MESSAGE), MESSAGE).strength is Strength.PROVIDER
    assert refused(present(keys), login.sign(MESSAGE), OTHER) == "token-for-another-request"
    entry = key_entry(login.public)
    assert parse_key(entry, DEPLOYMENT) == login.public and entry["scheme"] == login.public.scheme


#: Within the rules, but not as everybody does it.
LAX: dict[str, Login] = {
    "an audience as a list": Login(claims={"aud": [CLIENT]}),
    "the authorised party is named": Login(claims={"azp": CLIENT}),
    "more claims": Login(claims={"email": "ada@example.org", "weight": 1.5, "address": {"country": "XX"}}),
    "no typ": Login(header={"typ": None}),
    "logged in some minutes before": Login(claims={"auth_time": NOW_S - FRESH_LOGIN_S}),
    "logged in just after its token was made": Login(claims={"auth_time": NOW_S + SKEW_S}),
    "the provider's clock is fast": Login(claims={"iat": NOW_S + 60, "auth_time": NOW_S + 60}),
}

#: What is wrong with a signature → the reason.
FORGED: dict[str, tuple[Login, str]] = {
    "of another request": (Login(message=OTHER), "token-for-another-request"),
    "of another deployment": (Login(cic={"role": "ironbound-operator@other"}), "token-for-another-deployment"),
    "another provider's": (Login(claims={"iss": "https://evil.example"}), "token-issuer-differs"),
    "another tenant's": (Login(claims={"iss": ISSUER + "2"}), "token-issuer-differs"),
    "a provider that looks alike": (Login(claims={"iss": ISSUER.upper()}), "token-issuer-differs"),
    "no provider named": (Login(claims={"iss": None}), "token-issuer-differs"),
    "another audience": (Login(claims={"aud": "payroll"}), "token-audience-differs"),
    "more than one audience": (Login(claims={"aud": [CLIENT, "payroll"]}), "token-audience-differs"),
    "no audience": (Login(claims={"aud": None}), "token-audience-differs"),
    "an empty audience": (Login(claims={"aud": []}), "token-audience-differs"),
    "another authorised party": (Login(claims={"azp": "payroll"}), "token-party-differs"),
    "another person's": (Login(claims={"sub": "sub-eve"}), "token-subject-differs"),
    "nobody's": (Login(claims={"sub": None}), "token-subject-differs"),
    "a person who is a number": (Login(claims={"sub": 7}), "token-subject-differs"),
    "without a nonce, as in the device flow": (Login(claims={"nonce": None}), "token-nonce-missing"),
    "another nonce": (Login(claims={"nonce": "n-0S6_WzA2Mj"}), "token-nonce-differs"),
    "an empty nonce": (Login(claims={"nonce": ""}), "token-nonce-differs"),
    "a password, where a key is asked": (Login(claims={"acr": "0"}), "token-acr-differs"),
    "no acr": (Login(claims={"acr": None}), "token-acr-differs"),
    "several acr": (Login(claims={"acr": [ACR]}), "token-acr-differs"),
    "a session that was there": (Login(claims={"auth_time": NOW_S - FRESH_LOGIN_S - 1}), "login-not-fresh"),
    "a session of yesterday": (Login(claims={"auth_time": NOW_S - 86_400}), "login-not-fresh"),
    "a login after its token": (Login(claims={"auth_time": NOW_S + 120}), "login-not-fresh"),
    "no time of login": (Login(claims={"auth_time": None}), "login-time-missing"),
    "expired": (Login(claims={"exp": NOW_S}), "token-expired"),
    "expired long ago": (Login(at_s=NOW_S - 7200), "token-expired"),
    "made tomorrow": (Login(at_s=NOW_S + 86_400), "token-too-early"),
    "never ends": (Login(claims={"exp": None}), "token-malformed"),
    "a time in words": (Login(claims={"iat": "now"}), "token-malformed"),
    "a time as a flag": (Login(claims={"auth_time": True}), "token-malformed"),
    "a time with a fraction": (Login(claims={"exp": NOW_S + 0.5}), "token-malformed"),
    "another ephemeral key": (Login(ephemeral="thief"), "ephemeral-key-differs"),
    "alg none": (Login(header={"alg": "none"}), "token-unsigned"),
    "another algorithm": (Login(header={"alg": "PS256"}), "token-algorithm-differs"),
    "its own key": (Login(key=THIEF, header={"kid": "k1", "jwk": THIEF.jwk()}), "token-header-refused"),
    "the address of a key": (Login(key=THIEF, header={"jku": "https://evil.example/"}), "token-header-refused"),
    "another key under the provider's kid": (Login(key=THIEF, header={"kid": "k1"}), "token-signature-invalid"),
    "a key that nobody said": (Login(key=THIEF), "issuer-key-unknown"),
    "no kid": (Login(header={"kid": None}), "issuer-key-unknown"),
}  # fmt: skip


@pytest.mark.parametrize("what", LAX)
def test_what_the_specification_leaves_open_is_taken(what: str) -> None:
    assert verify_scheme(present(), LAX[what].sign(MESSAGE), MESSAGE)


@pytest.mark.parametrize("what", FORGED)
def test_a_token_that_is_not_for_this_is_refused(what: str) -> None:
    login, reason = FORGED[what]
    assert refused(present(), login.sign(MESSAGE)) == reason
    assert verify_scheme(present(), Login().sign(MESSAGE), MESSAGE)


def test_a_token_signed_with_the_providers_public_key_as_a_secret_is_refused() -> None:
    login = Login()
    for secret in (json.dumps(KEY.jwk()).encode(), KEY.public.members[0].encode()):
        token = KEY.hmac_jws({"alg": "HS256", "kid": "k1"}, login.payload(MESSAGE), secret)
        assert refused(present(), login.sign(MESSAGE, token)) == "token-algorithm-differs"
    bare = f"{base64url(canonical({'alg': 'none'}))}.{base64url(login.payload(MESSAGE))}."
    assert refused(present(), login.sign(MESSAGE, bare)) == "token-unsigned"


def test_a_token_whose_claims_are_no_object_is_malformed() -> None:
    head = {"alg": KEY.alg, "kid": KEY.kid}
    for payload in (b"[]", b"{", b"7", b"", b'{"a":1,"a":2}', b'{"a":[[[[[[[[[]]]]]]]]]}'):
        signature = Login().sign(MESSAGE, KEY.jws(head, payload))
        assert refused(present(), signature) == "token-malformed"


def test_a_token_is_of_no_use_to_whoever_reads_it_in_the_log() -> None:
    """Token and CIC are public; without the ephemeral key they sign nothing, and they are about one content."""
    login = Login()
    published = json.loads(login.sign(MESSAGE))
    for theirs in ("thief", "b"):
        again = Login(ephemeral=theirs).sign(MESSAGE, published["token"])
        assert refused(present(), again) == "ephemeral-key-differs"
    theirs = base64url(PrivateKey.generate(seed("b")).public.raw)
    own = Login(cic={"upk": {"crv": "Ed25519", "kty": "OKP", "x": theirs}}, ephemeral="b")
    assert refused(present(), own.sign(MESSAGE, published["token"])) == "token-nonce-differs"
    assert refused(present(), login.sign(OTHER, published["token"]), OTHER) == "token-nonce-differs"
    stolen = canonical({**published, "signature": json.loads(login.sign(OTHER))["signature"]})
    assert refused(present(), stolen, OTHER) == "token-for-another-request"


def test_an_identitys_signature_has_one_spelling() -> None:
    good = Login().sign(MESSAGE)
    value = json.loads(good)
    cic = value["cic"]
    for bad in (
        b"", good + b"\n", good.replace(b":", b": ", 1), canonical(value | {"more": ""}), canonical([]), b"\xff",
        canonical({"token": value["token"], "cic": cic}), canonical(value | {"token": 1}),
        canonical(value | {"cic": 1}), canonical(value | {"cic": {}}), b" " * 20_000,
        canonical(value | {"signature": value["signature"] + "="}),
        *(canonical(value | {"cic": cic | change}) for change in (
            {"more": 1}, {"typ": "JWT"}, {"alg": "ES256"}, {"rz": ""}, {"rz": 1}, {"upk": {}}, {"upk": "x"},
            {"upk": cic["upk"] | {"crv": "X25519"}}, {"upk": cic["upk"] | {"d": "x"}},
            {"upk": cic["upk"] | {"x": base64url(bytes(32))}},
        )),
    ):  # fmt: skip
        assert refused(present(), bad) == "signature-malformed", bad[:80]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_change_of_any_bit_leaves_an_identitys_signature_valid(data: st.DataObject) -> None:
    signature = bytearray(Login().sign(MESSAGE))
    signature[data.draw(st.integers(0, len(signature) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    refused(present(), bytes(signature))


def test_a_key_counts_while_both_voices_say_it() -> None:
    """The forged key set: the controller says a key of its own, under a new kid or in the place of the provider's."""
    forged = Login(key=THIEF)
    assert refused(present(archive(KEY)), forged.sign(MESSAGE)) == "issuer-key-unknown"
    assert refused(present(archive(KEY, unseen=(THIEF,))), forged.sign(MESSAGE)) == "issuer-key-unconfirmed"
    swapped = IssuerKeys({"k1": THIEF.public}, {"k1": KEY.public})
    taken = Login(key=THIEF, header={"kid": "k1"}).sign(MESSAGE)
    assert refused(present(swapped), taken) == "issuer-key-unconfirmed"
    assert refused(present(swapped), Login().sign(MESSAGE)) == "token-signature-invalid"
    assert refused(present(IssuerKeys({}, {"thief": THIEF.public})), forged.sign(MESSAGE)) == "issuer-key-unknown"
    assert refused(present(IssuerKeys()), Login().sign(MESSAGE)) == "issuer-key-unknown"
    # The positive control: what both say is believed. Both together could forge it; the device's key is then missing.
    assert verify_scheme(present(archive(KEY, THIEF)), forged.sign(MESSAGE), MESSAGE)


def test_an_identity_is_judged_by_nothing_where_its_providers_keys_are_unknown() -> None:
    assert refused(Login().public, Login().sign(MESSAGE)) == "identity-alone"


def test_only_sound_identities_can_be_enrolled() -> None:
    for issuer in (
        "", "http://idp.example", "https://idp.example?x", "https://idp.example/#f", "https://user@idp.example",
        "https://IDP.example", "ftp://idp.example", "https://idp.example:0", "http://127.0.0.1.evil.example",
        "http://localhost.evil.example:1", "https://idp.example/%2e", "https://" + "a" * 250, "https://idp.example/é",
    ):  # fmt: skip
        with pytest.raises(FormatError) as caught:
            Identity(issuer, CLIENT, "s", ACR, "r")
        assert caught.value.code == "key-invalid"
    for client, subject, acr in (("", "s", "a"), ("c", "", "a"), ("c", "s", ""), ("c d", "s", "a"), ("c", "ä", "a"),
                                 ("c", "s", "a\n"), ("c" * 256, "s", "a")):  # fmt: skip
        with pytest.raises(FormatError) as caught:
            Identity(ISSUER, client, subject, acr, "r")
        assert caught.value.code == "key-invalid"
    for issuer in (
        "http://127.0.0.1:3000",
        "http://localhost:3000/op",
        "https://idp.example/",
        "https://a.b:8443/x/v2.0",
        "https://idp.example/" + "a" * 235,
    ):
        assert Identity(issuer, CLIENT, "s", ACR, "r").issuer == issuer
    one, other = Identity(ISSUER, "a", "s", "1", "r"), Identity(ISSUER, "b", "s", "2", "r")
    assert one.keyid == other.keyid != Identity(ISSUER, "a", "t", "1", "r").keyid


def test_the_nonce_is_the_sha3_of_the_canonical_cic() -> None:
    cic = Login().commitment(MESSAGE)
    text = json.dumps(cic, sort_keys=True, separators=(",", ":"))
    assert nonce_of(cic) == base64url(sha3_256(text.encode()).digest())
    assert verify_identity(present(), Login().sign(MESSAGE), MESSAGE).counter is None


# In a deployment: Ada has a file, a security key and an identity; Bob a passkey and an identity; Cy a file alone.


class Deployment(Lab):
    """A lab whose operators have identities, and whose controller and monitor say a provider's keys."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.devices: dict[str, SigningKey] = {"ada": SshDevice("ada's"), "bob": PasskeyDevice("bob's")}
        self.provider = ProviderKey("k1", "ES256")
        body = parse_statement(self.replay.trust.envelope.payload).predicate
        for operator in body["operators"]:
            name = operator["name"]
            if name in self.devices:
                operator["keys"] += [key_entry(self.devices[name].public), key_entry(Login(name).public)]
        body["quorum"] = dict.fromkeys(body["quorum"], 2)
        payload = encode_statement("trust-root", (Subject("lab", digest_of("lab")),), body)
        self.entries.clear(), self.said.clear()
        self.replay = type(self.replay)()
        self.append(sign_envelope(payload, list(self.humans.values())).encode())

    def login(self, name: str, **options: Any) -> Login:
        return Login(name, at_s=self.now // 1000, key=options.pop("key", self.provider), **options)

    def with_both(self, name: str, **options: Any) -> list[SigningKey]:
        return [self.devices[name], self.login(name, **options)]

    def keys(self, voice: str, *keys: ProviderKey, issuer: str = ISSUER) -> Entry:
        kind = {"controller": "issuer-keys", "monitor": "issuer-keys-seen"}[voice]
        return self.say(voice, kind, issuer=issuer, keys=[one.public.entry() for one in keys])

    def both_say(self, *keys: ProviderKey) -> None:
        for voice in ("controller", "monitor"):
            self.expect(self.keys(voice, *keys))

    def asked(self, *, ada: Sequence[SigningKey], bob: Sequence[SigningKey]) -> tuple[Envelope, Envelope]:
        """A profile's approval that Ada asks for and Bob approves, with these keys."""
        plain = self.request("profile-approval", config_sha256=digest_of(self.fresh()),
                             body={"profile": "p", "layers": []})  # fmt: skip
        request = sign_envelope(plain.payload, ada)
        payload = encode_approval(request, deployment="lab", approval_id=self.fresh(), expires_ms=self.now + 600_000)
        return request, sign_envelope(payload, bob)

    def outcome(self, *, ada: Sequence[SigningKey], bob: Sequence[SigningKey]) -> str | None:
        """Why the log voids it, or None; what a look ahead says is the same."""
        request, approval = self.asked(ada=ada, bob=bob)
        try:
            self.replay.consider(request, [approval], self.now)
            before = None
        except Refused as error:
            before = error.reason
        entry = self.admit(request, [approval])
        assert entry.void == before
        return entry.void


def deployed() -> Deployment:
    lab = Deployment()
    lab.both_say(lab.provider)
    return lab


def test_people_approve_with_identity_and_device() -> None:
    lab = deployed()
    request, approval = lab.asked(ada=lab.with_both("ada"), bob=lab.with_both("bob"))
    entry = lab.admit(request, [approval])
    assert entry.void is None and entry.consent is not None
    assert [one.human for one in entry.consent.signatories] == ["ada", "bob"]
    for one in entry.consent.signatories:
        assert one.strength is Strength.HARDWARE_VERIFIED
        assert one.keyid == lab.devices[one.human].public.keyid and one.identity == Login(one.human).public.keyid
    # A device key alone counts as before, and so does a file: an identity takes nothing away.
    assert lab.outcome(ada=[lab.devices["ada"]], bob=[lab.devices["bob"]]) is None
    assert lab.outcome(ada=[lab.humans["ada"]], bob=[lab.humans["bob"]]) is None


def test_an_identity_alone_never_counts() -> None:
    lab = deployed()
    good = lab.with_both("bob")
    for keys, reason in (
        ([lab.login("ada")], "identity-alone"),
        ([lab.humans["ada"], lab.login("ada")], "identity-alone"),
        ([lab.devices["bob"], lab.login("ada")], "identity-of-another-human"),
        ([lab.login("ada"), lab.login("bob")], "signature-count"),
        ([lab.humans["ada"], lab.devices["ada"]], "signature-count"),
        ([lab.humans["ada"], lab.devices["ada"], lab.login("ada")], "signature-count"),
        ([lab.devices["ada"], lab.login("eve")], "signer-unknown"),
    ):
        assert lab.outcome(ada=keys, bob=good) == reason
        assert lab.outcome(ada=good, bob=keys) == reason, "as an approver"
    assert lab.outcome(ada=lab.with_both("ada"), bob=good) is None


def test_a_bad_token_beside_a_good_device_voids_the_whole() -> None:
    lab = deployed()
    for options, reason in (
        ({"claims": {"acr": "0"}}, "token-acr-differs"), ({"message": OTHER}, "token-for-another-request"),
        ({"claims": {"auth_time": 1}}, "login-not-fresh"), ({"key": ProviderKey("new", "ES256")}, "issuer-key-unknown"),
        ({"ephemeral": "thief"}, "ephemeral-key-differs"),
    ):  # fmt: skip
        assert lab.outcome(ada=lab.with_both("ada", **options), bob=[lab.devices["bob"]]) == reason


@pytest.mark.parametrize("name", ["ada", "bob"])
def test_a_token_is_not_looked_at_beside_a_device_s_signature_that_is_not_good(name: str) -> None:
    """A stranger who knows the ids could else have controller and monitor ask the provider, again and again."""
    lab = deployed()
    new = ProviderKey("new", "ES256")
    keys = {"ada": [lab.devices["ada"]], "bob": [lab.devices["bob"]]} | {name: lab.with_both(name, key=new)}
    request, approval = lab.asked(**keys)
    assert lab.admit(request, [approval]).void == "issuer-key-unknown"
    asked = request if name == "ada" else approval
    device = sign_envelope(b"something else", [lab.devices[name]]).signatures[0]
    token = next(one for one in asked.signatures if one.keyid != device.keyid)
    forged = Envelope(asked.payload, (device, token))
    void = lab.admit(forged if name == "ada" else request, [approval if name == "ada" else forged]).void
    assert void == {"ada": "signature-invalid", "bob": "challenge-differs"}[name]


def test_an_identity_s_approval_of_what_waits_counts_until_its_provider_s_key_is_gone() -> None:
    lab = Deployment()
    for voice in ("monitor", "controller"):  # whoever speaks first
        lab.expect(lab.keys(voice, lab.provider))
    request, approval = lab.asked(ada=lab.with_both("ada"), bob=lab.with_both("bob"))
    lab.expect(lab.say("controller", "proposed", request=request.as_value()))
    lab.expect(lab.say("controller", "seconded", request_sha256=request.digest, approval=approval.as_value()))
    proposal = lab.replay.books.proposals[request.digest]
    assert lab.replay.counting(proposal, lab.now) == [(approval, "bob")]
    assert lab.replay.prospect(request, lab.now) is None
    lab.both_say(ProviderKey("k2", "ES256"))
    assert lab.replay.counting(proposal, lab.now) == []
    assert lab.replay.prospect(request, lab.now) == "issuer-key-unknown"


def test_a_token_is_of_no_use_on_another_request_of_the_same_human() -> None:
    lab = deployed()
    one, _ = lab.asked(ada=lab.with_both("ada"), bob=[lab.devices["bob"]])
    other, approval = lab.asked(ada=[lab.devices["ada"]], bob=[lab.devices["bob"]])
    token = next(sig for sig in one.signatures if sig.keyid == Login("ada").public.keyid)
    mixed = Envelope(other.payload, (*other.signatures, token))
    assert lab.admit(mixed, [approval]).void == "token-for-another-request"


def test_a_decline_with_an_identity_is_judged_as_an_approval_is() -> None:
    lab = deployed()
    request, approval = lab.asked(ada=lab.with_both("ada"), bob=lab.with_both("bob"))
    lab.expect(lab.say("controller", "proposed", request=request.as_value()))
    payload = encode_decline(request, deployment="lab", decline_id=lab.fresh(), expires_ms=lab.now + 600_000)

    def declined(answer: Envelope) -> str | None:
        entry = lab.say("controller", "declined", request_sha256=request.digest, decline=answer.as_value())
        return entry.void

    of_approval = next(sig for sig in approval.signatures if sig.keyid == Login("bob").public.keyid)
    by_device = sign_envelope(payload, [lab.devices["bob"]]).signatures[0]
    mixed = tuple(sorted((by_device, of_approval), key=lambda one: one.keyid))
    assert declined(Envelope(payload, mixed)) == "token-for-another-request"
    for keys, reason in (
        ([lab.login("bob")], "identity-alone"),
        ([lab.humans["ada"], lab.login("ada")], "identity-alone"),
        ([lab.devices["bob"], lab.login("ada")], "identity-of-another-human"),
        (lab.with_both("bob", claims={"acr": "0"}), "token-acr-differs"),
        (lab.with_both("bob", claims={"auth_time": 1}), "login-not-fresh"),
        (lab.with_both("bob", key=ProviderKey("new", "ES256")), "issuer-key-unknown"),
        (lab.with_both("bob", header={"alg": "none"}), "token-unsigned"),
    ):
        assert declined(sign_envelope(payload, keys)) == reason
        assert lab.replay.books.proposals[request.digest].declined < 0
    assert declined(sign_envelope(payload, lab.with_both("bob"))) is None
    assert lab.replay.books.proposals[request.digest].declined_by == "bob"
    assert lab.admit(request, [approval]).void == "request-declined"


def test_an_expired_token_is_not_revived_by_a_controller_that_dates_its_word_back() -> None:
    lab = deployed()
    short = lab.with_both("bob", claims={"exp": lab.now // 1000 + 9})
    request, approval = lab.asked(ada=lab.with_both("ada"), bob=short)
    then = lab.now
    lab.now += 20_000
    lab.expect(lab.ask("profile-approval", config_sha256=digest_of("later"), body={"profile": "p", "layers": []}))
    assert lab.admit(request, [approval], at_ms=then).void == "token-expired"


def test_a_forged_key_set_gives_the_controller_nothing() -> None:
    """It owns the control plane and the provider's name, says a key set of its own, and signs tokens with it."""
    lab = deployed()
    thief = ProviderKey("thief", "ES256")
    lab.expect(lab.keys("controller", lab.provider, thief))
    forged = lab.with_both("ada", key=thief)
    assert lab.outcome(ada=forged, bob=[lab.devices["bob"]]) == "issuer-key-unconfirmed"
    swapped = ProviderKey("k1", "EdDSA")
    lab.expect(lab.keys("controller", swapped))
    assert lab.outcome(ada=lab.with_both("ada", key=swapped), bob=[lab.devices["bob"]]) == "issuer-key-unconfirmed"
    assert lab.outcome(ada=lab.with_both("ada"), bob=[lab.devices["bob"]]) == "token-algorithm-differs"
    # It can't speak for the monitor either; nor the monitor for it.
    for voice, kind in (("controller", "issuer-keys-seen"), ("monitor", "issuer-keys"), ("node", "issuer-keys")):
        assert lab.say(voice, kind, issuer=ISSUER, keys=[thief.public.entry()]).void == "voice-not-entitled"
    assert lab.keys("controller", thief, issuer="https://evil.example").void == "issuer-unknown"
    lab.both_say(lab.provider)
    assert lab.outcome(ada=lab.with_both("ada"), bob=[lab.devices["bob"]]) is None


def test_the_verifier_finds_what_a_controller_admits_by_a_forged_key_set() -> None:
    """It writes the entry all the same; the log is whole and witnessed, the device's signature is good."""
    lab = deployed()
    lab.expect(lab.admit(*waiting(lab.asked(ada=lab.with_both("ada"), bob=lab.with_both("bob")))))
    report = lab.verify()
    claim = next(one for one in report.claims if one.id == "C1")
    assert (claim.status, claim.counts["signatures idp"], claim.remarks) == ("holds", 2, ())
    thief = ProviderKey("thief", "ES256")
    lab.expect(lab.keys("controller", lab.provider, thief))
    forged = lab.asked(ada=lab.with_both("ada", key=thief), bob=[lab.devices["bob"]])
    index = lab.admit(*waiting(forged)).index
    claim = next(one for one in lab.verify().claims if one.id == "C1")
    assert claim.status == "refuted" and "the controller's word alone" in claim.remarks[0]
    assert [(one.code, one.indexes, one.text) for one in claim.reasons] == [
        ("request-not-authorised", (index,), "issuer-key-unconfirmed")
    ]


def waiting(asked: tuple[Envelope, Envelope]) -> tuple[Envelope, list[Envelope]]:
    return asked[0], [asked[1]]


def test_after_a_rotation_old_tokens_still_count_where_they_stand_and_no_new_ones() -> None:
    lab = deployed()
    old, new = lab.provider, ProviderKey("k2", "RS256")
    admitted = lab.admit(*waiting(lab.asked(ada=lab.with_both("ada"), bob=[lab.devices["bob"]])))
    lab.both_say(new)
    assert lab.outcome(ada=lab.with_both("ada", key=old), bob=[lab.devices["bob"]]) == "issuer-key-unknown"
    assert lab.outcome(ada=lab.with_both("ada", key=new), bob=[lab.devices["bob"]]) is None
    again = type(lab.replay)()
    replayed = [again.apply(data) for data in lab.entries]
    assert replayed[admitted.index].void is None and again.books.issuers[ISSUER].confirmed() == {"k2": new.public}


def test_a_malformed_key_set_is_void_and_changes_nothing() -> None:
    lab = deployed()
    entry = lab.provider.public.entry()
    before = dict(lab.replay.books.issuers)
    bad: list[list[Mapping[str, Any]]] = [
        [entry, entry], [{**entry, "x": entry["y"]}], [{**entry, "kid": ""}],
        [{"kid": "r", "alg": "RS256", "n": base64url(b"\x01" * 128)}],
    ]  # fmt: skip
    for voice, kind in (("controller", "issuer-keys"), ("monitor", "issuer-keys-seen")):
        for keys in bad:
            assert lab.say(voice, kind, issuer=ISSUER, keys=keys).void == "body-malformed"
    for keys in ([{**entry, "d": "x"}], [{**entry, "alg": "HS256"}]):
        with pytest.raises(FormatError):
            lab.statement("issuer-keys", {"issuer": ISSUER, "keys": keys})
    assert lab.replay.books.issuers == before


def test_a_trust_root_lets_nobody_have_an_identity_alone_nor_sign_with_one() -> None:
    lab = Deployment()
    whole = parse_statement(lab.replay.trust.envelope.payload).predicate
    everybody = list(lab.humans.values())

    def root(change: Callable[[Any], Any], signers: Sequence[SigningKey]) -> Any:
        body = json.loads(json.dumps(whole))
        change(body["operators"])
        payload = encode_statement("trust-root", (Subject("lab", digest_of("lab")),), body)
        return parse_trust_root(sign_envelope(payload, signers).encode())

    assert root(lambda people: None, everybody).issuers == {ISSUER}
    for change in (
        lambda people: people[0]["keys"].pop(1),  # Ada's device
        lambda people: people[2]["keys"].append(key_entry(Login("cy").public)),  # a file and an identity
        lambda people: people[2].update(keys=[key_entry(Login("cy").public)]),
        lambda people: people[2].update(keys=[key_entry(SshDevice("x", None).public), key_entry(Login("cy").public)]),
    ):
        with pytest.raises(FormatError, match="^trust-root-identity: (ada|cy) has an identity, and no passkey"):
            root(change, everybody)
    twice = {**key_entry(Login("ada").public), "client": "another", "acr": "other"}
    with pytest.raises(FormatError, match="trust-root-roster"):
        root(lambda people: people[1]["keys"].append(twice), everybody)
    with pytest.raises(SignatureInvalid) as caught:
        root(lambda people: None, [*everybody, lab.login("ada")])
    assert caught.value.code == "identity-alone"
    assert sha256_hex(canonical({"issuer": ISSUER, "subject": "sub-ada"})) == Login("ada").public.keyid


def test_requests_in_the_log_are_bound_to_one_deployment() -> None:
    """The same people, devices and provider in another deployment: nothing signed there counts here."""
    lab = deployed()
    login = lab.login("ada", cic={"role": "ironbound-operator@other"})
    keys = [lab.devices["ada"], login]
    assert lab.outcome(ada=keys, bob=[lab.devices["bob"]]) == "token-for-another-deployment"
