"""A proof shows exactly what RFC 6962 says it shows."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironbound.core import merkle as m

SIZE = 36
LEAVES = [m.leaf_hash(bytes([number])) for number in range(SIZE)]


# RFC 6962 §2.1 word for word, slow and without state: what the tree must agree with.


def split(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def mth(leaves: list[bytes]) -> bytes:
    if not leaves:
        return m.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return m.node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*path(index, leaves[:k]), mth(leaves[k:])]
    return [*path(index - k, leaves[k:]), mth(leaves[:k])]


def subproof(old: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    if old == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if old <= k:
        return [*subproof(old, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(old - k, leaves[k:], False), mth(leaves[:k])]


@pytest.fixture(scope="module")
def tree() -> m.Tree:
    tree = m.Tree()
    for number, leaf in enumerate(LEAVES):
        assert tree.append(leaf) == number
    return tree


def test_inclusion_verdicts_are_those_of_the_published_cases(shared_data: Path) -> None:
    cases = json.loads((shared_data / "merkle-inclusion" / "inclusion.json").read_bytes())
    assert len(cases) == 98
    accepted = 0
    for case in cases:
        leaf, root = base64.b64decode(case["leafHash"] or ""), base64.b64decode(case["root"] or "")
        proof = [base64.b64decode(one) for one in case["proof"] or []]
        try:
            m.verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root)
            refused = False
        except m.ProofInvalid:
            refused = True
        assert refused == case["wantErr"], case["_case"]
        accepted += not refused
    assert 0 < accepted < 98


def test_the_root_is_that_of_rfc_6962_at_every_size(tree: m.Tree) -> None:
    growing = m.Tree()
    for size in range(SIZE + 1):
        assert tree.root_at(size) == growing.root() == mth(LEAVES[:size])
        if size < SIZE:
            growing.append(LEAVES[size])
    assert growing.size == SIZE and growing.leaf(7) == LEAVES[7]


def test_every_inclusion_proof_is_that_of_rfc_6962_and_verifies_for_its_leaf_only(tree: m.Tree) -> None:
    for size in range(1, SIZE + 1):
        root = mth(LEAVES[:size])
        for index in range(size):
            proof = tree.inclusion_proof(index, size)
            assert proof == path(index, LEAVES[:size])
            m.verify_inclusion(LEAVES[index], index, size, proof, root)
            for other_index, other_size in ((index + 1, size), (index - 1, size), (index ^ 1, size)):
                with pytest.raises(m.ProofInvalid):
                    m.verify_inclusion(LEAVES[index], other_index, other_size, proof, root)
            wrong = [*proof, root], proof[:-1] if proof else [root], [*proof[:-1], bytes(32)], [*proof[:-1], b""]
            for other in wrong:
                with pytest.raises(m.ProofInvalid):
                    m.verify_inclusion(LEAVES[index], index, size, other, root)


def test_every_consistency_proof_is_that_of_rfc_6962_and_verifies_for_its_sizes_only(tree: m.Tree) -> None:
    roots = [mth(LEAVES[:size]) for size in range(SIZE + 1)]
    for new in range(SIZE + 1):
        for old in range(new + 1):
            proof = tree.consistency_proof(old, new)
            assert proof == (subproof(old, LEAVES[:new], True) if old else [])
            m.verify_consistency(old, new, proof, roots[old], roots[new])
            attacks = [
                (old, new, [*proof, bytes(32)], roots[old], roots[new]),
                (old, new, proof, bytes(32), roots[new]),
                (old, new, [*proof[:-1], bytes(32)], roots[old], roots[new]) if proof else None,
                (old, new, proof[:-1], roots[old], roots[new]) if proof else None,
                (old, new, proof[1:], roots[old], roots[new]) if proof else None,
                (old, new, proof, roots[old], bytes(32)) if old else None,
                (old - 1, new, proof, roots[old - 1], roots[new]) if 1 < old < new else None,
                (new + 1, new, proof, roots[old], roots[new]),
                (-1, new, proof, roots[old], roots[new]),
            ]
            for attack in attacks:
                if attack is not None:
                    with pytest.raises(m.ProofInvalid):
                        m.verify_consistency(*attack)


def test_an_inclusion_proof_of_another_height_is_refused_even_when_its_hashes_lead_to_the_root(tree: m.Tree) -> None:
    proof, root, above = tree.inclusion_proof(2, 4), mth(LEAVES[:4]), bytes(32)
    m.verify_inclusion(LEAVES[2], 2, 4, proof, root)
    with pytest.raises(m.ProofInvalid, match="too few"):
        m.verify_inclusion(LEAVES[2], 2, 5, proof, root)
    with pytest.raises(m.ProofInvalid, match="too many"):
        m.verify_inclusion(LEAVES[2], 2, 4, [*proof, above], m.node_hash(above, root))


def test_a_consistency_proof_of_another_height_is_refused_even_when_its_hashes_lead_to_the_roots(tree: m.Tree) -> None:
    proof, old_root, new_root = tree.consistency_proof(3, 4), mth(LEAVES[:3]), mth(LEAVES[:4])
    m.verify_consistency(3, 4, proof, old_root, new_root)
    with pytest.raises(m.ProofInvalid, match="too few"):
        m.verify_consistency(3, 5, proof, old_root, new_root)
    above = bytes(32)
    with pytest.raises(m.ProofInvalid, match="too many"):
        m.verify_consistency(3, 4, [*proof, above], m.node_hash(above, old_root), m.node_hash(above, new_root))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 700), st.data())
def test_proofs_verify_in_larger_trees(size: int, data: st.DataObject) -> None:
    tree = m.Tree()
    leaves = [m.leaf_hash(number.to_bytes(4, "big")) for number in range(size)]
    for leaf in leaves:
        tree.append(leaf)
    old = data.draw(st.integers(0, size))
    index = data.draw(st.integers(0, size - 1))
    m.verify_consistency(old, size, tree.consistency_proof(old, size), mth(leaves[:old]), mth(leaves))
    m.verify_inclusion(leaves[index], index, size, tree.inclusion_proof(index, size), tree.root())


@given(st.integers(-1, 2**64), st.integers(-1, 2**64), st.lists(st.binary(min_size=31, max_size=33), max_size=70))
def test_garbage_is_proof_invalid_and_nothing_else(one: int, two: int, proof: list[bytes]) -> None:
    root = bytes(32)
    with pytest.raises(m.ProofInvalid):
        m.verify_inclusion(LEAVES[0], one, two, proof, root)
    try:
        m.verify_consistency(one, two, proof, LEAVES[0], root)
    except m.ProofInvalid:
        pass
    else:
        pytest.fail("two different roots cannot be consistent through garbage")


def test_a_proof_longer_than_any_tree_is_high_is_refused() -> None:
    with pytest.raises(m.ProofInvalid):
        m.verify_inclusion(LEAVES[0], 0, m.MAX_SIZE, [bytes(32)] * 66, bytes(32))


def test_a_node_is_not_a_leaf() -> None:
    left, right = LEAVES[0], LEAVES[1]
    assert m.leaf_hash(left + right) != m.node_hash(left, right)
    assert m.EMPTY_ROOT != m.leaf_hash(b"")


def test_a_tree_that_was_cut_back_grows_as_if_nothing_had_been(tree: m.Tree) -> None:
    for size in range(SIZE + 1):
        cut = m.Tree()
        for leaf in [*LEAVES[:size], *(bytes([number]) * 32 for number in range(SIZE - size))]:
            cut.append(leaf)
        cut.truncate(size)
        assert cut.size == size and cut.root() == mth(LEAVES[:size])
        for leaf in LEAVES[size:]:
            cut.append(leaf)
        assert cut.root() == tree.root()
        assert cut.consistency_proof(5, SIZE) == tree.consistency_proof(5, SIZE)


def test_a_tile_is_cut_from_complete_subtrees_only(tree: m.Tree) -> None:
    assert tree.nodes(0, 3, 6) == b"".join(LEAVES[3:6])
    assert tree.nodes(2, 8, 9) == mth(LEAVES[32:36])
    assert tree.nodes(9, 0, 0) == b""
    for level, begin, end in ((0, 0, SIZE + 1), (3, 4, 5), (0, -1, 1), (0, 5, 4)):
        with pytest.raises(ValueError):
            tree.nodes(level, begin, end)


def test_the_tree_proves_nothing_beyond_what_it_holds(tree: m.Tree) -> None:
    before = tree.root()
    for call in (
        lambda: tree.inclusion_proof(SIZE, SIZE + 1),
        lambda: tree.inclusion_proof(5, 5),
        lambda: tree.inclusion_proof(-1, 5),
        lambda: tree.consistency_proof(6, 5),
        lambda: tree.consistency_proof(1, SIZE + 1),
        lambda: tree.root_at(SIZE + 1),
        lambda: tree.truncate(SIZE + 1),
        lambda: tree.append(b"short"),
    ):
        with pytest.raises(ValueError):
            call()
    assert tree.size == SIZE and tree.root() == before
