"""A fold can go on from its own state as bytes, and nobody's word about a state counts that isn't the entries'."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import ghost
import pytest

from ironbound.core import snapshot as snapshots
from ironbound.core.books import BrokenGlass
from ironbound.core.canonical import Digest, FormatError, b64encode, canonical, parse_canonical
from ironbound.core.jose import IssuerKey
from ironbound.core.keys import SignatureInvalid
from ironbound.core.oidc import IssuerKeys
from ironbound.core.proposal import Proposal
from ironbound.core.replay import Books, Replay
from ironbound.core.snapshot import MAX_SNAPSHOT, VOUCHING, read_head
from ironbound.core.trust import TrustRoot
from verifier.lab import Lab, digest_of, honest, key

EVERY = 32


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SNAPSHOT_EVERY", EVERY)
    monkeypatch.setattr(Replay, "_due", EVERY)


def folded(entries: list[bytes]) -> Replay:
    replay = Replay()
    for data in entries:
        replay.apply(data)
    return replay


def parts(replay: Replay) -> dict[str, Any]:
    """Everything that the fold holds, whatever it is called."""
    held = {**vars(replay), "_due": replay._due}
    trust, tree, authority, mark = (held.pop(name) for name in ("_trust", "tree", "_authority", "mark"))
    names = [] if mark is None else [mark.size, mark.root, mark.digest, mark.data, mark.voices]
    return held | {
        "trust": trust.envelope.encode(), "tree": tree._levels, "size": tree.size, "mark": names,
        "authority": authority._state, "ids": list(held["_ids"]), "grants": list(replay.books.grants),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_a_fold_that_goes_on_from_any_snapshot_is_the_whole_fold_in_every_part(seed: int) -> None:
    entries = ghost.played(40 + seed, 150).lab.entries
    whole = folded(entries)
    marks, replay = [], Replay()
    for data in entries:
        replay.apply(data)
        if replay.mark is not None and (not marks or marks[-1].size != replay.mark.size):
            marks.append(replay.mark)
    assert len(marks) >= 2
    for mark in marks:
        again = Replay.resumed(mark.data)
        assert parts(again) == parts(folded(entries[: mark.size])), "what is not in a snapshot is lost"
        for data in entries[mark.size :]:
            again.apply(data)
        assert parts(again) == parts(whole)


def test_every_kind_of_record_in_the_books_comes_back_as_it_was() -> None:
    """What the random histories don't hold; a field of a type that can't be read back would be lost here."""
    point = ("axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU")
    issued = IssuerKey("k1", "ES256", point)
    books = honest(releases=True).lab.replay.books
    books.broken_glass = {"g": BrokenGlass(5, digest_of("request"), (7, 9))}
    fields_of: Any = (8, "p", {"payload": "e30="}, "grant", "id", None, "ada", 9, (({"a": 1}, "bob"),), 4)
    books.proposals = {Digest("p"): Proposal(*fields_of)}
    books.void = {3: "said-twice"}
    books.issuers = {"https://idp.example": IssuerKeys(said={"k1": issued}), "https://other.example": IssuerKeys()}
    books.quotas = {"": {"calls": 1, "window_ms": 2}, "ant": None}
    books.answered = {5, 3}
    books.open_intents = books.challenges = books.started = {7: {"args": {"b": [1, None], "a": {}}, "id": "x"}}
    books.approved_calls = {("g", "d"): ["a", "b"]}
    packed = parse_canonical(canonical(snapshots._packed(Books, books)), limit=MAX_SNAPSHOT)
    again = snapshots._unpacked(Books, packed)
    assert again == books
    assert [one.name for one in fields(Books) if not getattr(books, one.name)] == [], "not tested"


def test_a_trust_root_that_changed_and_a_flagged_key_come_back_as_they_were() -> None:
    lab = Lab()
    lab.announce()
    lab.humans["dora"] = key("dora")
    operators = [lab.person(name) for name in ("ada", "bob", "dora")]
    lab.expect(lab.reform(lab.next_root(operators=operators)))
    lab.expect(lab.reform(lab.next_root(operators=[lab.person(name) for name in ("ada", "bob")])))
    lab.expect(lab.flag("dora", lab.replay.size, "bob"))
    replay, again = lab.replay, Replay.resumed(lab.replay.snapshot())
    assert replay.trust.version == 3 and replay.trust.former and replay.trust.compromised
    for one in fields(TrustRoot):
        if one.name not in ("services", "keys", "policy"):  # of which there are objects, not values
            assert getattr(again.trust, one.name) == getattr(replay.trust, one.name), one.name
    assert again.trust.services.keys() == replay.trust.services.keys()
    assert again.trust.keys.keys() == replay.trust.keys.keys()
    more = lab.ask("stop", agent="x", module_sha256=digest_of("m"))
    assert again.apply(more.data).void is None and again.snapshot() == replay.snapshot()


def test_a_kernel_with_many_values_takes_its_snapshots_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SNAPSHOT_EVERY", 4)
    monkeypatch.setattr(Replay, "_due", 4)
    sizes: dict[int, int] = {}
    replay = Replay()
    for data in ghost.played(9, 120).lab.entries:
        replay.apply(data)
        if replay.mark is not None:
            sizes.setdefault(replay.mark.size, replay.authority.values())
    gaps = [(later - size, values) for (size, values), later in zip(sizes.items(), list(sizes)[1:], strict=False)]
    assert gaps and all(gap == max(4, values) for gap, values in gaps)


def due() -> Lab:
    """A log in which a snapshot is due."""
    lab = honest().lab
    while lab.replay.mark is None:
        lab.say("controller", "refused", submission_sha256=digest_of("s"), reason="x", detail="", verb=None)
    return lab


def said(lab: Lab, **changes: Any) -> dict[str, Any]:
    mark = lab.replay.mark
    assert mark is not None
    return {"size": mark.size, "root": b64encode(mark.root), "state_sha256": mark.digest} | changes


def test_both_voices_vouch_and_no_other_can() -> None:
    lab = due()
    for role in ("controller", "monitor"):
        assert lab.say(role, "snapshot", **said(lab)).void is None
    assert lab.replay.mark is not None and lab.replay.mark.voices == VOUCHING == {"controller", "monitor"}
    for role in ("gateway", "node"):
        assert lab.say(role, "snapshot", **said(lab)).void == "voice-not-entitled"


@pytest.mark.parametrize(
    ("changes", "void"),
    [
        ({"state_sha256": digest_of("forged")}, "snapshot-differs"),
        ({"root": b64encode(b"r" * 32)}, "snapshot-differs"),
        ({"size": EVERY - 1}, "snapshot-not-due"),
        ({"size": EVERY * 2}, "snapshot-not-due"),
    ],
)
def test_a_voice_that_says_another_state_than_the_entries_make_is_void(changes: dict[str, Any], void: str) -> None:
    lab = due()
    before = lab.replay.snapshot()
    assert lab.say("controller", "snapshot", **said(lab, **changes)).void == void
    assert lab.replay.mark is not None and lab.replay.mark.voices == set()
    assert lab.replay.snapshot() != before, "the entry itself is a part of the log"


def test_one_value_more_or_less_is_another_digest() -> None:
    """The positive control, over everything that the kernel and the books hold."""
    lab = ghost.played(3, 120).lab
    data = lab.replay.snapshot()
    for field, values in lab.replay.authority._state.items():
        for at in list(values)[:1]:
            kept = values.pop(at)
            assert lab.replay.snapshot() != data, field
            values[at] = kept
    assert lab.replay.snapshot() == data


@pytest.mark.parametrize("place", [0, 10, 120, 200, -1])
def test_damaged_bytes_have_another_digest_or_are_refused(place: int) -> None:
    data = bytearray(due().replay.snapshot())
    whole = read_head(bytes(data)).digest
    data[place] ^= 1
    try:
        assert read_head(bytes(data)).digest != whole
    except FormatError:
        pass


@pytest.mark.parametrize("cut", [0, 1, 100, 1000, -1])
def test_cut_bytes_are_no_snapshot(cut: int) -> None:
    data = due().replay.snapshot()
    with pytest.raises((FormatError, SignatureInvalid)):
        Replay.resumed(data[:cut])


def test_a_first_line_that_names_other_lengths_is_refused() -> None:
    data = due().replay.snapshot()
    line, _, rest = data.partition(b"\n")
    for wrong in (b'"lengths":[1,2]', b'"lengths":["1",2,3,4,5,6,7]', b'"lengths":[-1,2,3,4,5,6,7]'):
        begin, end = line.index(b'"lengths"'), line.index(b"]") + 1
        with pytest.raises(FormatError, match="snapshot-malformed"):
            read_head(line[:begin] + wrong + line[end:] + b"\n" + rest)
    with pytest.raises(FormatError, match="snapshot-malformed"):
        read_head(canonical({"format": "ironbound-snapshot/v1"}) + b"\n")
    assert len(data) < MAX_SNAPSHOT
