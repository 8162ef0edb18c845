"""A process may end at any moment of a glance: then it is gone, and the monitor goes on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ironbound.monitor.glance import Glance
from ironbound.monitor.observe import ProcessGone


@pytest.fixture
def child() -> Iterator[int]:
    """A process that waits for its end."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"\n")
        assert process.stdout.read(1)  # it has all its libraries and descriptors
        yield process.pid


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESRCH])
def test_a_process_that_ends_while_it_is_looked_up_is_gone(
    child: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOENT where there is none any more, ESRCH where it ends between the kernel's lookup and its permission."""
    exact = os.open
    refused: list[Any] = []

    def opens(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).startswith(f"/proc/{child}") and not refused:
            refused.append(path)
            raise OSError(code, os.strerror(code), path)
        return exact(path, *rest, **more)

    monkeypatch.setattr(os, "open", opens)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ProcessGone):
        Glance(child, None)
    assert refused == [f"/proc/{child}"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    glance = Glance(child, None)  # the control: it lives, and is seen
    assert glance.look() == glance.look()
    glance.close()
