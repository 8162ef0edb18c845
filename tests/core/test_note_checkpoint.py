"""A note has one spelling, and a checkpoint is only what the log signed."""

import base64
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironbound.core import checkpoint as cp
from ironbound.core import note as n
from ironbound.core.canonical import FormatError
from ironbound.core.keys import PrivateKey, SignatureInvalid
from ironbound.core.merkle import EMPTY_ROOT

LOG = n.Signer("log.example/one", PrivateKey.generate(b"\x01" * 32))
WITNESS = n.Signer("witness.example/w1", PrivateKey.generate(b"\x02" * 32))
STRANGER = n.Signer("stranger.example", PrivateKey.generate(b"\x03" * 32))
CHECKPOINT = cp.Checkpoint(LOG.name, 20852163, b"r" * 32)
TIME = 1679315147
SIGNED = n.add_lines(cp.sign_checkpoint(CHECKPOINT, LOG), [cp.cosign_checkpoint(CHECKPOINT, WITNESS, TIME)])
KNOWN = [LOG.verifier(), WITNESS.verifier(n.COSIGNATURE)]


def opened(data: bytes) -> tuple[cp.Checkpoint, tuple[n.NoteSignature, ...]]:
    return cp.open_checkpoint(data, LOG.verifier(), [WITNESS.verifier(n.COSIGNATURE)])


def test_a_verifier_key_of_the_go_checksum_database_is_read_and_written_back() -> None:
    vkey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    key = n.parse_vkey(vkey)
    assert (key.name, key.kind, key.key_id.hex(), key.vkey) == ("sum.golang.org", 1, "033de0ae", vkey)


def test_a_note_signed_by_go_verifies() -> None:
    # The example of the documentation of golang.org/x/mod/sumdb/note.
    key = n.parse_vkey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = (
        "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUg"
        "YN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    note = n.open_note(f"{text}\n{line}".encode(), [key])
    assert note.text == text and note.signatures == (n.NoteSignature(key, None),)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.replace("+1679", "+1680") if "+1679" in v else v[:-1],
        lambda v: v + "=",
        lambda v: v + "\n",
        lambda v: " " + v,
        lambda v: v.upper(),
        lambda v: v.replace("log.example", "log.example2"),
        lambda v: v.split("+", 1)[0],
        lambda v: "+" + v.split("+", 1)[1],
        lambda v: v.replace("+", "++", 1),
        lambda v: "x" * 2000 + v,
        lambda v: v[:-44] + base64.b64encode(b"\x01" + b"\x09" * 31).decode(),
        lambda v: v[:-44] + base64.b64encode(b"\x02" + b"\x09" * 32).decode(),
    ],
)
def test_a_changed_verifier_key_is_refused(change: Callable[[str], str]) -> None:
    vkey = LOG.verifier().vkey
    assert n.parse_vkey(vkey) == LOG.verifier()
    with pytest.raises(FormatError):
        n.parse_vkey(change(vkey))


def test_the_type_of_a_key_is_part_of_its_id() -> None:
    assert LOG.verifier().key_id != LOG.verifier(n.COSIGNATURE).key_id
    assert n.parse_vkey(LOG.verifier(n.COSIGNATURE).vkey).kind == 4
    with pytest.raises(FormatError):
        LOG.verifier(6)


def test_a_text_with_blank_lines_is_split_at_the_last_one() -> None:
    text = "Ogn'uno sta solo sul cuor della terra\n\n\ned è subito sera.\n"
    data = n.sign_note(text, [LOG, STRANGER])
    assert n.open_note(data, KNOWN).text == text
    assert n.parse_note(data).encode() == data


def test_unknown_signatures_are_ignored_and_known_bad_ones_are_fatal() -> None:
    with_stranger = n.add_lines(SIGNED, [STRANGER.sign_text(CHECKPOINT.text())])
    assert opened(with_stranger) == opened(SIGNED)
    # The name of a known key with another id, and the id of a known key under another name, are unknown.
    known = LOG.verifier()
    renamed = n.SignatureLine("other.example", known.key_id, b"x" * 64)
    other_id = n.SignatureLine(known.name, b"abcd", b"x" * 64)
    assert opened(n.add_lines(SIGNED, [renamed, other_id])) == opened(SIGNED)
    forged = n.SignatureLine(WITNESS.name, WITNESS.verifier(n.COSIGNATURE).key_id, b"\0" * 72)
    with pytest.raises(SignatureInvalid):
        opened(n.add_lines(cp.sign_checkpoint(CHECKPOINT, LOG), [forged]))


def test_a_note_that_no_known_key_signed_is_refused() -> None:
    data = n.sign_note("text\n", [STRANGER])
    assert n.open_note(data, [STRANGER.verifier()]).text == "text\n"
    with pytest.raises(SignatureInvalid):
        n.open_note(data, KNOWN)
    with pytest.raises(SignatureInvalid):
        n.open_note(data, [])


def test_a_cosignature_binds_its_time_and_the_checkpoint() -> None:
    line = cp.cosign_checkpoint(CHECKPOINT, WITNESS, TIME)
    key = WITNESS.verifier(n.COSIGNATURE)
    assert cp.verify_cosignature(CHECKPOINT, line, key) == TIME
    assert len(line.blob) == 72 and line.blob[:8] == TIME.to_bytes(8, "big")
    later = n.SignatureLine(line.name, line.key_id, (TIME + 1).to_bytes(8, "big") + line.blob[8:])
    beyond = WITNESS.key.sign(n.cosignature_message(CHECKPOINT.text(), 2**63))
    huge = n.SignatureLine(line.name, line.key_id, (2**63).to_bytes(8, "big") + beyond)
    short = n.SignatureLine(line.name, line.key_id, line.blob[:7])
    for wrong in (later, huge, short):
        with pytest.raises(SignatureInvalid):
            cp.verify_cosignature(CHECKPOINT, wrong, key)
    with pytest.raises(SignatureInvalid):
        cp.verify_cosignature(cp.Checkpoint(LOG.name, 20852164, b"r" * 32), line, key)
    with pytest.raises(SignatureInvalid):
        cp.verify_cosignature(CHECKPOINT, line, LOG.verifier(n.COSIGNATURE))
    with pytest.raises(SignatureInvalid):
        cp.verify_cosignature(CHECKPOINT, WITNESS.sign_text(CHECKPOINT.text()), WITNESS.verifier())
    with pytest.raises(FormatError):
        cp.cosign_checkpoint(CHECKPOINT, WITNESS, -1)


def test_the_cosignature_of_the_specification_has_the_message_we_sign() -> None:
    assert n.cosignature_message("example.com/behind-the-sofa\n20852163\nroot\n", TIME) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\nroot\n"
    )


def test_a_checkpoint_opens_for_the_log_that_signed_it_only() -> None:
    checkpoint, cosignatures = opened(SIGNED)
    assert checkpoint == CHECKPOINT
    assert [(one.key.name, one.time) for one in cosignatures] == [(WITNESS.name, TIME)]
    cosigned_only = n.UnverifiedNote(CHECKPOINT.text(), n.parse_note(SIGNED).lines[1:]).encode()
    with pytest.raises(SignatureInvalid):
        opened(cosigned_only)
    with pytest.raises(FormatError) as caught:
        cp.sign_checkpoint(CHECKPOINT, STRANGER)
    assert caught.value.code == "checkpoint-origin"
    elsewhere = n.sign_note(cp.Checkpoint("log.example/two", 1, b"r" * 32).text(), [LOG])
    with pytest.raises(FormatError) as caught:
        opened(elsewhere)
    assert caught.value.code == "checkpoint-origin"


def test_a_key_of_the_wrong_type_is_neither_log_nor_witness() -> None:
    with pytest.raises(FormatError):
        cp.open_checkpoint(SIGNED, LOG.verifier(n.COSIGNATURE))
    with pytest.raises(FormatError):
        cp.open_checkpoint(SIGNED, LOG.verifier(), [WITNESS.verifier()])


def test_the_empty_log_has_one_checkpoint() -> None:
    assert cp.parse_checkpoint(cp.Checkpoint("a", 0, EMPTY_ROOT).text()).size == 0
    for size, root in ((0, b"r" * 32), (-1, EMPTY_ROOT), (2**63, b"r" * 32), (1, b"r" * 31)):
        with pytest.raises(FormatError):
            cp.Checkpoint("a", size, root)


ROOT = base64.b64encode(b"r" * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"a\n7\n{ROOT}",
        f"a\n7\n{ROOT}\n\n",
        f"a\n7\n{ROOT}\nextension\n",
        f"a\r\n7\r\n{ROOT}\r\n",
        f"a\n07\n{ROOT}\n",
        f"a\n+7\n{ROOT}\n",
        f"a\n-7\n{ROOT}\n",
        f"a\n7 \n{ROOT}\n",
        f"a\n 7\n{ROOT}\n",
        f"a\n7_0\n{ROOT}\n",
        f"a\n\u0667\n{ROOT}\n",
        f"a\n0x7\n{ROOT}\n",
        f"a\n9223372036854775808\n{ROOT}\n",
        f"a\n\n{ROOT}\n",
        f"\n7\n{ROOT}\n",
        f"a b\n7\n{ROOT}\n",
        f"a+b\n7\n{ROOT}\n",
        f"a\u00a0b\n7\n{ROOT}\n",
        f"a\u2028\n7\n{ROOT}\n",
        f"\ta\n7\n{ROOT}\n",
        f"a\n7\n{ROOT} \n",
        f"a\n7\n{ROOT[:-1]}\n",
        f"a\n7\n{ROOT[:-2]}J=\n",
        f"a\n7\n{base64.b64encode(b'r' * 31).decode()}\n",
        f"a\n7\n{base64.b64encode(b'r' * 33).decode()}\n",
        f"a\n7\n{ROOT.rstrip('=')}\n",
        "a\n7\n\n",
        "a\n7\n",
        "",
        "\n\n\n",
        "x" * 600 + f"\n7\n{ROOT}\n",
    ],
)
def test_a_checkpoint_in_another_spelling_is_refused(text: str) -> None:
    assert cp.parse_checkpoint(f"a\n7\n{ROOT}\n") == cp.Checkpoint("a", 7, b"r" * 32)
    with pytest.raises(FormatError):
        cp.parse_checkpoint(text)


DASH = "\u2014".encode()


def last_base64_bit(data: bytes) -> bytes:
    """The same signature with a padding bit set, which a lax decoder would not see."""
    assert data.endswith(b"=\n")
    at = len(data) - (4 if data.endswith(b"==\n") else 3)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    changed = data[:at] + bytes([alphabet[alphabet.index(data[at]) ^ 1]]) + data[at + 1 :]
    assert base64.b64decode(changed[changed.rindex(b" ") :]) == base64.b64decode(data[data.rindex(b" ") :])
    return changed


MALLEABLE: dict[str, Callable[[bytes], bytes]] = {
    "space at the end of the note": lambda d: d + b" ",
    "space at the end of a signature": lambda d: d[:-1] + b" \n",
    "space at the end of the origin": lambda d: d.replace(b"one\n", b"one \n", 1),
    "space at the end of the size": lambda d: d.replace(b"20852163\n", b"20852163 \n", 1),
    "plus before the size": lambda d: d.replace(b"20852163", b"+20852163", 1),
    "zero before the size": lambda d: d.replace(b"20852163", b"020852163", 1),
    "CR LF throughout": lambda d: d.replace(b"\n", b"\r\n"),
    "CR LF in the signatures": lambda d: d[:-1] + b"\r\n",
    "CR LF at the blank line": lambda d: d.replace(b"\n\n", b"\n\r\n"),
    "second blank line": lambda d: d.replace(b"\n\n", b"\n\n\n"),
    "blank line between the signatures": lambda d: d.replace(b"\n" + DASH + b" wit", b"\n\n" + DASH + b" wit"),
    "blank line at the end": lambda d: d + b"\n",
    "no newline at the end": lambda d: d[:-1],
    "no blank line": lambda d: d.replace(b"\n\n", b"\n"),
    "no signatures": lambda d: d[: d.index(b"\n\n") + 2],
    "text after the signatures": lambda d: d + b"text\n",
    "the last signature twice": lambda d: d + d[d.rindex(DASH) :],
    "the first signature twice": lambda d: d + d[d.index(DASH) : d.rindex(DASH)],
    "two spaces in a signature line": lambda d: d.replace(b"one ", b"one  "),
    "a tab in a signature line": lambda d: d.replace(b"one ", b"one\t"),
    "two spaces after the dash": lambda d: d.replace(DASH + b" log", DASH + b"  log"),
    "a hyphen as dash": lambda d: d.replace(DASH, b"-", 1),
    "an en dash as dash": lambda d: d.replace(DASH, "\u2013".encode(), 1),
    "a space before the dash": lambda d: d.replace(DASH, b" " + DASH, 1),
    "base64 without padding": lambda d: d[:-1].rstrip(b"=") + b"\n",
    "base64 with more padding": lambda d: d[:-1] + b"=\n",
    "base64 with a padding bit set": last_base64_bit,
    "base64 of the URL alphabet": lambda d: d[: d.rindex(b" ")] + d[d.rindex(b" ") :].replace(b"A", b"-"),
    "base64 with a space": lambda d: d[:-10] + b" " + d[-10:],
    "a signature of its key id only": lambda d: d + DASH + b" x.example AAAAAA==\n",
    "a signature line without signature": lambda d: d + DASH + b" x.example\n",
    "a signature line without name": lambda d: d + DASH + b"  QUFBQUFBQUE=\n",
    "a name with a plus": lambda d: d + DASH + b" x+example QUFBQUFBQUE=\n",
    "a name with a no-break space": lambda d: d + DASH + " x\u00a0y QUFBQUFBQUE=\n".encode(),
    "a NUL": lambda d: d.replace(b"one\n", b"one\0\n", 1),
    "a byte order mark": lambda d: b"\xef\xbb\xbf" + d,
    "broken UTF-8 in the text": lambda d: b"\xff" + d,
    "broken UTF-8 in a name": lambda d: d + DASH + b" x\xff QUFBQUFBQUE=\n",
    "overlong UTF-8 in a name": lambda d: d + DASH + b" x\xc0\xaf QUFBQUFBQUE=\n",
    "sixty-five signatures": lambda d: d + b"".join(DASH + b" x%d QUFBQUFBQUE=\n" % number for number in range(63)),
    "a note of more than its limit": lambda d: d + DASH + b" x " + base64.b64encode(b"a" * n.MAX_NOTE) + b"\n",
    "an extension line": lambda d: d.replace(b"\n\n", b"\nextension\n\n"),
    "a blank line before the checkpoint": lambda d: b"\n" + d,
}


@pytest.mark.parametrize("variant", MALLEABLE)
def test_a_malleable_variant_of_a_signed_checkpoint_is_refused(variant: str) -> None:
    assert opened(SIGNED)[0] == CHECKPOINT
    changed = MALLEABLE[variant](SIGNED)
    assert changed != SIGNED, "the attack changed nothing"
    with pytest.raises((FormatError, SignatureInvalid)):
        opened(changed)


def test_sixty_four_signatures_are_read() -> None:
    strangers = b"".join(DASH + b" x%d QUFBQUFBQUE=\n" % number for number in range(62))
    assert opened(SIGNED + strangers) == opened(SIGNED)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_never_leaves_all_signatures_and_never_another_checkpoint(at: int, mask: int) -> None:
    data = bytearray(SIGNED)
    data[at % len(data)] ^= mask
    try:
        checkpoint, cosignatures = opened(bytes(data))
    except (FormatError, SignatureInvalid):
        return
    # A changed name or key id in the witness's line makes it a stranger's, which counts for nothing.
    assert checkpoint == CHECKPOINT and cosignatures == ()


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(["log.example/one", "\n", "\n\n", "\u2014 ", " ", "7", "QUFBQUFBQUE=", ROOT, "+", "\r", "a"])
    ).map(lambda parts: "".join(parts).encode())
)
def test_garbage_is_a_note_or_a_format_error(data: bytes) -> None:
    try:
        assert n.parse_note(data).encode() == data
    except FormatError:
        pass
    try:
        lines = n.parse_signature_lines(data)
        assert "".join(line.encode() for line in lines).encode() == data
    except FormatError:
        pass


@given(st.text(max_size=60))
def test_any_text_is_a_checkpoint_or_a_vkey_or_a_format_error(text: str) -> None:
    for parse in (cp.parse_checkpoint, n.parse_vkey):
        try:
            parse(text)
        except FormatError:
            pass


@given(st.text())
def test_any_text_is_signed_as_it_is_or_refused(text: str) -> None:
    try:
        data = n.sign_note(text, [LOG])
    except FormatError:
        return
    assert n.open_note(data, KNOWN).text == text


@given(st.text(max_size=20))
def test_any_name_is_a_signers_name_or_a_format_error(name: str) -> None:
    try:
        signer = n.Signer(name, LOG.key)
    except FormatError:
        return
    assert n.parse_vkey(signer.verifier().vkey) == signer.verifier()


def test_names_and_lines_beyond_their_limits_are_refused() -> None:
    assert n.Signer("x" * n.MAX_NAME, LOG.key)
    for name in ("x" * (n.MAX_NAME + 1), "\u00e9" * 128, "\ud800", "", "a b", "a+b", "a\0b", "a\x1bb", "a\u2003b"):
        with pytest.raises(FormatError):
            n.Signer(name, LOG.key)
    with pytest.raises(FormatError) as caught:
        n.parse_signature_lines(SIGNED + b"x" * n.MAX_NOTE)
    assert caught.value.code == "too-large"


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "a\r\n", "a\0b\n", "\x1b[2J\n"])
def test_a_text_with_control_characters_or_without_its_newline_is_neither_signed_nor_read(text: str) -> None:
    with pytest.raises(FormatError):
        n.sign_note(text, [LOG])
    tail = SIGNED[SIGNED.index(b"\n\n") :]
    if text.endswith("\n"):
        with pytest.raises(FormatError):
            n.parse_note(text[:-1].encode() + tail)
    n.parse_note(b"text" + tail)


def test_signature_lines_alone_end_in_a_newline() -> None:
    line = DASH + b" x QUFBQUFBQUE="
    assert n.parse_signature_lines(line + b"\n") == (n.SignatureLine("x", b"AAAA", b"AAAA"),)
    for data in (line, line + b"\n\n", b"\n" + line + b"\n", line + b"X", b"", b"\n"):
        with pytest.raises(FormatError):
            n.parse_signature_lines(data)


def test_two_known_keys_that_cannot_be_told_apart_are_refused() -> None:
    class Colliding(n.VerifierKey):
        """A key whose id was made to collide."""

    key = Colliding(LOG.name, 1, STRANGER.key.public)
    object.__setattr__(key, "key_id", LOG.verifier().key_id)
    with pytest.raises(FormatError):
        n.open_note(SIGNED, [LOG.verifier(), key])
