"""`python -m ironbound.proof [PART ASKER]`: the proof, or a part of it (a solver's, or `search`), as JSON on stdout.

Nobody waits for the answer once whoever asked is gone, so it ends with them, and its parts with it: ASKER
is the process that a part has as its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from ironbound.wire.privilege import die_with_parent

from .prove import ask, fine, prove

if __name__ == "__main__":
    die_with_parent(signal.SIGKILL)
    words = sys.argv[1:]
    if words:
        if os.getppid() != int(words[1]):
            sys.exit("whoever asked is gone")
        print(json.dumps(ask(words[0])))
    else:
        proof = prove()
        if not fine(proof.search):
            sys.exit(f"the search of small worlds: {proof.search['found'] or 'not every rule let something through'}")
        print(json.dumps(proof.predicate))
