"""A signature counts for one key and one message, as everyone else's tools see it too."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from ironbound.core import envelope as e
from ironbound.core.canonical import FormatError, canonical, parse_canonical
from ironbound.core.keys import KeyId, PrivateKey, PublicKey, SignatureInvalid, verify_signature

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493


def outcome(key: PublicKey, signature: bytes, message: bytes) -> str:
    try:
        verify_signature(key, signature, message)
    except SignatureInvalid:
        return "invalid"
    return "valid"


def test_wycheproof_ed25519_attacks_are_rejected_and_its_valid_signatures_accepted(shared_data: Path) -> None:
    suite = json.loads((shared_data / "wycheproof" / "ed25519_test.json").read_bytes())
    results = {"valid": 0, "invalid": 0}
    for group in suite["testGroups"]:
        key = PublicKey("ed25519", bytes.fromhex(group["publicKey"]["pk"]))
        assert key.spki() == bytes.fromhex(group["publicKeyDer"])
        assert PublicKey.from_spki(key.spki()) == key
        for case in group["tests"]:
            got = outcome(key, bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
            assert got == case["result"], case["tcId"]
            results[got] += 1
    assert results["valid"] > 60 and results["invalid"] > 50


@pytest.mark.parametrize("sign_bit", [0, 1])
@pytest.mark.parametrize(
    "y",
    [
        0,
        1,
        P - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303021202,
        P - 2707385501144840649318225287225658788936804267575313519463743609750303021202,
        P,
        P + 1,
        2**255 - 1,
        2,
    ],
)
def test_a_key_of_small_order_or_second_spelling_or_off_the_curve_is_refused(y: int, sign_bit: int) -> None:
    with pytest.raises(FormatError) as caught:
        PublicKey("ed25519", (y | sign_bit << 255).to_bytes(32, "little"))
    assert caught.value.code == "key-invalid"


def test_a_signature_with_the_group_order_added_is_refused(private_keys: list[PrivateKey]) -> None:
    key = private_keys[0]
    signature = key.sign(b"message")
    assert outcome(key.public, signature, b"message") == "valid"
    scalar = int.from_bytes(signature[32:], "little") + L
    assert outcome(key.public, signature[:32] + scalar.to_bytes(32, "little"), b"message") == "invalid"
    assert outcome(key.public, signature + b"\0", b"message") == "invalid"
    assert outcome(key.public, signature, b"messagE") == "invalid"
    assert outcome(private_keys[1].public, signature, b"message") == "invalid"


def test_private_keys_come_back_from_their_files_only_with_the_passphrase(private_keys: list[PrivateKey]) -> None:
    key = private_keys[0]
    sealed, plain = key.to_pem(b"correct horse"), key.to_pem(None)
    assert b"ENCRYPTED" in sealed and b"ENCRYPTED" not in plain
    assert PrivateKey.from_pem(sealed, b"correct horse").public == key.public
    assert PrivateKey.from_pem(plain, None).public == key.public
    wrong: list[tuple[bytes, bytes | None]] = [
        (sealed, b"wrong"),
        (sealed, None),
        (plain, b"correct horse"),
        (sealed[:-40], b"correct horse"),
        (b"", None),
        (b"\0" * 5000, None),
    ]
    for pem, passphrase in wrong:
        with pytest.raises(FormatError):
            PrivateKey.from_pem(pem, passphrase)
    with pytest.raises(FormatError):
        key.to_pem(b"")
    assert key.public.keyid in repr(key)


def test_a_key_of_another_scheme_is_refused(private_keys: list[PrivateKey]) -> None:
    spki = private_keys[0].public.spki()
    x25519 = spki[:8] + b"\x6e" + spki[9:]  # 1.3.101.110 instead of .112, as long
    for other in (x25519, spki + b"\0", spki[:-1]):
        with pytest.raises(FormatError):
            PublicKey.from_spki(other)
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(FormatError) as caught:
        PrivateKey.from_pem(pem, None)
    assert caught.value.code == "key-scheme"
    with pytest.raises(FormatError):
        PublicKey("ed448", bytes(32))
    with pytest.raises(FormatError):
        PublicKey("ed25519", bytes(31))
    with pytest.raises(FormatError):
        PrivateKey.generate(b"short")


def test_a_public_key_file_has_one_spelling(private_keys: list[PrivateKey]) -> None:
    pem = private_keys[0].public.pem()
    assert PublicKey.from_pem(pem) == private_keys[0].public
    for other in (
        pem + b"\n",
        b"\n" + pem,
        pem[:-1],
        pem.replace(b"\n", b"\r\n"),
        pem + pem,
        pem.replace(b"BEGIN PUBLIC KEY", b"BEGIN PUBLIC KEI"),
        pem.replace(b"END PUBLIC KEY", b"END PUBLIC KEI"),
        pem[:40] + b"\xff" + pem[41:],
    ):
        with pytest.raises(FormatError):
            PublicKey.from_pem(other)


@given(st.binary(max_size=100))
def test_garbage_is_no_key_and_raises_format_error_only(data: bytes) -> None:
    for make in (PublicKey.from_pem, PublicKey.from_spki, lambda one: PublicKey("ed25519", one)):
        try:
            make(data)
        except FormatError:
            pass
    with pytest.raises(FormatError):
        PrivateKey.from_pem(data, None)


def test_bare_openssl_verifies_the_signature_of_an_envelope_and_names_its_key(
    tmp_path: Path, private_keys: list[PrivateKey]
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command on this machine")
    key = private_keys[0]
    envelope = e.sign_envelope(b'{"a":1}', [key])
    (tmp_path / "K").write_bytes(key.public.pem())
    (tmp_path / "SIG").write_bytes(envelope.signatures[0].sig)
    message = e.pae(e.PAYLOAD_TYPE, envelope.payload)

    def verdict(signed: bytes) -> int:
        (tmp_path / "PAE").write_bytes(signed)
        command = f"{openssl} pkeyutl -verify -pubin -inkey K -rawin -in PAE -sigfile SIG".split()
        return subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False).returncode

    assert verdict(message) == 0
    assert verdict(message[:-1] + bytes([message[-1] ^ 1])) != 0
    der = subprocess.run(
        [openssl, "pkey", "-pubin", "-in", "K", "-outform", "DER"],
        cwd=tmp_path, capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    digest = subprocess.run([openssl, "sha256", "-r"], input=der.stdout, capture_output=True, timeout=30, check=True)
    assert digest.stdout.split()[0].decode() == key.public.keyid


def test_the_pae_is_that_of_the_dsse_specification() -> None:
    assert e.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_an_envelope_comes_back_as_it_was_signed(private_keys: list[PrivateKey]) -> None:
    envelope = e.sign_envelope(b"payload", private_keys)
    keys = {key.public.keyid: key.public for key in private_keys}
    parsed = e.parse_envelope(envelope.encode())
    assert parsed == envelope == e.envelope_from_value(envelope.as_value())
    assert list(e.verify_envelope(parsed, keys)) == sorted(keys)
    assert parsed.digest == "239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5"


def test_one_signature_that_does_not_count_spoils_the_envelope(private_keys: list[PrivateKey]) -> None:
    one, two, three, _ = private_keys
    keys = {key.public.keyid: key.public for key in (one, two)}
    good = e.sign_envelope(b"payload", [one, two])
    assert len(e.verify_envelope(good, keys)) == 2
    with pytest.raises(e.SignerUnknown):
        e.verify_envelope(e.sign_envelope(b"payload", [one, three]), keys)
    with pytest.raises(SignatureInvalid):
        e.verify_envelope(e.Envelope(b"Payload", good.signatures), keys)
    swapped = tuple(
        e.Signature(mine.keyid, other.sig)
        for mine, other in zip(good.signatures, reversed(good.signatures), strict=True)
    )
    with pytest.raises(SignatureInvalid):
        e.verify_envelope(e.Envelope(b"payload", swapped), keys)
    # A set of keys that lists a key under a second name does not let it count twice.
    message = e.pae(e.PAYLOAD_TYPE, b"payload")
    twice = e.Envelope(b"payload", tuple(e.Signature(key.public.keyid, one.sign(message)) for key in (one, three)))
    with pytest.raises(e.SignerUnknown):
        e.verify_envelope(twice, {one.public.keyid: one.public, three.public.keyid: one.public})
    with pytest.raises(SignatureInvalid):
        e.verify_envelope(e.sign_envelope(b"payload", [three]), {three.public.keyid: one.public})


def test_no_envelope_has_two_signatures_by_one_key_or_none_or_seventeen(private_keys: list[PrivateKey]) -> None:
    signature = e.sign_envelope(b"payload", private_keys[:1]).signatures[0]
    many = tuple(e.Signature(PrivateKey.generate(bytes([n]) * 32).public.keyid, b"s") for n in range(17))
    assert len(e.Envelope(b"payload", many[:16]).signatures) == 16
    for signatures in ((), (signature, signature), many):
        with pytest.raises(FormatError):
            e.Envelope(b"payload", signatures)


def changed(**members: Any) -> bytes:
    key = PrivateKey.generate(b"\x01" * 32)
    value = e.sign_envelope(b"payload", [key]).as_value()
    assert isinstance(value, dict)
    return canonical({name: item for name, item in (value | members).items() if item is not None})


ONE = {"keyid": "ab" * 32, "sig": "QUJD"}
TWO = {"keyid": "ac" * 32, "sig": "QUJD"}


@pytest.mark.parametrize(
    "members",
    [
        {"payloadType": "application/json"},
        {"payloadType": None},
        {"extra": 1},
        {"payload": "cGF5bG9hZB=="},
        {"payload": 1},
        {"signatures": []},
        {"signatures": ONE},
        {"signatures": [ONE, ONE]},
        {"signatures": [TWO, ONE]},
        {"signatures": [ONE | {"scheme": "none"}]},
        {"signatures": [{"keyid": "AB" * 32, "sig": "QUJD"}]},
        {"signatures": [{"keyid": "ab" * 32, "sig": ""}]},
        {"signatures": [{"keyid": "ab" * 32, "sig": 1}]},
        {"signatures": ["ab"]},
        {"signatures": [ONE] * 17},
        {"payload": "A" * 65_536},
    ],
)
def test_another_shape_of_envelope_is_refused(members: dict[str, Any]) -> None:
    e.parse_envelope(changed())
    e.parse_envelope(changed(signatures=[ONE, TWO]))
    with pytest.raises(FormatError):
        e.parse_envelope(changed(**members))


def test_an_envelope_that_no_bundle_can_hold_is_not_written(private_keys: list[PrivateKey]) -> None:
    with pytest.raises(FormatError) as caught:
        e.sign_envelope(b"x" * 60_000, private_keys[:1]).encode()
    assert caught.value.code == "too-large"


def test_a_signature_has_one_byte_to_as_many_as_can_be() -> None:
    for size in (1, e.MAX_SIGNATURE):
        envelope = e.Envelope(b"payload", (e.Signature(KeyId("ab" * 32), b"s" * size),))
        assert e.parse_envelope(envelope.encode()) == envelope
    for size in (0, e.MAX_SIGNATURE + 1):
        with pytest.raises(FormatError) as caught:
            e.parse_envelope(e.Envelope(b"payload", (e.Signature(KeyId("ab" * 32), b"s" * size),)).encode())
        assert caught.value.code == "envelope-signatures"


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_byte_leaves_an_envelope_valid(at: int, mask: int) -> None:
    key = PrivateKey.generate(b"\x01" * 32)
    data = bytearray(e.sign_envelope(b'{"a":1}', [key]).encode())
    data[at % len(data)] ^= mask
    with pytest.raises((FormatError, SignatureInvalid)):
        e.verify_envelope(e.parse_envelope(bytes(data)), {key.public.keyid: key.public})


MEMBERS = st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig"])


@given(
    st.recursive(
        st.none() | st.integers(0, 3) | st.sampled_from(["QQ==", e.PAYLOAD_TYPE, "ab" * 32]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(MEMBERS, inner),
    )
)
def test_a_value_is_an_envelope_or_a_format_error(value: Any) -> None:
    try:
        envelope = e.envelope_from_value(value)
    except FormatError:
        return
    assert parse_canonical(envelope.encode(), limit=e.MAX_ENVELOPE) == value
