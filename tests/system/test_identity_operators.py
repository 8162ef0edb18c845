"""Operators approve with a passkey and a login at a real identity provider; who forges one of the two is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from stand import COMMAND, STRICT, Stand, folder, until

from authenticators import PasskeyDevice
from identities import ProviderKey
from ironbound.core.envelope import Envelope, SigningKey, sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.oidc import Identity, commitment, encode_identity, nonce_of
from ironbound.core.profile import Layer, merge
from ironbound.core.request import encode_approval
from ironbound.core.sshsig import namespace_of
from ironbound.core.statement import parse_statement
from ironbound.terminal import operators
from ironbound.terminal.init import initialise
from ironbound.terminal.login import Login
from ironbound.terminal.operators import Refusal, Submission
from ironbound.terminal.voice import Stop
from ironbound.wire.deployment import ROLES
from ironbound.wire.log import fresh_id
from provider_stand import IdentityProvider, Person

pytestmark = pytest.mark.slow


class Organisation:
    """A running deployment of four: Ada and Bo have a passkey and an identity each, Cy and Di a key file."""

    def __init__(self, stand: Stand, provider: IdentityProvider) -> None:
        self.stand, self.provider = stand, provider
        self.deployment = stand.deployment.trust.deployment
        self.passkeys = {name: PasskeyDevice(name) for name in ("ada", "bo")}
        self._profiles = 0

    def identity(self, name: str) -> Identity:
        trust = self.stand.deployment.trust
        return next(
            key for keyid, key in trust.keys.items() if isinstance(key, Identity) and trust.humans[keyid] == name
        )

    def both(self, name: str, **changed: Any) -> list[SigningKey]:
        """The passkey and a real login; `changed` is asked of the provider in the enrolled one's place."""
        return [self.passkeys[name], Visit(self, name, changed)]

    def forged(self, name: str, key: ProviderKey | None = None, **changed: Any) -> list[SigningKey]:
        """The passkey, and a token of any form by the provider's own key."""
        return [self.passkeys[name], Forgery(self, name, key or self.provider.keys[0], changed)]

    def profile(self) -> tuple[bytes, bytes]:
        """A request for the approval of a profile that nobody approved, and the profile."""
        self._profiles += 1
        override = f"[agent.runtime]\nmax_memory = {16 + self._profiles}\n"
        effective = merge([Layer("strict.toml", STRICT.read_bytes()), Layer("site.toml", override.encode())])
        payload = self.stand.build("profile-approval", config=effective.digest, body=effective.approval_body())
        return payload, effective.encoded

    def signed(self, asks: Sequence[SigningKey], approves: Sequence[SigningKey]) -> Submission:
        payload, artifact = self.profile()
        request = sign_envelope(payload, asks)
        expires = parse_statement(payload).predicate["expires_ms"]
        approval = encode_approval(request, deployment=self.deployment, approval_id=fresh_id(), expires_ms=expires)
        return Submission(request, (sign_envelope(approval, approves),), (artifact,))

    def submit(self, submission: Submission) -> dict[str, Any]:
        return operators.submit(self.stand.deployment, submission)

    def refused(self, submission: Submission) -> str:
        """The reason of the refusal, which is in the log."""
        start = self.stand.sync()
        with pytest.raises(Refusal) as caught:
            self.submit(submission)
        entry = self.stand.await_entry("refused", start, reason=caught.value.reason)
        assert entry.void is None
        return caught.value.reason


class Visit:
    """An identity's key that logs in for real, without a person's patience."""

    def __init__(self, place: Organisation, name: str, changed: dict[str, str]) -> None:
        self._place, self._name, self._changed = place, name, changed
        self.public = place.identity(name)

    def sign(self, message: bytes) -> bytes:
        provider = self._place.provider
        words = {"client": self.public.client, "subject": self.public.subject, "acr": self.public.acr} | self._changed
        asked = Identity(provider.issuer, role=self.public.role, **words)
        person = Person(provider.browser(), words["subject"])
        try:
            return Login(self._name, asked, person.told, patience_s=60).sign(message)
        finally:
            person.done()


class Forgery:
    """An identity's key that signs tokens with a provider's key, as the provider would, but for `changed` claims."""

    def __init__(self, place: Organisation, name: str, key: ProviderKey, changed: dict[str, Any]) -> None:
        self.public, self._key, self._changed = place.identity(name), key, changed

    def sign(self, message: bytes) -> bytes:
        ephemeral = PrivateKey.generate(os.urandom(32))
        cic = commitment(ephemeral.public, message, self.public.role, os.urandom(32))
        now = int(time.time())
        said = {"iss": self.public.issuer, "aud": self.public.client, "sub": self.public.subject,
                "acr": self.public.acr, "nonce": nonce_of(cic), "auth_time": now, "iat": now,
                "exp": now + 600}  # fmt: skip
        payload = json.dumps(said | self._changed).encode()
        token = self._key.jws({"alg": self._key.alg, "kid": self._key.kid}, payload)
        return encode_identity(token, cic, ephemeral.sign(message))


@pytest.fixture(scope="module")
def place(provider_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organisation]:
    provider = IdentityProvider(provider_place).start()
    own = {name: PasskeyDevice(name).public for name in ("ada", "bo")}
    people = {name: Identity(provider.issuer, provider.client, name, provider.acr, namespace_of("any")) for name in own}
    stand = Stand(folder(tmp_path_factory.mktemp("idop"), "d"), ("cy", "di"), own=own, identities=people)
    try:
        stand.start()
        yield Organisation(stand, provider)
    finally:
        stand.stop()
        provider.stop()


def test_two_people_approve_with_passkey_and_login(place: Organisation, tmp_path: Path) -> None:
    stand = place.stand
    done = place.submit(place.signed(place.both("ada"), place.both("bo")))
    assert done["humans"] == ["ada", "bo"]
    entry = stand.entries("admitted", done["index"])[0]
    assert entry.void is None and entry.consent is not None
    assert [one.identity for one in entry.consent.signatories] == [place.identity(one).keyid for one in ("ada", "bo")]
    for kind in ("issuer-keys", "issuer-keys-seen"):
        said = stand.entries(kind)
        assert [one.void for one in said] == [None] and said[0].index < entry.index
    bundle, pin = tmp_path / "e.ironbound", (stand.root / "pin.txt").read_text().strip()
    assert stand.command("evidence", "export", "-o", str(bundle)).returncode == 0
    report = json.loads(stand.command("verify", str(bundle), "--pin", pin, "--json", where=False).stdout)
    claim = next(one for one in report["claims"] if one["id"] == "C1")
    assert claim["status"] == "holds"
    assert claim["counts"]["signatures idp"] == claim["counts"]["signatures hw-uv"] == 2
    assert claim["counts"]["keys of identity providers, as two voices saw them"] == 1


def test_an_identity_alone_counts_for_nothing_at_the_channel(place: Organisation) -> None:
    passkey, login = place.both("ada")
    cy = [place.stand.keys["cy"]]
    assert place.refused(place.signed([login], cy)) == "identity-alone"
    assert place.refused(place.signed(cy, [Visit(place, "bo", {})])) == "identity-alone"
    assert place.refused(place.signed([place.stand.keys["di"], login], cy)) == "identity-of-another-human"
    assert place.submit(place.signed([passkey, login], cy))["humans"] == ["ada", "cy"]


def test_a_real_token_for_somebody_or_something_else_is_refused(place: Organisation) -> None:
    cy = [place.stand.keys["cy"]]
    other = place.provider.other_client
    assert place.refused(place.signed(place.both("ada", client=other), cy)) == "token-audience-differs"
    assert place.refused(place.signed(place.both("ada", subject="eve"), cy)) == "token-subject-differs"
    one, two = (place.signed(place.both("ada"), cy) for _ in range(2))
    token = next(sig for sig in one.request.signatures if sig.keyid == place.identity("ada").keyid)
    device = next(sig for sig in two.request.signatures if sig.keyid != token.keyid)
    approval = encode_approval(two.request, deployment=place.deployment, approval_id=fresh_id(),
                               expires_ms=parse_statement(two.request.payload).predicate["expires_ms"])  # fmt: skip
    mixed = Submission(Envelope(two.request.payload, (device, token)), (sign_envelope(approval, cy),), two.artifacts)
    assert place.refused(mixed) == "token-for-another-request"
    assert place.submit(one)["humans"] == place.submit(two)["humans"] == ["ada", "cy"]


def test_what_even_the_providers_key_can_not_make_good(place: Organisation) -> None:
    now, cy = int(time.time()), [place.stand.keys["cy"]]
    for changed, reason in (
        ({"auth_time": now - 3600}, "login-not-fresh"), ({"acr": "0"}, "token-acr-differs"),
        ({"exp": now - 1}, "token-expired"), ({"iss": "https://evil.example"}, "token-issuer-differs"),
        ({"azp": "payroll"}, "token-party-differs"), ({"nonce": "x"}, "token-nonce-differs"),
    ):  # fmt: skip
        assert place.refused(place.signed(place.forged("ada", **changed), cy)) == reason
    thief = ProviderKey("thief")
    assert place.refused(place.signed(place.forged("ada", thief), cy)) == "issuer-key-unknown"
    # The positive control, and the reason why an identity alone is nothing: whoever has the provider's key has this.
    assert place.submit(place.signed(place.forged("ada"), cy))["humans"] == ["ada", "cy"]


def test_after_a_rotation_new_tokens_count_at_once_and_old_ones_where_they_stand(place: Organisation) -> None:
    stand, cy = place.stand, [place.stand.keys["cy"]]
    early = place.submit(place.signed(place.both("ada"), cy))["index"]
    kept = place.signed(place.both("ada"), cy)
    place.provider.rotate(ProviderKey("second", "ES256"))
    assert place.submit(place.signed(place.both("ada"), cy))["humans"] == ["ada", "cy"]
    assert place.refused(kept) == "issuer-key-unknown"
    stand.kill("node")  # it folds the whole log anew, with the keys that stood there then
    assert stand.entries("admitted", early)[0].void is None
    keys = stand.log.with_state(lambda replay: replay.books.issuers[place.provider.issuer])
    assert set(keys.confirmed()) == {"second"} and not keys.unconfirmed()
    place.provider.rotate(ProviderKey("third", "EdDSA"))
    assert place.submit(place.signed(place.both("ada"), place.both("bo")))["humans"] == ["ada", "bo"]


def test_without_the_provider_devices_still_sign(place: Organisation) -> None:
    cy = [place.stand.keys["cy"]]
    place.provider.stop()
    try:
        with pytest.raises(Stop, match="identity provider of ada"):
            place.signed(place.both("ada"), cy)
        assert place.submit(place.signed([place.passkeys["ada"]], cy))["humans"] == ["ada", "cy"]
        # What was fetched before is in the log: a token that is still good counts while the provider is away.
        assert place.submit(place.signed(place.forged("ada"), cy))["humans"] == ["ada", "cy"]
    finally:
        place.provider.start()


def test_nobody_gets_an_identity_without_a_device(tmp_path: Path) -> None:
    who = Identity("https://idp.example", "c", "s", "a", namespace_of("d"))
    for people, named in (
        ([("ada", b"phrase")], "ada"), ([("ada", b"phrase")], "bo"),
        ([("ada", PasskeyDevice("ada").public), ("cy", b"phrase")], "cy"),
    ):  # fmt: skip
        with pytest.raises(Stop, match=f"operator {named} has an identity"):
            initialise(tmp_path / "d", "d", people, 1, identities={named: who})
    assert not (tmp_path / "d").exists()


# The command line


def test_an_organisation_from_the_command_line(security_key: Path, provider_place: Path, tmp_path: Path) -> None:
    """Ada signs with a security key, by the real ssh-keygen, and a login in a browser; Cy with a key file."""
    provider, root = IdentityProvider(provider_place).start(), folder(tmp_path, "d")

    def run(*words: str, phrases: bytes = b"", person: Person | None = None) -> subprocess.CompletedProcess[str]:
        read, write = os.pipe()
        os.write(write, phrases)
        os.close(write)
        words = (*COMMAND, *words, *(("--passphrase-fd", str(read)) if phrases else ()))
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=(read,)
        ) as made:
            os.close(read)
            assert made.stderr is not None and made.stdout is not None
            guard = threading.Timer(120, made.kill)
            guard.start()
            said = ""
            for line in made.stderr:
                said += line
                if person is not None and (url := re.search(r"http\S+/auth\?\S+", line)):
                    person.told(url[0])
            output = made.stdout.read()
            guard.cancel()
        if person is not None:
            person.done()
        return subprocess.CompletedProcess(words, made.returncode, output, said)

    people = ("--operator", f"ada={security_key}.pub", "--operator", "cy", "--quorum", "2")
    bad = run("init", str(root), *people, "--identity", f"cy={provider.enrolment('cy')[3:]}", phrases=b"1234\nours\n")
    assert bad.returncode == 1 and "operator cy has an identity, and no passkey or security key" in bad.stderr
    bad = run("init", str(root), *people, "--identity", f"ada={provider.issuer}", phrases=b"1234\nours\n")
    assert bad.returncode == 1 and "write ISSUER,CLIENT,SUBJECT,ACR" in bad.stderr
    enrolment = ("--identity", provider.enrolment("ada"))
    done = run("init", str(root), "--name", "org", *people, *enrolment, phrases=b"1234\nours\n")
    assert done.returncode == 0, done.stderr
    with open(root / "up.log", "wb") as output:
        up = subprocess.Popen([*COMMAND, "up", "-d", str(root)], stderr=output)
    try:
        until("it is up", lambda: all(f"{role}: ready" in (root / "up.log").read_text("utf-8") for role in ROLES))
        approve = ("approve", "profile", str(STRICT), "-d", str(root), "--json")
        signing = ("--sign", f"ada={security_key}", "--sign", "cy")
        phrases = b"1234\nours\n"
        wrong = run(*approve, *signing, "--login", "ada", phrases=phrases, person=Person(provider.browser(), "eve"))
        assert wrong.returncode == 1 and "token-subject-differs" in wrong.stderr
        for words, said in (
            (("--login", "cy"), "operator cy has no identities"), (("--login", "bo"), "bo logs in and does not sign"),
            (("--login", "ada=80"), "no port from 1024"),
        ):  # fmt: skip
            wrong = run(*approve, *signing, *words, phrases=phrases)
            assert wrong.returncode == 1 and said in wrong.stderr, wrong.stderr
        done = run(*approve, *signing, "--login", "ada", phrases=phrases, person=Person(provider.browser(), "ada"))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["humans"] == ["ada", "cy"]
        listed = json.loads(run("log", "-d", str(root), "--json").stdout)
        entry = next(one for one in listed if one["kind"] == "admitted")
        assert entry["about"]["signed"] == {"ada": "hw-uv+idp", "cy": "sw-pass"} and entry["void"] is None
        # What she asked with both, she withdraws with both.
        site = ("approve", "profile", str(STRICT), str(STRICT.with_name("site.toml")), "-d", str(root), "--json")
        alone = ("--sign", f"ada={security_key}", "--login", "ada")
        done = run(*site, "--propose", *alone, phrases=b"1234\n", person=Person(provider.browser(), "ada"))
        assert done.returncode == 0, done.stderr
        asked = json.loads(done.stdout)["id"]
        withdraw = ("requests", "decline", asked, "-d", str(root), "--json", *alone)
        done = run(*withdraw, phrases=b"1234\n", person=Person(provider.browser(), "ada"))
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["state"], said["declined_by"]) == ("declined", "ada")
        listed = json.loads(run("log", "-d", str(root), "--json").stdout)
        assert [one["void"] for one in listed if one["kind"] == "declined"] == [None]
        word = provider.enrolment("ada")[4:]
        told = json.loads(run("operator", "key", word, "--deployment-id", "org").stdout)
        assert told["entry"]["subject"] == "ada" and told["entry"]["scheme"] == "oidc"
    finally:
        up.terminate()
        up.wait(60)
        provider.stop()
