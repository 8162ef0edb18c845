"""A provider's token is read in one way, and verified by the key that was given and by that key's algorithm alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from identities import ProviderKey
from ironbound.core.canonical import FormatError, base64url, base64url_decode
from ironbound.core.jose import MAX_TOKEN, IssuerKey, issuer_key, parse_key_set, verify_jws
from ironbound.core.keys import SignatureInvalid
from ironbound.core.reasons import REASONS

PAYLOAD = b'{"sub":"ada"}'
ALGORITHMS = ("RS256", "ES256", "EdDSA")


def refused(token: str, keys: Mapping[str, IssuerKey]) -> str:
    with pytest.raises(SignatureInvalid) as caught:
        verify_jws(token, keys)
    assert caught.value.code in REASONS
    return caught.value.code


def keys_of(*keys: ProviderKey) -> dict[str, IssuerKey]:
    return {key.kid: key.public for key in keys}


def header(key: ProviderKey, **more: Any) -> dict[str, Any]:
    return {"alg": key.alg, "kid": key.kid} | more


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_token_is_verified_by_the_key_of_its_kid(alg: str) -> None:
    key, other = ProviderKey("one", alg), ProviderKey("two", alg)
    token = key.jws(header(key, typ="JWT", x5t="thumb"), PAYLOAD)
    assert verify_jws(token, keys_of(key, other)) == PAYLOAD
    assert refused(token, keys_of(other)) == "issuer-key-unknown"
    assert refused(token, {}) == "issuer-key-unknown"
    assert refused(token, {"one": ProviderKey("two", alg).public}) == "token-signature-invalid"
    assert issuer_key(key.public.entry()) == key.public
    assert parse_key_set(json.dumps({"keys": [key.jwk()]}).encode()) == (key.public,)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_token_that_is_not_signed_by_an_issuers_key_is_refused(alg: str) -> None:
    key = ProviderKey("one", alg)
    known = keys_of(key)
    good = key.jws(header(key), PAYLOAD)
    head, body, signature = good.split(".")
    for none in ("none", "None", "NONE", "nOnE"):
        unsigned = base64url(json.dumps(header(key, alg=none)).encode())
        assert refused(f"{unsigned}.{body}.", known) == "token-unsigned"
        assert refused(f"{unsigned}.{body}.{signature}", known) == "token-unsigned"
    assert refused(key.jws({"kid": "one"}, PAYLOAD), known) == "token-unsigned"
    public = json.dumps(key.jwk()).encode()
    for secret in (public, key.public.members[0].encode(), base64url_decode(key.public.members[0])):
        for mac in ("HS256", "HS512"):
            assert refused(key.hmac_jws(header(key, alg=mac), PAYLOAD, secret), known) == "token-algorithm-differs"
    for other in {*ALGORITHMS, "PS256", "RS512", "RS1", "ES256K", "Ed25519", ""} - {alg}:
        assert refused(key.jws(header(key, alg=other), PAYLOAD), known) == "token-algorithm-differs"
    assert refused(f"{head}.{base64url(b'{}')}.{signature}", known) == "token-signature-invalid"
    assert refused(f"{head}.{body}.", known) == "token-signature-invalid"
    assert refused(f"{head}.{body}.{base64url(bytes(64))}", known) == "token-signature-invalid"
    assert verify_jws(good, known) == PAYLOAD


def test_a_header_that_brings_its_own_key_is_refused() -> None:
    key, thief = ProviderKey("one"), ProviderKey("thief")
    for more in (
        {"jwk": thief.jwk()}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example/chain"},
        {"x5c": ["MIIB"]}, {"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"zip": "DEF"}, {"cty": "JWT"},
        {"typ": "at+jwt"}, {"typ": "logout+jwt"}, {"typ": ""}, {"nonce": "x"},
    ):  # fmt: skip
        assert refused(key.jws(header(key, **more), PAYLOAD), keys_of(key)) == "token-header-refused"
        assert refused(thief.jws(header(key, **more), PAYLOAD), keys_of(key)) == "token-header-refused"
    assert refused(thief.jws(header(key), PAYLOAD), keys_of(key)) == "token-signature-invalid"


def test_a_token_has_one_spelling() -> None:
    key = ProviderKey("one", "EdDSA")
    head, body, signature = key.jws(header(key), PAYLOAD).split(".")
    twice = b'{"alg":"EdDSA","kid":"one","kid":"one"}'
    for bad in (
        "", ".", "..", "...", f"{head}.{body}", f".{body}.{signature}", f"{head}.{body}.{signature}.",
        f"{head}.{body}.{signature}.{signature}", f" {head}.{body}.{signature}", f"{head}.{body}.{signature}\n",
        f"{head}=.{body}.{signature}", f"{head}.{body}.{signature}==", f"{head}.{body}.{signature[:-1]}/",
        f"{head}.{body}.{signature[:-1]}é", f"{head}.{body}.{signature[:-1]}",
        key.jws(twice, PAYLOAD), key.jws(b"[]", PAYLOAD), key.jws(b"", PAYLOAD), key.jws(b"\xff", PAYLOAD),
        key.jws(b'{"alg":"EdDSA","kid":"one",}', PAYLOAD), key.jws({"alg": "EdDSA", "kid": 1}, PAYLOAD),
        key.jws({"alg": ["EdDSA"], "kid": "one"}, PAYLOAD), key.jws(header(key, typ=None), PAYLOAD),
        key.jws(b" " * 3000 + json.dumps(header(key)).encode(), PAYLOAD), "a" * (MAX_TOKEN + 1),
        key.jws(header(key), b" " * MAX_TOKEN),
        json.dumps({"payload": body, "protected": head, "signature": signature}),
    ):  # fmt: skip
        assert refused(bad, keys_of(key)) == "token-malformed", bad[:60]
    # The last character of 64 bytes has four bits of no meaning: another letter for the same bytes is another spelling.
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = last[last.index(signature[-1]) | 1] if last.index(signature[-1]) % 2 == 0 else last[0]
    assert refused(f"{head}.{body}.{signature[:-1]}{other}", keys_of(key)) == "token-malformed"


@settings(max_examples=60)
@given(st.data())
def test_no_change_of_any_bit_leaves_a_token_valid_and_nothing_else_is_raised(data: st.DataObject) -> None:
    key = ProviderKey("one", data.draw(st.sampled_from(ALGORITHMS)))
    token = bytearray(key.jws(header(key), PAYLOAD).encode())
    token[data.draw(st.integers(0, len(token) - 1))] ^= 1 << data.draw(st.integers(0, 6))
    refused(token.decode(), keys_of(key))


@settings(max_examples=100)
@given(st.one_of(st.text(), st.binary().map(base64url).flatmap(lambda one: st.just(f"{one}.{one}.{one}"))))
def test_garbage_is_refused_and_raises_nothing_else(text: str) -> None:
    refused(text, keys_of(ProviderKey("one")))


def test_a_key_set_gives_the_keys_that_we_can_use_and_refuses_what_is_wrong() -> None:
    rsa, ec, ed = (ProviderKey(alg, alg) for alg in ALGORITHMS)
    others: list[Any] = [
        {"kty": "oct", "kid": "o"}, rsa.jwk() | {"kid": "enc", "use": "enc"}, rsa.jwk() | {"kid": "ps", "alg": "PS256"},
        ec.jwk() | {"kid": "k", "crv": "secp256k1"}, ed.jwk() | {"kid": "x", "crv": "X25519"}, {"kty": ["RSA"]}, {},
        {name: value for name, value in rsa.jwk().items() if name != "kid"}, ed.jwk() | {"key_ops": ["encrypt"]},
    ]  # fmt: skip
    more = [rsa.jwk() | {"x5c": ["MIIB"], "x5t": "t"}, ec.jwk() | {"key_ops": ["verify"]}, ed.jwk()]
    for one in more:
        one.pop("alg", None)
    more[2].pop("use")
    found = parse_key_set(json.dumps({"keys": [*others, *more], "more": 1}).encode())
    assert found == tuple(sorted((rsa.public, ec.public, ed.public), key=lambda key: key.kid))
    weak = base64url((1 << 1023 | 1).to_bytes(128, "big"))
    modulus = int.from_bytes(base64url_decode(rsa.jwk()["n"]), "big")
    padded, even = base64url(modulus.to_bytes(257, "big")), base64url((modulus - 1).to_bytes(256, "big"))
    for bad in (
        b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[1]}', b" " * 200_000,
        *(json.dumps({"keys": keys}).encode() for keys in (
            others, [rsa.jwk(), rsa.jwk()], [rsa.jwk(), ec.jwk() | {"kid": "RS256"}], [rsa.jwk() | {"d": "AQAB"}],
            [rsa.jwk() | {"e": "Aw"}], [rsa.jwk() | {"n": weak}], [rsa.jwk() | {"n": ""}], [rsa.jwk() | {"n": 1}],
            [rsa.jwk() | {"n": padded}], [rsa.jwk() | {"n": even}],
            [rsa.jwk() | {"n": "AA" + rsa.jwk()["n"]}], [ec.jwk() | {"x": ec.jwk()["y"]}], [ec.jwk() | {"y": None}],
            [ec.jwk() | {"x": ec.jwk()["x"] + "="}], [ec.jwk() | {"x": "AA" + ec.jwk()["x"]}],
            [ed.jwk() | {"x": base64url(bytes(32))}], [ed.jwk() | {"kid": 7}], [ed.jwk() | {"kid": ""}],
            [ed.jwk() | {"kid": "k" * 201}], [ed.jwk()] * 65,
            [ed.jwk() | {"kid": str(number)} for number in range(33)],
        )),
    ):  # fmt: skip
        with pytest.raises(FormatError):
            parse_key_set(bad)


def test_wycheproof_s_attacks_on_ecdsa_fail_in_a_token_s_two_numbers(shared_data: Path) -> None:
    """The vectors are in DER; what they say of r and s is said here as a token says it, in 32 bytes each."""
    suite = json.loads((shared_data / "wycheproof" / "ecdsa_secp256r1_sha256_test.json").read_text("utf-8"))
    judged = dict.fromkeys(("valid", "invalid"), 0)
    for group in suite["testGroups"]:
        point = bytes.fromhex(group["publicKey"]["uncompressed"])
        key = IssuerKey("k", "ES256", (base64url(point[1:33]), base64url(point[33:])))
        for test in group["tests"]:
            try:
                pair = decode_dss_signature(bytes.fromhex(test["sig"]))
            except ValueError:
                continue  # bad in DER alone
            if not all(0 <= one < 1 << 256 for one in pair):
                continue  # no 32 bytes say it
            signature, message = b"".join(one.to_bytes(32, "big") for one in pair), bytes.fromhex(test["msg"])
            if test["result"] == "valid":
                key.verify(signature, message)
            else:
                with pytest.raises(SignatureInvalid) as caught:
                    key.verify(signature, message)
                assert caught.value.code == "token-signature-invalid", test["comment"]
            judged[test["result"]] += 1
    assert judged["valid"] > 170 and judged["invalid"] > 40, judged


def test_the_published_vectors_are_judged_as_their_authors_do(shared_data: Path) -> None:
    """Wycheproof's JSON Web Signatures; groups of symmetric keys and of algorithms that we don't read have no key."""
    vectors = json.loads((shared_data / "wycheproof" / "json_web_signature_test.json").read_text("utf-8"))
    judged = dict.fromkeys(("valid", "invalid"), 0)
    for group in vectors["testGroups"]:
        try:
            found = parse_key_set(json.dumps({"keys": [group["public"]]}).encode()) if "public" in group else ()
        except FormatError:
            found = ()
        keys = {one.kid: one for one in found}
        for test in group["tests"]:
            if test["result"] == "valid" and keys:
                assert verify_jws(test["jws"], keys) == base64url_decode(test["jws"].split(".")[1]), test["comment"]
                judged["valid"] += 1
            else:
                refused(test["jws"], keys)
                judged["invalid"] += bool(keys)
    assert judged["valid"] >= 2 and judged["invalid"] > 100
