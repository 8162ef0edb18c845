"""The whole state of a fold as bytes, from which it can go on without the entries that made it.

Decides what belongs to the state, and at which sizes of the log a snapshot of it is due. Whom to believe that these
bytes are the log's state is decided elsewhere: `replay` voids a word about another state than its own, and
`wire.snapshots` starts a service from its own earlier bytes alone, and only if two voices said their digest.

A snapshot is a line of canonical JSON (`Head`) and then its parts, one after another: the trust root's envelope; what
became of it since; books; the kernel's state; when the last entries were said (8 bytes each, big-endian); each entry's
kind (a byte, which counts in the books' list of kinds); the ids that were used, in order (a byte for the voice and 16
of the id); the tree's levels, from the leaves up. So an entry takes about 82 bytes, and reading them back costs no
signature and no hash.

Rule 1: the same entries make the same bytes, wherever the fold began.
Rule 2: everything that a later entry's effect depends on is in it.
"""

from __future__ import annotations

from collections import abc, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from itertools import pairwise
from typing import Any, Final, Self, Union, get_args, get_origin, get_type_hints

from .authority import Authority
from .canonical import Digest, FormatError, b64decode, b64encode, canonical, parse_canonical, sha256_hex
from .constraint import Where, parse_where
from .merkle import HASH_SIZE, Tree
from .roster import changed
from .statement import VOICES
from .trust import TrustRoot, parse_trust_root, read_roster

FORMAT: Final = "ironbound-snapshot/v1"
#: A snapshot is due after so many entries, or as many as the kernel's state has values, if that is more: so that taking
#: snapshots costs each entry the same, however large the state.
SNAPSHOT_EVERY: Final = 4096
MAX_SNAPSHOT: Final = 1 << 30
MAX_HEAD: Final = 4096
#: The voices that a service starts from a snapshot for.
VOUCHING: Final = frozenset(role for role, kinds in VOICES.items() if "snapshot" in kinds)
_PARTS: Final = ("trust", "people", "books", "authority", "times", "kinds", "ids", "tree")
_ROLES: Final = tuple(VOICES)
_ID: Final = 17
_SEVERAL: Final = (Union, type(int | None))


@dataclass(frozen=True, slots=True)
class Head:
    """What a snapshot says of itself: whose log, how many entries, their root, and its digest."""

    deployment: str
    size: int
    root: bytes
    digest: Digest
    lengths: tuple[int, ...]


@dataclass(slots=True)
class Mark:
    """The latest snapshot that was due, and the voices that said its digest since."""

    size: int
    root: bytes
    digest: Digest
    data: bytes
    voices: set[str] = field(default_factory=set)


def used_id(role: str, statement_id: str) -> bytes:
    """The form in which a fold remembers that a voice used an id."""
    return bytes((_ROLES.index(role),)) + bytes.fromhex(statement_id)


def read_head(data: bytes) -> Head:
    """A snapshot's first line; FormatError (`snapshot-malformed`) if its parts don't fill the rest exactly."""
    line, _, rest = data[:MAX_HEAD].partition(b"\n")
    said = parse_canonical(line, limit=MAX_HEAD)
    if type(said) is not dict or said.keys() != {"format", "deployment", "size", "root", "lengths"}:
        raise FormatError("snapshot-malformed", "expected format, deployment, size, root and lengths")
    name, size, root, lengths = said["deployment"], said["size"], said["root"], said["lengths"]
    if said["format"] != FORMAT or type(name) is not str or type(size) is not int or type(root) is not str:
        raise FormatError("snapshot-malformed", f"expected {FORMAT}")
    if type(lengths) is not list or len(lengths) != len(_PARTS):
        raise FormatError("snapshot-malformed", "expected the length of each part")
    sizes = tuple(one for one in lengths if type(one) is int and one >= 0)
    if len(sizes) != len(_PARTS) or len(line) + 1 + sum(sizes) != len(data):
        raise FormatError("snapshot-malformed", "the parts are not as long as the first line says")
    return Head(name, size, b64decode(root), sha256_hex(data), sizes)


class Resumable:
    """What can be taken and resumed; `replay.Replay` is one. `mark` is the latest snapshot that was due."""

    tree: Tree
    books: Any
    _trust: TrustRoot | None
    _authority: Authority
    _ids: dict[bytes, None]
    _times: deque[int]
    mark: Mark | None = None
    _due: int = SNAPSHOT_EVERY

    def _take(self) -> None:
        """Take the snapshot of the state as it is, which is due."""
        self._marked(self.snapshot())

    def _marked(self, data: bytes) -> None:
        self.mark = Mark(self.tree.size, self.tree.root(), sha256_hex(data), data)
        self._due = self.tree.size + max(SNAPSHOT_EVERY, self._authority.values())

    def snapshot(self) -> bytes:
        """The state's bytes. O(state) and a few bytes for each entry."""
        if self._trust is None:
            raise FormatError("trust-root-missing", "the log has no trust root yet")
        books = _packed(type(self.books), self.books)
        kinds = books.pop("kinds")
        listed = sorted(set(kinds))
        places = {kind: place for place, kind in enumerate(listed)}
        parts = (
            self._trust.envelope.encode(),
            canonical(_people(self._trust)),
            canonical({"books": books, "kinds": listed}),
            self._authority.encode(),
            b"".join(one.to_bytes(8, "big") for one in self._times),
            bytes(places[kind] for kind in kinds),
            b"".join(self._ids),
            self.tree.encode(),
        )
        head = canonical({
            "format": FORMAT,
            "deployment": self._trust.deployment,
            "size": self.tree.size,
            "root": b64encode(self.tree.root()),
            "lengths": [len(one) for one in parts],
        })  # fmt: skip
        return b"".join((head, b"\n", *parts))

    @classmethod
    def resumed(cls, data: bytes) -> Self:
        """The fold that goes on from a snapshot. FormatError or SignatureInvalid if it is none.

        That it is the log's state must be known by its digest before: what it says is taken as it stands.
        """
        head = read_head(data)
        begin = len(data) - sum(head.lengths)
        ends = [begin + sum(head.lengths[: place + 1]) for place in range(len(_PARTS))]
        parts = [data[one:end] for one, end in pairwise([begin, *ends])]
        trust, people, books, authority, times, kinds, ids, tree = parts
        made = cls()
        made._trust = _in_force(parse_trust_root(trust), people)
        made._authority = Authority.decode(authority, limit=MAX_SNAPSHOT)
        said: Any = parse_canonical(books, limit=MAX_SNAPSHOT)
        made.books = _unpacked(type(made.books), {**said["books"], "kinds": [said["kinds"][one] for one in kinds]})
        made._times.clear()
        made._times.extend(int.from_bytes(times[at : at + 8], "big") for at in range(0, len(times), 8))
        made._ids = dict.fromkeys(ids[at : at + _ID] for at in range(0, len(ids), _ID))
        made.tree = Tree.decode(tree, head.size)
        if made.tree.root() != head.root or len(made.books.kinds) != head.size or len(tree) % HASH_SIZE:
            raise FormatError("snapshot-malformed", "the snapshot's parts are not of one log")
        made._marked(data)
        return made


def _people(trust: TrustRoot) -> dict[str, Any]:
    """What the log made of the trust root since entry 0."""
    return {"body": dict(trust.body), "former": dict(trust.former), "compromised": dict(trust.compromised)}


def _in_force(first: TrustRoot, people: bytes) -> TrustRoot:
    """The trust root that was in force, from its first version."""
    said: Any = parse_canonical(people, limit=MAX_SNAPSHOT)
    trust = first if said["body"] == first.body else changed(first, said["body"], read_roster(said["body"]))
    return replace(trust, former=said["former"], compromised=said["compromised"])


# The books as JSON, by the types that their fields declare. A dictionary is a list of pairs, since its order counts,
# and so is a `Mapping` to records; any other `Mapping` is a part of an entry, and JSON already.


def _packed(kind: Any, value: Any) -> Any:
    kind, form, inner = _read(kind, value)
    if kind is Where:
        return value.as_value()
    if isinstance(kind, type) and is_dataclass(kind):
        return {name: _packed(hint, getattr(value, name)) for name, hint in _hints(kind).items()}
    if form is dict:
        return [[_packed(inner[0], key), _packed(inner[1], one)] for key, one in value.items()]
    if form is set:
        return sorted(value)
    if form in (tuple, list):
        return [_packed(hint, one) for hint, one in zip(_each(inner, value), value, strict=True)]
    return value.value if isinstance(value, Enum) else value


def _unpacked(kind: Any, value: Any) -> Any:
    kind, form, inner = _read(kind, value)
    if kind is Where:
        return parse_where(value)
    if isinstance(kind, type) and is_dataclass(kind):
        return kind(**{name: _unpacked(hint, value[name]) for name, hint in _hints(kind).items()})
    if form is dict:
        return {_unpacked(inner[0], key): _unpacked(inner[1], one) for key, one in value}
    if form in (tuple, list, set):
        return form(_unpacked(hint, one) for hint, one in zip(_each(inner, value), value, strict=True))
    return kind(value) if isinstance(kind, type) and issubclass(kind, Enum) else value


def _read(kind: Any, value: Any) -> tuple[Any, Any, tuple[Any, ...]]:
    """A type without its aliases; where it is of several, None or the other; what it is made of."""
    while hasattr(kind, "__supertype__"):
        kind = kind.__supertype__
    if get_origin(kind) in _SEVERAL:
        if value is None:
            return None, None, ()
        (kind,) = (one for one in get_args(kind) if one is not type(None))
        return _read(kind, value)
    form, inner = get_origin(kind), get_args(kind)
    records = form is abc.Mapping and is_dataclass(inner[1])
    return kind, dict if records else form, inner


def _each(inner: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """The type of each member."""
    return inner if len(inner) == len(value) and inner[-1] is not Ellipsis else (inner[0],) * len(value)


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind) if one.init}


__all__ = ["SNAPSHOT_EVERY", "VOUCHING", "Head", "Mark", "Resumable", "read_head", "used_id"]
