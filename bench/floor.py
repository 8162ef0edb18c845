"""What several measurements share: percentiles, and the floor of one SHA-256 and one Ed25519 verification an entry."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ironbound.core.envelope import PAYLOAD_TYPE, pae, parse_envelope
from ironbound.core.keys import PublicKey, verify_signature
from ironbound.core.merkle import leaf_hash


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class HashAndVerify:
    """The floor over entries of one signature each; everything else is prepared beforehand."""

    def __init__(self, entries: Iterable[bytes], keys: Iterable[PublicKey]) -> None:
        by_id = {key.keyid: key for key in keys}
        self._work = []
        for entry in entries:
            envelope = parse_envelope(entry)
            signature = envelope.signatures[0]
            self._work.append((entry, by_id[signature.keyid], signature.sig, pae(PAYLOAD_TYPE, envelope.payload)))

    def microseconds(self) -> float:
        """Hash each entry and verify its signature, once over; microseconds per entry."""
        begin = time.perf_counter()
        for entry, key, signature, message in self._work:
            leaf_hash(entry)
            verify_signature(key, signature, message)
        return (time.perf_counter() - begin) / len(self._work) * 1e6
