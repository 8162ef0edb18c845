"""One service process: `python -I -B -m ironbound.terminal.serve ROLE`, in the deployment directory.

The only place that knows all services; each process imports its own and no other.
"""

from __future__ import annotations

import sys
from typing import Final

from ironbound.monitor.events import subscribe
from ironbound.wire.privilege import CAP_KILL, CAP_SYS_ADMIN, CAP_SYS_PTRACE
from ironbound.wire.service import Main, run

#: Capabilities that a service keeps as root: the monitor reads other users' processes and their filters, and ends them.
KEPT: Final = {"monitor": (CAP_KILL, CAP_SYS_PTRACE, CAP_SYS_ADMIN)}
#: What a service opens while it is root, so that it need not keep the right: the kernel's events need CAP_NET_ADMIN.
FIRST: Final = {"monitor": subscribe}


def main_of(role: str) -> Main:
    """The service's main coroutine."""
    from . import compose

    if role == "ledger":
        return compose.ledger
    if role == "monitor":
        return compose.monitor
    if role == "controller":
        from ironbound.controller.service import main as controller

        return controller
    if role == "node":
        from ironbound.node.service import main as node

        return node
    if role == "gateway":
        from ironbound.gateway.service import main as gateway

        return gateway
    sys.exit(f"ironbound: no such service: {role}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -I -B -m ironbound.terminal.serve ROLE")
    run(sys.argv[1], main_of(sys.argv[1]), KEPT.get(sys.argv[1], ()), FIRST.get(sys.argv[1]))
