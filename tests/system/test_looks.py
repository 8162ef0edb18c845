"""The monitor's look at a held sandbox, which every start carries: who gets one, of what, and what without it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from puppet import WAIT, puppet
from stand import Stand

from ironbound.core.held import account_digest, read_held
from ironbound.wire.frames import read_frame, write_frame

IDLE = puppet(WAIT)
HEAD = ("id", "at_ms", "deployment", "held", "quote")


def ask(stand: Stand, question: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the monitor; its answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(30.0)
        link.connect(stand.deployment.socket("monitor"))
        write_frame(link, dict(question))
        answer = read_frame(link)
    assert answer is not None
    return dict(answer)


def account_of(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name not in HEAD}


def over(stand: Stand, agent: str, started: int) -> None:
    stand.stop_agent(agent)
    stand.await_entry("exited", started, started=started)


def test_a_launch_is_two_entries_and_the_start_carries_what_the_monitor_saw(stand: Stand) -> None:
    entry = stand.started("looked-at", IDLE)
    seen = read_held(entry.predicate["held"])
    assert seen["differences"] == [] and seen["account_sha256"] == account_digest(entry.predicate)
    assert seen["posture"]["seccomp"] == 2 and seen["posture"]["uid"] == [entry.predicate["uid"]] * 4
    launch = entry.predicate["launch"]
    kinds = [one.kind for one in stand.entries(None, launch) if one.index <= entry.index and one.kind != "heartbeat"]
    assert kinds == ["admitted", "started"]
    over(stand, "looked-at", entry.index)


def test_a_process_that_has_its_start_is_not_looked_at_as_another_sandbox(stand: Stand) -> None:
    entry = stand.started("known", IDLE)
    start = stand.sync()
    answer = ask(stand, {"op": "look", "said": account_of(entry.predicate)})
    assert (answer["ok"], answer["code"]) == (False, "not-held")
    other = account_of(entry.predicate) | {"pid": os.getpid()}
    assert ask(stand, {"op": "look", "said": other})["code"] == "not-held"  # its launch has started
    assert not stand.entries("drift", start)
    over(stand, "known", entry.index)


@pytest.mark.parametrize("said", [None, {}, {"launch": 1}, "x"])
def test_what_is_no_account_is_refused_and_the_monitor_goes_on(stand: Stand, said: Any) -> None:
    answer = ask(stand, {"op": "look", "said": said})
    assert (answer["ok"], answer["code"]) == (False, "account-invalid")
    assert ask(stand, {"op": "look"})["code"] == "frame-invalid"
    entry = stand.started("after", IDLE)
    twisted = account_of(entry.predicate) | {"pid": "1"}
    assert ask(stand, {"op": "look", "said": twisted})["code"] == "account-invalid"
    assert ask(stand, {"op": "look", "said": dict(entry.predicate)})["code"] == "account-invalid"
    over(stand, "after", entry.index)


@pytest.mark.root
def test_only_the_node_s_user_is_answered(stand: Stand) -> None:
    entry = stand.started("asked-for", IDLE)
    code = (
        "import os, socket, sys, json\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "link = socket.socket(socket.AF_UNIX); link.connect(sys.argv[1])\n"
        "body = json.dumps({'op': 'look', 'said': {}}, separators=(',', ':')).encode()\n"
        "link.sendall(len(body).to_bytes(4, 'big') + body)\n"
        "print(link.recv(4096)[4:].decode())\n"
    )
    words = [sys.executable, "-I", "-c", code, stand.deployment.socket("monitor")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/")
    assert '"code":"peer-mismatch"' in done.stdout, done
    over(stand, "asked-for", entry.index)
