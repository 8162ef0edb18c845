"""The TPM's quotes, where the trust root enrols a node's attestation key: each launch and each canary has one.

Decides for every start and every canary's result whether its quote is the enrolled TPM's, over these very words
(`core.tpm`), and whether the quotes follow one another without anything measured in between.

Rule 1: where a key is enrolled, a missing quote leaves the claim unproven and a wrong one refutes it.
Rule 2: what a software TPM signs is worth what the node's own key is worth; the claim says so.
"""

from __future__ import annotations

from collections.abc import Iterable

from ironbound.core.canonical import FormatError
from ironbound.core.keys import SignatureInvalid
from ironbound.core.tpm import Attested, measured, qualifying, verify_quote

from .claims import Case
from .history import History, Said


def check_quotes(case: Case, history: History, kind: str, said: Iterable[Said]) -> None:
    """The quotes in these statements of the node, all of one kind."""
    key = history.replay.trust.tpm
    if key is None:
        return
    for one in said:
        if one.says["quote"] is None:
            case.found("quote-missing", one.index, kind)
            continue
        try:
            _attested(history, kind, one)
            case.count("quotes by the node's TPM")
        except (FormatError, SignatureInvalid) as error:
            case.found("quote-invalid", one.index, f"{kind}: {error}"[:300])
    if key.root == "software":
        case.remark("the node's TPM is a software TPM, and so a software root: whoever has the host has its keys")


def check_chain(case: Case, history: History) -> None:
    """PCR 14 as the quotes tell it: what one launch left is what the next one found."""
    if history.replay.trust.tpm is None:
        return
    spoken = [("started", one) for one in (*history.starts.values(), *history.void.get("started", ()))]
    spoken += [("canary-result", one) for one in (*history.results, *history.void.get("canary-result", ()))]
    chain: list[tuple[Attested, int]] = []
    for kind, one in spoken:
        try:
            if one.says["quote"] is not None and _launch_of(kind, one) in history.replay.books.launches:
                chain.append((_attested(history, kind, one), one.index))
        except (FormatError, SignatureInvalid):
            continue  # found above; or a void word, which proves nothing
    chain.sort(key=lambda link: (link[0].resets, link[0].restarts, link[0].clock, link[1]))
    for (earlier, _), (later, index) in zip(chain, chain[1:], strict=False):
        if earlier.resets == later.resets and later.before != earlier.after:
            case.found("quote-gap", index, "PCR 14 is not what the launch before left")


def _launch_of(kind: str, said: Said) -> int:
    return int(said.says["launch" if kind == "started" else "challenge"])


def _attested(history: History, kind: str, said: Said) -> Attested:
    key = history.replay.trust.tpm
    launch = history.launch(_launch_of(kind, said))
    if key is None:
        raise FormatError("tpm-key", "no attestation key is enrolled")
    measurement = measured(kind, said.says)
    root = history.replay.tree.root_at(launch.index + 1)
    return verify_quote(key, said.says["quote"], qualifying(launch.nonce, root, measurement), measurement)
