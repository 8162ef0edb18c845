"""What a deployment keeps to itself on a host that others use too."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ironbound.terminal.init import CLOSED, initialise
from ironbound.wire.deployment import Deployment

STRANGER = 61_990


def refused(uid: int, *words: str | Path) -> bool:
    """Whether the kernel refuses a user what a program does."""
    done = subprocess.run(
        words, user=uid, group=uid, extra_groups=[], env={"LC_ALL": "C", "PATH": os.defpath}, capture_output=True
    )
    assert done.returncode == 0 or b"Permission denied" in done.stderr, done.stderr
    return done.returncode != 0


def test_no_other_user_reads_what_agents_work_on_nor_what_services_complain_of(deployment: Deployment) -> None:
    task = deployment.root / "inputs" / "clerk.json"
    task.write_bytes(b"{}")
    complaint = deployment.root / "logs" / "node.log"
    complaint.write_bytes(b"")
    if not deployment.separated:
        assert all((deployment.root / one).stat().st_mode & 0o077 == 0 for one in CLOSED)
        return
    assert refused(STRANGER, "cat", task) and refused(STRANGER, "cat", complaint)
    assert refused(deployment.uid("controller"), "cat", task)
    gateway = deployment.uid("gateway")
    assert not refused(gateway, "cat", task)
    assert refused(gateway, "cp", "/dev/null", task) and refused(gateway, "rm", "-f", task)
    assert not refused(STRANGER, "cat", deployment.root / "pin.txt"), "the way there is open"


def test_a_folder_that_somebody_else_made_is_root_s_once_root_makes_a_deployment_in_it(deployment: Deployment) -> None:
    """Else that user could put other folders, keys and a trust root in the place of these."""
    root = deployment.root.parent / "given"
    root.mkdir()
    if os.getuid() == 0:
        os.chown(root, STRANGER, STRANGER)
    made = initialise(root, "given-test", [("ada", b"phrase")], 1)
    assert root.stat().st_uid == os.getuid()
    if made.separated:
        assert refused(STRANGER, "mv", root / "run", root / "other")
