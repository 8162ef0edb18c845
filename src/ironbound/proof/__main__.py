"""`python -m ironbound.proof [SOLVER]`: the proof, or a part of it (a solver's, or `search`), as JSON on stdout."""

from __future__ import annotations

import json
import sys

from .prove import ask, fine, prove

if __name__ == "__main__":
    words = sys.argv[1:]
    if words:
        print(json.dumps(ask(words[0])))
    else:
        proof = prove()
        if not fine(proof.search):
            sys.exit(f"the search of small worlds: {proof.search['found'] or 'not every rule let something through'}")
        print(json.dumps(proof.predicate))
