"""Runs the worker's own probes with walls of one's choice; the positive control of each wall leaves that one out.

`python walls.py WALL…` puts up just the named walls (of uid, capabilities, landlock, seccomp) and writes the verdicts
to descriptor 6 as JSON: {"before": {name: [verdict, refusal]}, "behind": {…}}.
"""

from __future__ import annotations

import json
import os
import sys

from ironbound.node.sandbox import lockdown
from ironbound.node.sandbox.probe import probes_before_filter, probes_behind_filter, run_probes

SANDBOX_ID = 71999


def main(walls: set[str]) -> None:
    root = os.getuid() == 0
    if "uid" in walls and root:
        lockdown.become_user(SANDBOX_ID, SANDBOX_ID, "user")
    if "capabilities" in walls:
        lockdown.drop_capabilities()
    elif not root:
        lockdown.enter_namespaces("process")  # the only place where an ordinary user has capabilities to keep
    sys.stdout.flush()
    if (child := os.fork()) > 0:
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    lockdown.set_no_new_privs()
    if "landlock" in walls:
        lockdown.restrict_by_landlock()
    results = {"before": run_probes(probes_before_filter(lockdown.landlock_abi()))}
    # Descriptors 4 and 5 mean something to the probes: a readable one and a socket.
    if "seccomp" in walls:
        lockdown.install_filter()
    results["behind"] = run_probes(probes_behind_filter())
    said = {when: {item.name: [item.verdict, item.refusal] for item in items} for when, items in results.items()}
    os.write(6, json.dumps(said).encode())  # the filter leaves descriptor 6 writable
    os._exit(0)


if __name__ == "__main__":
    main(set(sys.argv[1:]))
