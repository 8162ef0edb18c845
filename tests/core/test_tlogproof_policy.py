"""An entry counts as logged only under a checkpoint that the log signed and a quorum of witnesses cosigned."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironbound.core import policy as p
from ironbound.core import tlogproof as tp
from ironbound.core.canonical import FormatError
from ironbound.core.checkpoint import Checkpoint, cosign_checkpoint, sign_checkpoint
from ironbound.core.keys import PrivateKey, SignatureInvalid
from ironbound.core.merkle import ProofInvalid, Tree, leaf_hash
from ironbound.core.note import COSIGNATURE, SignatureLine, Signer, add_lines

LOG = Signer("log.example/one", PrivateKey.generate(b"\x01" * 32))
NAMES = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
WITNESSES = {
    name: Signer(f"{name}.example/witness", PrivateKey.generate(bytes([number]) * 32))
    for number, name in enumerate(NAMES, 2)
}
VKEY = {name: signer.verifier(COSIGNATURE).vkey for name, signer in WITNESSES.items()}
LOG_LINE = f"log {LOG.verifier().vkey}\n"
LINE = {name: f"witness {name} {vkey}\n" for name, vkey in VKEY.items()}

# The example of the specification: two of the X and one of the Y.
TWO_LEVELS = (
    LOG_LINE
    + "".join(LINE[name] for name in NAMES[:3])
    + "group X-witnesses 2 X1 X2 X3\n\n# the other organisation\n"
    + "".join(LINE[name] for name in NAMES[3:])
    + "group Y-witnesses any Y1 Y2 Y3\ngroup X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
)

TREE = Tree()
ENTRIES = [b"entry %d" % number for number in range(11)]
for entry in ENTRIES:
    TREE.append(leaf_hash(entry))
CHECKPOINT = Checkpoint(LOG.name, TREE.size, TREE.root())


def signed_by(*names: str) -> bytes:
    lines = [cosign_checkpoint(CHECKPOINT, WITNESSES[name], 1000 + NAMES.index(name)) for name in names]
    return add_lines(sign_checkpoint(CHECKPOINT, LOG), lines)


def test_a_quorum_is_exactly_what_the_policy_says() -> None:
    policy = p.parse_policy(TWO_LEVELS)
    met = 0
    for count in range(7):
        for names in combinations(NAMES, count):
            enough = len({"X1", "X2", "X3"} & set(names)) >= 2 and bool({"Y1", "Y2", "Y3"} & set(names))
            if enough:
                verified = policy.verify(signed_by(*names))
                assert verified.checkpoint == CHECKPOINT and verified.witnesses == names
                assert verified.times == tuple(1000 + NAMES.index(name) for name in names)
                met += 1
            else:
                with pytest.raises(p.PolicyUnmet):
                    policy.verify(signed_by(*names))
    assert met == 4 * 7


def test_quorum_none_needs_the_log_and_nobody_else() -> None:
    policy = p.parse_policy(LOG_LINE + "quorum none\n")
    assert policy.verify(signed_by()).witnesses == ()
    assert policy.verify(signed_by("X1")).witnesses == ()  # unknown to this policy
    with pytest.raises(SignatureInvalid):
        policy.verify(sign_checkpoint(Checkpoint("other", 1, bytes(32)), Signer("other", LOG.key)))


def test_the_log_alone_is_the_lowest_tier_and_meets_no_quorum() -> None:
    policy = p.parse_policy(LOG_LINE + LINE["X1"] + "quorum X1\n")
    assert policy.verify_log_only(signed_by()) == p.VerifiedCheckpoint(CHECKPOINT, (), ())
    with pytest.raises(p.PolicyUnmet):
        policy.verify(signed_by())
    assert policy.verify(signed_by("X1", "X2")) == p.VerifiedCheckpoint(CHECKPOINT, ("X1",), (1000,))


def test_a_forged_cosignature_spoils_a_checkpoint_that_has_its_quorum_without_it() -> None:
    policy = p.parse_policy(TWO_LEVELS)
    good = signed_by("X1", "X2", "Y1")
    policy.verify(good)
    key = WITNESSES["Y2"].verifier(COSIGNATURE)
    with pytest.raises(SignatureInvalid):
        policy.verify(add_lines(good, [SignatureLine(key.name, key.key_id, b"\0" * 72)]))


def test_urls_tabs_comments_and_blank_lines_are_read() -> None:
    text = (
        f"# comment\n\n  log\t{LOG.verifier().vkey} https://log.example/\n"
        f" witness  X1 {VKEY['X1']}\thttps://w.example/ \n\t# more\nquorum X1\n"
    )
    policy = p.parse_policy(text)
    assert policy.log == LOG.verifier() and policy.log_url == "https://log.example/"
    assert policy.witnesses == (p.Witness("X1", WITNESSES["X1"].verifier(COSIGNATURE), "https://w.example/"),)


SAME_KEY = Signer("alias.example", WITNESSES["X1"].key).verifier(COSIGNATURE).vkey
LOG_AS_WITNESS = Signer("alias.example", LOG.key).verifier(COSIGNATURE).vkey
BASE = LOG_LINE + LINE["X1"] + LINE["X2"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum none\n",
        LOG_LINE,
        BASE,
        BASE + "quorum X3\n",
        BASE + "quorum X1\nquorum X1\n",
        BASE + "quorum none\nquorum none\n",
        BASE + "quorum X1 X2\n",
        BASE + "quorum\n",
        BASE + "quorum X1",
        BASE + "quorum X1 # comment\n",
        BASE + "quorum X1\r\n",
        BASE + "quorum X1\0\n",
        BASE + "# \x7f\nquorum X1\n",
        BASE + "Quorum X1\n",
        BASE + "quorum\u00a0X1\n",
        LOG_LINE + "quorum X1\n" + LINE["X1"],
        LOG_LINE + LOG_LINE + "quorum none\n",
        LOG_LINE + f"log {Signer('second', PrivateKey.generate(bytes(32))).verifier().vkey}\nquorum none\n",
        "log\nquorum none\n",
        LOG_LINE.rstrip() + " url url\nquorum none\n",
        f"log {VKEY['X1']}\nquorum none\n",
        LOG_LINE + f"witness X1 {LOG.verifier().vkey}\nquorum X1\n",
        LOG_LINE + f"witness X1 {LOG_AS_WITNESS}\nquorum X1\n",
        LOG_LINE + "witness X1\nquorum none\n",
        LOG_LINE + LINE["X1"].rstrip() + " url url\nquorum X1\n",
        LOG_LINE + LINE["X1"] + LINE["X1"] + "quorum X1\n",
        LOG_LINE + LINE["X1"] + f"witness X2 {SAME_KEY}\nquorum X1\n",
        LOG_LINE + LINE["X1"] + f"witness X1 {VKEY['X2']}\nquorum X1\n",
        LOG_LINE + f"witness none {VKEY['X1']}\nquorum none\n",
        BASE + "group none any X1\nquorum none\n",
        BASE + "group X1 any X2\nquorum X1\n",
        BASE + "group g any\nquorum X1\n",
        BASE + "group g any none\nquorum g\n",
        BASE + "group g any g\nquorum g\n",
        BASE + "group g any X1 X3\nquorum g\n",
        BASE + "group g 2 X1 X1\nquorum g\n",
        BASE + "group g any X1\ngroup h all g X1\nquorum h\n",
        BASE + "group g 0 X1 X2\nquorum g\n",
        BASE + "group g 3 X1 X2\nquorum g\n",
        BASE + "group g 01 X1 X2\nquorum g\n",
        BASE + "group g +1 X1 X2\nquorum g\n",
        BASE + "group g ALL X1 X2\nquorum g\n",
        BASE + "group g any X1\ngroup g any X2\nquorum g\n",
        BASE + "#" * p.MAX_POLICY + "\nquorum X1\n",
    ],
)
def test_a_policy_that_breaks_the_rules_is_refused(text: str) -> None:
    p.parse_policy(BASE + "group g all X1 X2\nquorum g\n")
    with pytest.raises(FormatError):
        p.parse_policy(text)


def test_more_witnesses_or_groups_than_the_limit_are_refused() -> None:
    keys = [Signer(f"w{n}", PrivateKey.generate(n.to_bytes(32, "big"))).verifier(COSIGNATURE) for n in range(65)]
    lines = [f"witness w{number} {key.vkey}\n" for number, key in enumerate(keys)]
    groups = [f"group g{number} any w{number}\n" for number in range(64)]
    full = LOG_LINE + "".join(lines[:64]) + "".join(groups)
    assert len(p.parse_policy(full + "quorum g63\n").groups) == 64
    for text in (full + "group last any g0\nquorum none\n", LOG_LINE + "".join(lines) + "quorum none\n"):
        with pytest.raises(FormatError) as caught:
            p.parse_policy(text)
        assert caught.value.code == "too-large"


words = st.sampled_from(
    ["log", "witness", "group", "quorum", "none", "any", "all", "1", "X1", "g", "#", *VKEY.values()]
)


@given(
    st.text(max_size=80) | st.lists(st.lists(words, max_size=5).map(" ".join)).map("\n".join).map(lambda s: s + "\n")
)
def test_any_text_is_a_policy_or_a_format_error(text: str) -> None:
    for candidate in (text, BASE + text):
        try:
            p.parse_policy(candidate)
        except FormatError:
            pass


POLICY = p.parse_policy(LOG_LINE + LINE["X1"] + "quorum X1\n")
SIGNED = signed_by("X1")


def proof_of(index: int, signed: bytes = SIGNED) -> bytes:
    return tp.encode_proof(index, TREE.inclusion_proof(index, TREE.size), signed)


def test_every_entry_is_proved_at_its_index_and_no_other_entry_there() -> None:
    for index, entry in enumerate(ENTRIES):
        data = proof_of(index)
        assert tp.verify_proof(data, leaf_hash(entry), POLICY) == CHECKPOINT
        verified = tp.verify_entry(data, leaf_hash(entry), POLICY)
        assert (verified.index, verified.verified.witnesses) == (index, ("X1",))
        with pytest.raises(ProofInvalid):
            tp.verify_proof(data, leaf_hash(entry + b"!"), POLICY)
        with pytest.raises(ProofInvalid):
            tp.verify_proof(data, leaf_hash(ENTRIES[(index + 1) % len(ENTRIES)]), POLICY)


def test_a_proof_without_the_quorum_proves_nothing() -> None:
    with pytest.raises(p.PolicyUnmet):
        tp.verify_proof(proof_of(3, signed_by("X2")), leaf_hash(ENTRIES[3]), POLICY)
    other = Signer(LOG.name, PrivateKey.generate(b"\x77" * 32))
    with pytest.raises(SignatureInvalid):
        tp.verify_proof(proof_of(3, sign_checkpoint(CHECKPOINT, other)), leaf_hash(ENTRIES[3]), POLICY)


def test_the_only_entry_of_a_log_has_a_proof_without_hashes() -> None:
    checkpoint = Checkpoint(LOG.name, 1, leaf_hash(b"only"))
    signed = add_lines(sign_checkpoint(checkpoint, LOG), [cosign_checkpoint(checkpoint, WITNESSES["X1"], 5)])
    data = tp.encode_proof(0, [], signed)
    assert data.startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\nlog.example/one\n1\n")
    assert tp.verify_proof(data, leaf_hash(b"only"), POLICY) == checkpoint


HASH = b"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"@v1", b"@v2"),
        (b"c2sp", b"\xef\xbb\xbfc2sp"),
        (b"index 3\n", b"index 03\n"),
        (b"index 3\n", b"index +3\n"),
        (b"index 3\n", b"index  3\n"),
        (b"index 3\n", b"index 3 \n"),
        (b"index 3\n", b"index 3\r\n"),
        (b"index 3\n", b"index -3\n"),
        (b"index 3\n", b"Index 3\n"),
        (b"index 3\n", b"index 3\n\n"),
        (b"index 3\n", b""),
        (b"index 3\n", b"extra QUFB\nindex 3\n"),
        (b"index 3\n", b"index 3\nindex 3\n"),
        (b"index 3\n", b"index 3\n" + HASH * 62),
        (b"index 3\n", b"index 3\nQUFB\n"),
        (b"index 3\n", b"index 3\n" + HASH.replace(b"=", b"")),
        (b"index 3\n", b"index 3\n" + HASH.replace(b"E=", b"F=")),
        (b"index 3\n", b"index 3\n " + HASH),
        (b"index 3\n", "index \u0663\n".encode()),
        (b"\n\nlog", b"\nlog"),
        (b"\n\nlog", b"\n\n\nlog"),
        (b"\n\n", b"\n\r\n"),
    ],
)
def test_a_malleable_variant_of_a_proof_is_refused(old: bytes, new: bytes) -> None:
    data = proof_of(3)
    tp.verify_proof(data, leaf_hash(ENTRIES[3]), POLICY)
    changed = data.replace(old, new, 1)
    assert changed != data
    # A blank line moved into the checkpoint is still a note, but not the one that the log signed.
    with pytest.raises((FormatError, SignatureInvalid)):
        tp.verify_proof(changed, leaf_hash(ENTRIES[3]), POLICY)


def test_a_proof_of_more_than_its_limit_is_refused() -> None:
    with pytest.raises(FormatError) as caught:
        tp.parse_proof(proof_of(3) + b"x" * tp.MAX_TLOG_PROOF)
    assert caught.value.code == "too-large"


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_byte_leaves_a_proof_valid(at: int, mask: int) -> None:
    data = bytearray(proof_of(3))
    data[at % len(data)] ^= mask
    with pytest.raises((FormatError, SignatureInvalid, ProofInvalid, p.PolicyUnmet)):
        tp.verify_proof(bytes(data), leaf_hash(ENTRIES[3]), POLICY)


@given(st.binary(max_size=100), st.binary(max_size=100), st.booleans())
def test_garbage_is_a_proof_or_a_format_error(head: bytes, tail: bytes, whole: bool) -> None:
    data = tp.HEADER + b"index 3\n" + head + b"\n\n" + (SIGNED if whole else tail)
    for candidate in (data, head):
        try:
            proof = tp.parse_proof(candidate)
        except FormatError:
            continue
        assert tp.encode_proof(proof.index, proof.hashes, proof.signed_checkpoint) == candidate
