"""`python -m ironbound.proof [SOLVER]`: the proof, or one solver's part of it, as JSON on standard output."""

from __future__ import annotations

import json
import sys

from .prove import ask, prove

if __name__ == "__main__":
    words = sys.argv[1:]
    print(json.dumps(ask(words[0]) if words else prove().predicate))
