"""Each seeded bug in how identities are judged is caught by the tests of tokens and identities."""

from __future__ import annotations

import pytest
from mutation import Mutants, hints, killers

SUITE = ("test_jose.py", "test_oidc.py")

MUTANTS: Mutants = {
    "the header's algorithm is not compared": ("jose", 'if header["alg"] != key.alg:', "if False:"),
    "a header may hold anything": ("jose", "header.keys() - _HEADER or", "False or"),
    "any typ is an ID token's": ("jose", 'header.get("typ", "JWT") != "JWT"', "False"),
    "an unsigned token has a key": ("jose", 'header.get("alg", "none").lower() == "none"', "False"),
    "the provider's signature is not checked": (
        "jose", '    key.verify(signature, f"{parts[0]}.{parts[1]}".encode())  # (6)\n', "",
    ),
    "a weak key is taken": ("jose", "low <= numbers[0].bit_length() <= high", "True"),
    "a secret is published": ("jose", "    if _SECRET & jwk.keys():\n", "    if False:\n"),
    "any exponent": ("jose", 'jwk.get("e") != "AQAB"', "False"),
    "a key for encryption": ("jose", 'jwk.get("use", "sig") != "sig"', "False"),
    "two keys of one kid": ("jose", "len({key.kid for key in keys}) != len(keys)", "False"),
    "base64url in any spelling": ("canonical", "    if base64url(data) != text:\n", "    if False:\n"),
    "the controller's word is enough": (
        "oidc", "{kid: key for kid, key in self.said.items() if self.seen.get(kid) == key}", "dict(self.said)",
    ),
    "a kid that both said is enough": (
        "oidc", "if self.seen.get(kid) == key}\n\n    def", "if kid in self.seen}\n\n    def",
    ),
    "any provider": ("oidc", '    _is(claims, "iss", identity.issuer, "token-issuer-differs")  # (3)\n', ""),
    "our client among others": (
        "oidc", 'claims.get("aud") not in (identity.client, [identity.client])',
        'identity.client not in (claims.get("aud") or [])',
    ),
    "any authorised party": ("oidc", 'if "azp" in claims:', "if False:"),
    "anybody at the provider": ("oidc", '    _is(claims, "sub", identity.subject, "token-subject-differs")\n', ""),
    "any nonce": ("oidc", '    _is(claims, "nonce", nonce_of(cic), "token-nonce-differs")\n', ""),
    "a token for any content": (
        "oidc", '    _is(cic, "att", sha256(message).hexdigest(), "token-for-another-request")  # (5)\n', "",
    ),
    "a token for any deployment": ("oidc", '    _is(cic, "role", identity.role, "token-for-another-deployment")\n', ""),
    "a password is enough": ("oidc", '    _is(claims, "acr", identity.acr, "token-acr-differs")  # (6)\n', ""),
    "any session is a login": ("oidc", "made - FRESH_LOGIN_S <= login", "True"),
    "a login after its token": ("oidc", "<= login <= made + SKEW_S", "<= login"),
    "a token of tomorrow": ("oidc", "(made - SKEW_S) * 1000 > now_ms", "False"),
    "a token for ever": ("oidc", 'claims["exp"] * 1000 <= now_ms', "False"),
    "a moment too long": ("oidc", 'claims["exp"] * 1000 <= now_ms', 'claims["exp"] * 1000 < now_ms'),
    "the ephemeral key need not sign": (
        "oidc", "        verify_signature(ephemeral, sig, message)  # (8)\n", "        pass\n",
    ),
    "plain HTTP to anybody": ("oidc", r"http://(127\.0\.0\.1|localhost)", "http://([a-z0-9.-]+)"),
    "an identity per client": (
        "oidc", '{"issuer": self.issuer, "subject": self.subject}', '{"issuer": self.issuer, "subject": self.client}',
    ),
    "two identities": (
        "request", "    if device is None:\n", "    device = device or identity\n    if device is None:\n",
    ),
    "any number of signatures": ("request", "if len(keys) != 1 + (identity is not None):", "if False:"),
    "an identity beside a file": (
        "request", "if identity is not None and not is_device(enrolled[device]):", "if False:",
    ),
    "anybody's identity": ("request", "if identity is not None and known[identity] != known[device]:", "if False:"),
    "a human without a device": ("trust", "not any(map(is_device, keys))", "False"),
    "a software key is a device": ("scheme", "and key.application is not None", ""),
    "an identity signs a trust root": (
        "scheme", "            raise SignatureInvalid(",
        "            return Assurance(Strength.PROVIDER)\n            str(",
    ),
    "an identity's token is not looked at": (
        "request", "            verify_envelope(Envelope(envelope.payload, (signatures[identity],)), keys)\n",
        "            pass\n",
    ),
    "a stranger's token is looked at": (
        "request", "verify_envelope(Envelope(envelope.payload, (signatures[device],)), keys)[device]",
        "verify_envelope(envelope, keys)[device]",
    ),
    "anybody's key set": ("replay", 'if said["issuer"] not in self.trust.issuers:', "if False:"),
    "the monitor's word is the controller's": (
        "replay", "IssuerKeys()), said=keys)", "IssuerKeys()), said=keys, seen=keys)",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_seeded_bug_of_identities_is_caught() -> None:
    found = dict(killers(MUTANTS, SUITE, hints()))
    assert len(found) >= 38
    assert not [name for name, one in found.items() if one is None]
