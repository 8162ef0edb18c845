"""One service process: `python -I -m ironbound.terminal.serve ROLE`, in the deployment directory.

The only place that knows all services; each process imports its own and no other.
"""

from __future__ import annotations

import sys
from typing import Final

from ironbound.wire.privilege import CAP_SYS_ADMIN, CAP_SYS_PTRACE
from ironbound.wire.service import Main, run

#: Capabilities that a service keeps as root: the monitor reads other users' processes and their filters.
KEPT: Final = {"monitor": (CAP_SYS_PTRACE, CAP_SYS_ADMIN)}


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
        sys.exit("usage: python -I -m ironbound.terminal.serve ROLE")
    run(sys.argv[1], main_of(sys.argv[1]), KEPT.get(sys.argv[1], ()))
