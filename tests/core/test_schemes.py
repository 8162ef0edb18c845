"""Each scheme takes what its key signed for this message, and refuses every forgery for the reason that it has."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

import pytest
import webauthn as second_opinion
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st
from webauthn.helpers.exceptions import WebAuthnException

from authenticators import AT, BE, BS, DEPLOYMENT, ED, UP, UV, PasskeyDevice, SshDevice, seed
from ironbound.core import sshsig
from ironbound.core import webauthn as ours
from ironbound.core.canonical import FormatError, b64encode, canonical
from ironbound.core.keys import PrivateKey, SignatureInvalid
from ironbound.core.reasons import REASONS
from ironbound.core.scheme import key_entry, parse_key, verify_scheme
from ironbound.core.sshsig import SshKey, ssh_string
from ironbound.core.strength import Strength
from ironbound.core.webauthn import Passkey, base64url, challenge_of, encode_assertion

MESSAGE = b"DSSEv1 28 application/vnd.in-toto+json 2 {}"
OTHER = b"DSSEv1 28 application/vnd.in-toto+json 4 {  }"
Device = SshDevice | PasskeyDevice


def refused(public: Any, signature: bytes, message: bytes = MESSAGE) -> str:
    """The reason why a signature does not count."""
    with pytest.raises(SignatureInvalid) as caught:
        verify_scheme(public, signature, message)
    assert caught.value.code in REASONS
    return caught.value.code


@pytest.mark.parametrize(
    ("device", "strength", "counter"),
    [
        (SshDevice("a", None), Strength.SOFTWARE, None),
        (SshDevice("a", None, algorithm=b"sha256"), Strength.SOFTWARE, None),
        (SshDevice("a"), Strength.HARDWARE_VERIFIED, 7),
        (SshDevice("a", b"ssh:ironbound", demands_verification=False), Strength.HARDWARE_VERIFIED, 7),
        (SshDevice("a", flags=UP, demands_verification=False), Strength.HARDWARE_TOUCHED, 7),
        (PasskeyDevice("a"), Strength.HARDWARE_VERIFIED, 5),
        (PasskeyDevice("a", ed25519=True, counter=0), Strength.HARDWARE_VERIFIED, 0),
        (PasskeyDevice("a", counter=0x01020304), Strength.HARDWARE_VERIFIED, 0x01020304),
        (SshDevice("a", counter=0x01020304), Strength.HARDWARE_VERIFIED, 0x01020304),
        (PasskeyDevice("a", flags=UP | UV | BE), Strength.SOFTWARE, 5),
        (PasskeyDevice("a", flags=UP | UV | BE | BS), Strength.SOFTWARE, 5),
        (PasskeyDevice("a", client={"crossOrigin": None}), Strength.HARDWARE_VERIFIED, 5),
        (PasskeyDevice("a", client={"other_keys_can_be_added_here": "?"}), Strength.HARDWARE_VERIFIED, 5),
    ],
)
def test_a_signature_counts_and_says_how_strong_it_is(device: Device, strength: Strength, counter: int | None) -> None:
    public = parse_key(key_entry(device.public), DEPLOYMENT)
    assert public == device.public and public.scheme == key_entry(public)["scheme"]
    proven = verify_scheme(public, device.sign(MESSAGE), MESSAGE)
    assert (proven.strength, proven.counter) == (strength, counter)
    wrong = "challenge-differs" if isinstance(device, PasskeyDevice) else "signature-invalid"
    assert refused(public, device.sign(MESSAGE), OTHER) == wrong


#: What is wrong with an SSH signature → the reason.
SSH: dict[str, tuple[SshDevice, str]] = {
    "for another deployment": (SshDevice("a", namespace="ironbound-operator@other"), "namespace-differs"),
    "for git": (SshDevice("a", namespace="git"), "namespace-differs"),
    "for a longer name": (SshDevice("a", namespace="ironbound-operator@lab2"), "namespace-differs"),
    "a file's, by a software key": (SshDevice("a", None, namespace="file"), "namespace-differs"),
    "not touched": (SshDevice("a", flags=UV), "user-presence-missing"),
    "no flag at all": (SshDevice("a", flags=0), "user-presence-missing"),
    "touched, not verified": (SshDevice("a", flags=UP), "user-verification-missing"),
    "an unknown flag": (SshDevice("a", flags=UP | UV | 0x02), "signature-malformed"),
    "extensions": (SshDevice("a", flags=UP | UV | ED), "signature-malformed"),
    "another hash": (SshDevice("a", algorithm=b"sha1"), "signature-malformed"),
    "no hash": (SshDevice("a", algorithm=b""), "signature-malformed"),
    "a reserved field in use": (SshDevice("a", reserved=b"x"), "signature-malformed"),
    "another key": (SshDevice("b"), "signing-key-differs"),
    "the same key for another application": (SshDevice("a", b"ssh:other"), "signing-key-differs"),
    "the same key as a software key": (SshDevice("a", None), "signing-key-differs"),
}  # fmt: skip


@pytest.mark.parametrize("what", SSH)
def test_an_ssh_signature_that_is_not_for_this_is_refused(what: str) -> None:
    device, reason = SSH[what]
    enrolled = SshDevice("a", None if what.endswith("by a software key") else b"ssh:")
    assert refused(enrolled.public, device.sign(MESSAGE)) == reason
    assert verify_scheme(enrolled.public, enrolled.sign(MESSAGE), MESSAGE)


def test_an_ssh_signature_has_one_spelling() -> None:
    for device in (SshDevice("a"), SshDevice("a", None)):
        good = device.sign(MESSAGE)
        inner = device.inner(sshsig.signed_data(device.namespace, MESSAGE))
        for bad in (
            *(good[:end] for end in range(len(good))),
            good + b"\x00",
            b" " + good,
            good.replace(b"SSHSIG", b"SSHSIH", 1),
            good[:9] + b"\x02" + good[10:],
            device.wrap(inner + b"\x00"),
            device.wrap(inner[:-1]),
            b"-----BEGIN SSH SIGNATURE-----\n" + good,
            good + bytes(sshsig.MAX_BLOB),
        ):
            assert refused(device.public, bad) == "signature-malformed"


def test_what_an_ssh_key_signs_is_framed_as_openssh_frames_it() -> None:
    """PROTOCOL.sshsig, byte by byte: magic, namespace, nothing reserved, the hash's name, the hash."""
    framed = "5353485349470000000466696c65000000000000000673686132353600000020"
    assert sshsig.signed_data("file", b"m", b"sha256") == bytes.fromhex(framed) + sha256(b"m").digest()
    longer = bytes.fromhex("0000000673686135313200000040") + sha512(b"m").digest()
    assert sshsig.signed_data("file", b"m") == bytes.fromhex("5353485349470000000466696c6500000000") + longer


def test_the_parts_of_one_ssh_signature_do_not_fit_another() -> None:
    soft, hard = SshDevice("a", None), SshDevice("a")
    covered = sshsig.signed_data(soft.namespace, MESSAGE)
    assert refused(hard.public, hard.wrap(soft.inner(covered))) == "signature-malformed"
    assert refused(soft.public, soft.wrap(hard.inner(covered))) == "signature-malformed"
    # A touch can't be written in afterwards, nor a counter be turned back.
    untouched = SshDevice("a", flags=0).inner(covered)
    assert refused(hard.public, hard.wrap(untouched[:-5] + bytes([UP | UV]) + untouched[-4:])) == "signature-invalid"
    assert refused(hard.public, hard.wrap(hard.inner(covered)[:-4] + bytes(4))) == "signature-invalid"
    other = dataclasses.replace(hard, name="b")
    swapped = hard.wrap(other.inner(covered))
    assert refused(hard.public, swapped) == "signature-invalid"
    short = ssh_string(sshsig.SOFTWARE) + ssh_string(bytes(63))
    assert refused(soft.public, soft.wrap(short)) == "signature-invalid"


def test_only_sound_ssh_keys_can_be_enrolled() -> None:
    good = SshDevice("a").blob
    raw = SshDevice("a").key.public.raw
    rsa = ssh_string(b"ssh-rsa") + ssh_string(b"\x01\x00\x01") + ssh_string(bytes(256))
    point = PasskeyDevice("a").spki[-65:]
    p256 = b"".join(map(ssh_string, (b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", point, b"ssh:")))
    for blob, verified in (
        (good + b"\x00", True), (good[:-1], True), (b"", False), (rsa, False), (p256, True),
        (ssh_string(sshsig.SOFTWARE) + ssh_string(bytes(32)), False),
        (ssh_string(sshsig.SOFTWARE) + ssh_string(raw[:31]), False),
        (SshDevice("a", None).blob, True),
        (SshDevice("a", b"web:example").blob, True), (SshDevice("a", "ssh:é".encode()).blob, True),
        (SshDevice("a", b"ssh:" + b"x" * 300).blob, True),
    ):  # fmt: skip
        with pytest.raises(FormatError):
            SshKey(blob, "ironbound-operator@lab", verified)


#: What is wrong with an assertion → the reason.
PASSKEY: dict[str, tuple[PasskeyDevice, str]] = {
    "for another party": (PasskeyDevice("a", rp_id="evil.example"), "rp-id-differs"),
    "at another origin": (PasskeyDevice("a", origin="https://evil.example"), "origin-differs"),
    "at another port": (PasskeyDevice("a", origin="http://localhost:8791"), "origin-differs"),
    "no origin": (PasskeyDevice("a", client={"origin": None}), "origin-differs"),
    "inside another page": (PasskeyDevice("a", client={"crossOrigin": True}), "origin-differs"),
    "not said whether inside": (PasskeyDevice("a", client={"crossOrigin": 0}), "origin-differs"),
    "below another page": (PasskeyDevice("a", client={"topOrigin": "https://evil.example"}), "origin-differs"),
    "of another request": (PasskeyDevice("a", challenge=challenge_of(OTHER)), "challenge-differs"),
    "the challenge is the message": (PasskeyDevice("a", challenge=MESSAGE), "challenge-differs"),
    "no challenge": (PasskeyDevice("a", client={"challenge": None}), "challenge-differs"),
    "padded challenge": (
        PasskeyDevice("a", client={"challenge": base64url(challenge_of(MESSAGE)) + "="}), "challenge-differs"),
    "a registration": (PasskeyDevice("a", client={"type": "webauthn.create"}), "ceremony-differs"),
    "a payment": (PasskeyDevice("a", client={"type": "payment.get"}), "ceremony-differs"),
    "no type": (PasskeyDevice("a", client={"type": None}), "ceremony-differs"),
    "nobody there": (PasskeyDevice("a", flags=UV), "user-presence-missing"),
    "not verified": (PasskeyDevice("a", flags=UP), "user-verification-missing"),
    "extensions": (PasskeyDevice("a", flags=UP | UV | ED, more=b"\xa0"), "signature-malformed"),
    "an attested key": (PasskeyDevice("a", flags=UP | UV | AT), "signature-malformed"),
    "bytes after the end": (PasskeyDevice("a", more=b"\x00"), "signature-malformed"),
    "backed up and not eligible": (PasskeyDevice("a", flags=UP | UV | BS), "signature-malformed"),
    "an unknown flag": (PasskeyDevice("a", flags=UP | UV | 0x20), "signature-malformed"),
    "became a synced one": (PasskeyDevice("a", flags=UP | UV | BE), "signing-key-differs"),
    "another key": (PasskeyDevice("b"), "signature-invalid"),
    "an Ed25519 signature by the same name": (PasskeyDevice("a", ed25519=True), "signature-malformed"),
}  # fmt: skip


@pytest.mark.parametrize("what", PASSKEY)
def test_an_assertion_that_is_not_for_this_is_refused(what: str) -> None:
    device, reason = PASSKEY[what]
    enrolled = PasskeyDevice("a")
    assert refused(enrolled.public, device.sign(MESSAGE)) == reason
    assert verify_scheme(enrolled.public, enrolled.sign(MESSAGE), MESSAGE)


def test_an_assertion_has_one_spelling() -> None:
    device = PasskeyDevice("a")
    data, client, signature = device.parts(MESSAGE)
    good = encode_assertion(data, client, signature)
    value = json.loads(good)
    twice = client[:-1] + b',"type":"webauthn.get"}'
    for bad in (
        b"", good + b"\n", good[:-1], good.replace(b":", b": ", 1), canonical(value | {"more": ""}),
        canonical({key: value[key] for key in ("client_data", "signature")}), canonical(value | {"signature": 1}),
        canonical(value | {"signature": value["signature"] + "="}), canonical([]), b"\xff",
        encode_assertion(data, client + b" ", signature[:-1]), encode_assertion(data, b"[]", signature),
        encode_assertion(data, b"", signature), encode_assertion(data[:-1], client, signature),
        encode_assertion(data, twice, device.raw(data + sha256(twice).digest())),
        encode_assertion(data, b" " * 5000 + client, signature), b" " * 20_000,
        encode_assertion(data, client, signature + b"\x00"), encode_assertion(data, client, b""),
        encode_assertion(data, client, b"\x30\x81" + signature[1:]),
    ):  # fmt: skip
        assert refused(device.public, bad) == "signature-malformed"
    assert refused(device.public, encode_assertion(data, client + b" ", signature)) == "signature-invalid"
    later = data[:-1] + bytes([data[-1] ^ 1])
    assert refused(device.public, encode_assertion(later, client, signature)) == "signature-invalid"


def test_only_sound_passkeys_can_be_enrolled() -> None:
    good = PasskeyDevice("a").public
    off_curve = good.spki[:-1] + bytes([good.spki[-1] ^ 1])
    for change in (
        {"spki": off_curve}, {"spki": good.spki + b"\x00"}, {"spki": b""}, {"spki": good.spki[:26] + bytes(65)},
        {"spki": KEY.public.spki()[:12] + bytes(32)},
        {"credential": b""}, {"credential": bytes(1024)}, {"rp_id": "other"}, {"rp_id": ""}, {"rp_id": "Localhost"},
        {"origin": "http://example.org"}, {"origin": "https://localhost.evil.example"}, {"origin": "https://localhost/"},
        {"origin": "https://evillocalhost"}, {"origin": "null"}, {"origin": "https://localhost:0"},
    ):  # fmt: skip
        with pytest.raises(FormatError):
            dataclasses.replace(good, **change)
    below = dataclasses.replace(good, rp_id="example.org", origin="https://ops.example.org:8443")
    assert below.keyid == good.keyid


KEY = PrivateKey.generate(seed("a"))
DEVICES: tuple[Callable[[], Any], ...] = (
    lambda: KEY, lambda: SshDevice("a", None), lambda: SshDevice("a"), lambda: PasskeyDevice("a"),
    lambda: PasskeyDevice("a", ed25519=True),
)  # fmt: skip


def test_bytes_made_in_one_scheme_are_refused_under_every_other_even_with_the_same_key() -> None:
    """`a` is one Ed25519 key in four dresses: what differs is only what the trust root says of it."""
    for enrolled in DEVICES:
        for signing in DEVICES:
            if enrolled is not signing:
                reason = refused(enrolled().public, signing().sign(MESSAGE))
                assert reason in {"signature-malformed", "signature-invalid", "signing-key-differs"}
    bare = KEY.sign(MESSAGE)
    assert refused(PasskeyDevice("a").public, bare) == refused(SshDevice("a").public, bare) == "signature-malformed"
    assert refused(KEY.public, PasskeyDevice("a", ed25519=True).parts(MESSAGE)[2]) == "signature-invalid"


def test_one_key_has_one_name_in_every_dress() -> None:
    dresses = [SshDevice("x", None).public, SshDevice("x").public, PasskeyDevice("x", ed25519=True).public]
    assert {one.keyid for one in dresses} == {PrivateKey.generate(seed("x")).public.keyid}


@settings(max_examples=60)
@given(st.data())
def test_no_change_of_any_bit_leaves_a_signature_valid(data: st.DataObject) -> None:
    device = data.draw(st.sampled_from([SshDevice("a"), SshDevice("a", None), PasskeyDevice("a", ed25519=True)]))
    signature = bytearray(device.sign(MESSAGE))
    signature[data.draw(st.integers(0, len(signature) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    refused(device.public, bytes(signature))


# Second opinions


def _library(device: PasskeyDevice, parts: tuple[bytes, bytes, bytes]) -> bool:
    data, client, signature = parts
    public = device.public
    try:
        second_opinion.verify_authentication_response(
            credential={
                "id": base64url(public.credential),
                "rawId": base64url(public.credential),
                "type": "public-key",
                "response": {
                    "authenticatorData": base64url(data),
                    "clientDataJSON": base64url(client),
                    "signature": base64url(signature),
                },
            },
            expected_challenge=challenge_of(MESSAGE),
            expected_rp_id=public.rp_id,
            expected_origin=public.origin,
            credential_public_key=device.cose(),
            credential_current_sign_count=0,
            require_user_verification=True,
        )
    except WebAuthnException:
        return False
    return True


def test_another_implementation_of_webauthn_refuses_what_it_judges_too_and_takes_what_we_take() -> None:
    for device in (PasskeyDevice("a"), PasskeyDevice("a", ed25519=True), PasskeyDevice("b", flags=UP | UV | BE | BS)):
        assert _library(device, device.parts(MESSAGE))
        assert verify_scheme(device.public, device.sign(MESSAGE), MESSAGE)
    enrolled = PasskeyDevice("a")
    laxer = {what for what, (device, _) in PASSKEY.items() if _library(enrolled, device.parts(MESSAGE))}
    assert "inside another page" in laxer and laxer <= {
        "inside another page", "not said whether inside", "below another page", "became a synced one",
        "extensions", "an attested key", "an unknown flag", "backed up and not eligible", "padded challenge",
    }  # fmt: skip


# Published attacks


def _cases(folder: Path, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    suite = json.loads((folder / "wycheproof" / name).read_bytes())
    return [(group, case) for group in suite["testGroups"] for case in group["tests"]]


def _counts(check: Callable[[], Any]) -> str:
    try:
        check()
    except SignatureInvalid as error:
        assert error.code in {"signature-invalid", "signature-malformed"}
        return "invalid"
    return "valid"


def test_wycheproof_s_ed25519_attacks_fail_inside_an_ssh_signature(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors' messages take the place of what SSHSIG assembles; every check is the real one."""
    seen = {"valid": 0, "invalid": 0}
    for group, case in _cases(shared_data, "ed25519_test.json"):
        blob = ssh_string(sshsig.SOFTWARE) + ssh_string(bytes.fromhex(group["publicKey"]["pk"]))
        public = SshKey(blob, "ironbound-operator@lab", False)
        inner = ssh_string(sshsig.SOFTWARE) + ssh_string(bytes.fromhex(case["sig"]))
        parts = (blob, b"ironbound-operator@lab", b"", b"sha512", inner)
        signature = b"SSHSIG\x00\x00\x00\x01" + b"".join(ssh_string(one) for one in parts)
        message = bytes.fromhex(case["msg"])
        monkeypatch.setattr(sshsig, "signed_data", lambda *_, covered=message: covered)
        assert _counts(lambda a=public, b=signature: verify_scheme(a, b, MESSAGE)) == case["result"], case["tcId"]
        seen[case["result"]] += 1
    assert seen["valid"] > 80 and seen["invalid"] > 60


#: The order of Ed25519's group, and the prime of its field.
L, P = 2**252 + 27742317777372353535851937790883648493, 2**255 - 19


def _transplanted(case: dict[str, Any], public: bytes, good: bytes) -> bytes | None:
    """What a published attack did to its signature, done to this one. None if we don't know what that was."""
    attack, theirs, comment = case["flags"][0], bytes.fromhex(case["sig"]), case["comment"]
    r, s = good[:32], int.from_bytes(good[32:], "little")
    if added := re.search(r"replaced by s \+ (\d*L|2\^\d+|p)\b", comment):
        word = added[1]
        more = P if word == "p" else 2 ** int(word[2:]) if "^" in word else int(word[:-1] or 1) * L
        return r + (s + more).to_bytes(32, "little")
    if bit := re.match(r"modified bit (\d+) in R", comment):
        return (int.from_bytes(r, "little") ^ 1 << int(bit[1])).to_bytes(32, "little") + good[32:]
    if comment == "all bits flipped in R":
        return bytes(255 - one for one in r) + good[32:]
    if attack == "InvalidEncoding" and len(theirs) == 64:  # what stands in R's place is no point, whoever signs
        return theirs[:32] + good[32:]
    if attack in ("InvalidSignature", "InvalidKtv") and len(theirs) == 64:
        return theirs
    if attack in ("TruncatedSignature", "CompressedSignature"):
        return good[: len(theirs)]
    made = {
        "signature too long": good + b"  ", "include pk in signature": good + public,
        "prepending 0 byte to signature": b"\0" + good, "prepending 0 byte to s": r + b"\0" + good[32:],
        "appending 0 byte to signature": good + b"\0",
    }  # fmt: skip
    return made.get(comment)


def test_what_wycheproof_s_attacks_do_fails_when_done_to_a_security_key_s_signature(shared_data: Path) -> None:
    """A security key signs hashes, so published bytes can't be its; what was done to them can be done to its own."""
    device = SshDevice("a")
    good = device.inner(sshsig.signed_data(device.namespace, MESSAGE))
    head, raw, end = good[: -(64 + 4 + 5)], good[-(64 + 5) : -5], good[-5:]
    assert verify_scheme(device.public, device.wrap(head + ssh_string(raw) + end), MESSAGE)
    tried, twins = 0, 0
    for _, case in _cases(shared_data, "ed25519_test.json"):
        if case["result"] != "invalid":
            continue
        bad = _transplanted(case, device.key.public.raw, raw)
        assert bad is not None and bad != raw, case
        assert refused(device.public, device.wrap(head + ssh_string(bad) + end)) == "signature-invalid", case["tcId"]
        tried += 1
        twins += bad[:32] == raw[:32] and len(bad) == 64 and (
            int.from_bytes(bad[32:], "little") % L == int.from_bytes(raw[32:], "little")
        )  # fmt: skip
    assert tried > 60 and twins == 4, "four of them satisfy the equation, and only the range of s forbids them"


@pytest.mark.parametrize(
    ("suite", "valid", "invalid"),
    [("ed25519_test.json", 80, 60), ("ecdsa_secp256r1_sha256_test.json", 170, 300)],
)
def test_wycheproof_s_attacks_fail_inside_an_assertion(shared_data: Path, suite: str, valid: int, invalid: int) -> None:
    seen = {"valid": 0, "invalid": 0}
    for group, case in _cases(shared_data, suite):
        public = Passkey(bytes.fromhex(group["publicKeyDer"]), b"c", "localhost", "http://localhost", False)
        sig, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
        assert _counts(lambda a=public, b=sig, c=message: ours._verify(a, b, c)) == case["result"], case["tcId"]
        seen[case["result"]] += 1
    assert seen["valid"] > valid and seen["invalid"] > invalid


def test_an_ecdsa_signature_s_twin_counts_for_the_same_words_only() -> None:
    """(r, n - s) is as valid as (r, s): so nothing may hang on a signature's bytes, and nothing does."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    device = PasskeyDevice("a")
    data, client, signature = device.parts(MESSAGE)
    r, s = decode_dss_signature(signature)
    twin = encode_assertion(data, client, encode_dss_signature(r, order - s))
    assert verify_scheme(device.public, twin, MESSAGE)
    assert refused(device.public, twin, OTHER) == "challenge-differs"


def test_key_entries_have_no_field_too_many() -> None:
    assert set(key_entry(SshDevice("a").public)) == {"scheme", "public", "user_verification"}
    assert b64encode(SshDevice("a").blob) == key_entry(SshDevice("a").public)["public"]


def test_a_key_file_s_entry_is_read_back_as_that_key() -> None:
    public = PrivateKey.generate(seed("a")).public
    assert key_entry(public) == {"scheme": "ed25519", "public": b64encode(public.raw)}
    assert parse_key(key_entry(public), DEPLOYMENT) == public
    with pytest.raises(FormatError) as caught:
        parse_key(key_entry(public) | {"public": b64encode(bytes(31))}, DEPLOYMENT)
    assert caught.value.code == "trust-root-key"
