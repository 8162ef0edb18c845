"""The Merkle tree of RFC 6962 §2.1 with SHA-256: roots, inclusion and consistency proofs.

Decides whether a proof shows that a leaf is in a tree, or that one tree is a prefix of another. It does not
decide whether a root is the log's: that is the checkpoint's.

Rule 1: leaves and nodes are hashed in different domains (00 and 01), so that none can be passed off as the
other.
Rule 2: a proof has exactly the hashes that its index and sizes need; one too many is as wrong as one too
few.
Rule 3: the tree keeps the hashes of complete subtrees only; they never change, so every older root stays
provable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NoReturn

from .canonical import MAX_DECIMAL

HASH_SIZE = 32
MAX_SIZE = MAX_DECIMAL
"""Greatest size of a tree, in leaves."""
MAX_PROOF = 64
"""Greatest number of hashes in an inclusion proof; a consistency proof may have one more."""
EMPTY_ROOT = hashlib.sha256(b"").digest()

_sha256 = hashlib.sha256


class ProofInvalid(Exception):
    """A Merkle proof does not prove what it is said to prove."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf: SHA-256(00 ‖ data)."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node: SHA-256(01 ‖ left ‖ right)."""
    return _sha256(b"\x01" + left + right).digest()


class Tree:
    """A growing tree in memory, 64 bytes a leaf. `_levels[k]` holds the roots of complete subtrees of 2^k."""

    __slots__ = ("_levels", "_size")

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]
        self._size = 0

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._size

    def append(self, leaf: bytes) -> int:
        """Add a leaf by its hash and return its index."""
        if len(leaf) != HASH_SIZE:
            raise ValueError(f"expected a leaf hash of {HASH_SIZE} bytes, got {len(leaf)}")
        levels = self._levels
        index = self._size
        row = levels[0]
        row += leaf
        size = self._size = index + 1
        level = 0
        while not size & 1:
            node = _sha256(b"\x01" + row[-64:]).digest()
            size >>= 1
            level += 1
            if level == len(levels):
                levels.append(bytearray())
            row = levels[level]
            row += node
        return index

    def truncate(self, size: int) -> None:
        """Forget the leaves from `size` on, as when the commit that was to hold them failed."""
        self._within(size)
        for level, row in enumerate(self._levels):
            del row[(size >> level) * HASH_SIZE :]
        self._size = size

    def nodes(self, level: int, begin: int, end: int) -> bytes:
        """The hashes begin..end-1 of complete subtrees of 2^level leaves, joined: a tile's content."""
        if not (0 <= begin <= end <= self._size >> level):
            raise ValueError(f"expected a range within {self._size >> level}, got {begin}..{end}")
        return bytes(self._levels[level][begin * HASH_SIZE : end * HASH_SIZE]) if begin < end else b""

    def encode(self) -> bytes:
        """Every level's hashes, the leaves first."""
        return b"".join(self._levels)

    @classmethod
    def decode(cls, data: bytes, size: int) -> Tree:
        """The tree of so many leaves from its `encode`, whose hashes are taken as they stand. ValueError else."""
        tree = cls()
        tree._levels, tree._size, begin = [], size, 0
        while not tree._levels or size:
            tree._levels.append(bytearray(data[begin : begin + size * HASH_SIZE]))
            begin += size * HASH_SIZE
            size >>= 1
        if begin != len(data):
            raise ValueError(f"expected {begin} bytes of hashes, got {len(data)}")
        return tree

    def leaf(self, index: int) -> bytes:
        """The hash of one leaf."""
        return self.nodes(0, index, index + 1)

    def root(self) -> bytes:
        """The root of all leaves; EMPTY_ROOT if there is none."""
        return self._range(0, self._size)

    def root_at(self, size: int) -> bytes:
        """The root when the tree had `size` leaves."""
        self._within(size)
        return self._range(0, size)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """PATH(index, D[size]): siblings from the leaf upwards."""
        self._within(size)
        if not 0 <= index < size:
            raise ValueError(f"expected an index below {size}, got {index}")
        proof: list[bytes] = []
        level = 0
        while 1 << level < size:
            begin = (index >> level ^ 1) << level
            if begin < size:
                proof.append(self._range(begin, min(begin + (1 << level), size)))
            level += 1
        return proof

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """PROOF(old, D[new]); empty when old is 0 or equals new."""
        self._within(new)
        if not 0 <= old <= new:
            raise ValueError(f"expected an old size of at most {new}, got {old}")
        if old == 0:
            return []
        proof: list[bytes] = []
        begin, end, whole = 0, new, True
        while begin + old != end:
            middle = 1 << (end - begin - 1).bit_length() - 1
            if old <= middle:
                proof.append(self._range(begin + middle, end))
                end = begin + middle
            else:
                proof.append(self._range(begin, begin + middle))
                begin, old, whole = begin + middle, old - middle, False
        if not whole:
            proof.append(self._range(begin, end))
        proof.reverse()
        return proof

    def _within(self, size: int) -> None:
        if not 0 <= size <= self._size:
            raise ValueError(f"expected a size of at most {self._size}, got {size}")

    def _range(self, begin: int, end: int) -> bytes:
        # The hash of leaves begin..end-1; begin is a multiple of a power of two that is not below the length.
        if begin == end:
            return EMPTY_ROOT
        position, root = end, b""
        while position > begin:
            length = position - begin & begin - position  # the lowest bit set
            level = length.bit_length() - 1
            first = ((position >> level) - 1) * HASH_SIZE
            node = bytes(self._levels[level][first : first + HASH_SIZE])
            root = _sha256(b"\x01" + node + root).digest() if root else node
            position -= length
        return root


def _refuse(message: str) -> NoReturn:
    raise ProofInvalid(message)


def _check_hashes(proof: Sequence[bytes], *roots: bytes) -> None:
    if len(proof) > MAX_PROOF + 1:
        _refuse(f"expected at most {MAX_PROOF} hashes, got {len(proof)}")
    if any(len(one) != HASH_SIZE for one in (*proof, *roots)):
        _refuse(f"expected hashes of {HASH_SIZE} bytes")


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ProofInvalid unless `proof` puts the leaf hash at `index` in the tree of `size` with this root.

    RFC 9162 §2.1.3.2.
    """
    if not 0 <= index < size <= MAX_SIZE:
        _refuse(f"expected an index below {size}, got {index}")
    _check_hashes(proof, leaf, root)
    position, last, got = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            _refuse("the proof has too many hashes")
        if position & 1 or position == last:
            got = node_hash(sibling, got)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            got = node_hash(got, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        _refuse("the proof has too few hashes")
    if got != root:
        _refuse(f"the proof leads to another root than that of size {size}")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Raise ProofInvalid unless `proof` shows that the old tree is a prefix of the new one.

    RFC 9162 §2.1.4.2. From size 0, and between equal sizes, the proof is empty.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        _refuse(f"expected an old size of at most {new}, got {old}")
    _check_hashes(proof, old_root, new_root)
    if old == 0 and old_root != EMPTY_ROOT or new == 0 and new_root != EMPTY_ROOT:
        _refuse("the root of size 0 is not that of the empty tree")
    if old in (0, new):
        if proof:
            _refuse("the proof has too many hashes")
        if old == new and old_root != new_root:
            _refuse(f"two roots for the size {old}")
        return
    hashes = iter(proof if old & old - 1 else (old_root, *proof))
    position, last = old - 1, new - 1
    while position & 1:
        position >>= 1
        last >>= 1
    got_old = got_new = next(hashes, b"")
    for one in hashes:
        if last == 0:
            _refuse("the proof has too many hashes")
        if position & 1 or position == last:
            got_old = node_hash(one, got_old)
            got_new = node_hash(one, got_new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            got_new = node_hash(got_new, one)
        position >>= 1
        last >>= 1
    if last != 0:
        _refuse("the proof has too few hashes")
    if got_old != old_root:
        _refuse(f"the proof leads to another root than that of size {old}")
    if got_new != new_root:
        _refuse(f"the proof leads to another root than that of size {new}")
