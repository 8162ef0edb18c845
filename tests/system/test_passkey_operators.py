"""Two operators with passkeys from `init` to the auditor, by the real command line and real browsers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand import COMMAND, STRICT, folder, until

from browsers import hear_ctrl_c
from ironbound.core.words import words_of
from ironbound.terminal.demo.browser import Browser, Driver
from ironbound.terminal.init import free_ports
from ironbound.terminal.voice import Stop
from ironbound.wire.deployment import ROLES

OPEN = re.compile(r"ironbound: ([a-z]+): open (http://localhost:[0-9]+/\S+)")


class Command:
    """`ironbound WORDS` as a process; what it says is read line by line."""

    def __init__(self, *words: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def page(self, number: int) -> tuple[str, str]:
        """Who is asked on the page of that number, and its address."""

        def found() -> tuple[str, str] | None:
            pages = [match for line in list(self.lines) if (match := OPEN.match(line))]
            if len(pages) > number:
                return pages[number][1], pages[number][2]
            assert self.process.poll() is None or len(pages) > number, self.lines
            return None

        return until(f"page {number} of {self.lines}", found)

    def ended(self) -> tuple[int, str]:
        """Exit code and standard output."""
        assert self.process.stdout is not None and self.process.stderr is not None
        output = self.process.stdout.read()
        code = self.process.wait(60)
        self._reader.join(10)
        self.process.stdout.close()
        self.process.stderr.close()
        return code, output


@pytest.fixture(scope="module")
def people() -> Iterator[dict[str, Browser]]:
    """ada's and bo's browser, each with an authenticator of its own."""
    try:
        with Driver() as driver:
            made = {name: Browser(driver) for name in ("ada", "bo")}
            yield made
            for one in made.values():
                one.close()
    except Stop as stop:
        pytest.skip(f"{stop.cause} ({stop.hint})")


def signed(command: Command, people: dict[str, Browser], *expected: str) -> str:
    """Everybody who is expected signs on the pages of a command; its output."""
    for number, name in enumerate(expected):
        who, url = command.page(number)
        assert who == name
        assert "Done" in people[name].sign(url)
    code, output = command.ended()
    assert code == 0, command.lines
    return output


def test_from_init_to_the_auditor(people: dict[str, Browser], tmp_path: Path) -> None:
    place = folder(tmp_path, "d")
    port, other = free_ports(2)
    asked = ("--operator", f"ada=passkey:{port}", "--operator", f"bo=passkey:{other}", "--quorum", "2")
    signed(Command("init", str(place), "--name", "pk", *asked), people, "ada", "bo", "ada", "bo")
    trust = json.loads((place / "trust-root.json").read_text("utf-8"))
    assert len(trust["signatures"]) == 2
    with open(place / "up.log", "wb") as output:
        up = subprocess.Popen([*COMMAND, "up", "-d", str(place)], stderr=output)
    try:
        until("it is up", lambda: all(f"{role}: ready" in (place / "up.log").read_text("utf-8") for role in ROLES))
        # In one command, at one machine: the terminal shows what the page shows.
        command = Command("approve", "profile", str(STRICT), "-d", str(place), "--sign", "ada=passkey",
                          "--sign", "bo=passkey")  # fmt: skip
        _, url = command.page(0)
        people["ada"].open(url)
        rows = people["ada"].script(
            "return [...document.querySelectorAll('dl > div')].map((row) => "
            "[...row.children].map((one) => one.textContent))"
        )
        terminal = [" ".join(line.removeprefix("ironbound: ").split()) for line in command.lines]
        assert len(rows) > 15
        assert [row for row in rows if " ".join(" ".join(row).split()) not in terminal] == []
        words = next(value for label, value in rows if label == "words")
        digest = next(value for label, value in rows if label == "SHA-256")
        assert words_of(digest) == words
        people["ada"].click("#sign")
        _, url = command.page(1)
        assert "Done" in people["bo"].sign(url)
        code, output = command.ended()
        assert code == 0 and "(ada, bo)" in output
        # On two machines: a file goes from one to the other.
        file = tmp_path / "stop.json"
        alone = Command("approve", "profile", str(STRICT), "-d", str(place), "--json", "--sign", "ada=passkey")
        assert "Done" in people["ada"].sign(alone.page(0)[1])
        assert alone.ended()[0] == 1 and any("quorum-not-met" in line for line in alone.lines)
        made = Command("approve", "profile", str(STRICT), str(STRICT.with_name("site.toml")), "-d", str(place),
                       "--sign", "ada=passkey", "--out", str(file))  # fmt: skip
        signed(made, people, "ada")
        twice = Command("sign", str(file), "-d", str(place), "--sign", "ada=passkey")
        assert twice.ended()[0] == 1 and any("signed this request already" in line for line in twice.lines)
        assert "approved" in signed(Command("sign", str(file), "-d", str(place), "--sign", "bo=passkey"), people, "bo")
        assert "ada, bo" in signed(Command("submit", str(file), "-d", str(place)), people)
        stranger = Command("stop", "nobody", "-d", str(place), "--sign", "cy=passkey")
        assert stranger.ended()[0] == 1
        log = json.loads(signed(Command("log", "-d", str(place), "--json"), people))
        admitted = [one["about"]["signed"] for one in log if one["kind"] == "admitted"]
        assert admitted == [{"ada": "hw-uv", "bo": "hw-uv"}] * 2
        evidence = str(tmp_path / "e.ironbound")
        signed(Command("evidence", "export", "-d", str(place), "-o", evidence), people)
        verify = Command("verify", evidence, "--pin", (place / "pin.txt").read_text("utf-8").strip(), "--json")
        _, output = verify.ended()
        claim = next(one for one in json.loads(output)["claims"] if one["id"] == "C1")
        assert claim["status"] == "holds" and claim["counts"]["signatures hw-uv"] == 4
    finally:
        up.terminate()
        up.wait(60)


def test_an_init_that_somebody_declines_leaves_nothing(people: dict[str, Browser], tmp_path: Path) -> None:
    place = folder(tmp_path, "d")
    (port,) = free_ports(1)
    command = Command("init", str(place), "--operator", f"ada=passkey:{port}")
    assert "Done" in people["ada"].sign(command.page(0)[1])
    people["ada"].open(command.page(1)[1])
    people["ada"].click("#decline")
    code, _ = command.ended()
    assert code == 1 and any("ada declined" in line for line in command.lines)
    assert not place.exists() or not any(place.iterdir())
    interrupted = Command("init", str(place), "--operator", f"ada=passkey:{port}")
    assert "Done" in people["ada"].sign(interrupted.page(0)[1])
    interrupted.page(1)
    os.kill(interrupted.process.pid, signal.SIGINT)
    assert interrupted.ended()[0] == 1 and not any("Traceback" in line for line in interrupted.lines)
    assert not any(place.iterdir())


def test_a_passkey_made_elsewhere_is_enrolled_from_its_file(people: dict[str, Browser], tmp_path: Path) -> None:
    (port,) = free_ports(1)
    words = ("operator", "passkey", "bo", "--deployment-id", "pk", "--key", f"passkey:{port}")
    file = tmp_path / "bo.json"
    output = signed(Command(*words, "--out", str(file), "--json"), people, "bo")
    entry = signed(Command("operator", "key", str(file), "--deployment-id", "pk"), people)
    assert json.loads(entry)["keyid"] == json.loads(output)["keyid"]
    assert json.loads(entry)["entry"]["origin"] == f"http://localhost:{port}"
    again = Command(*words, "--out", str(file))
    assert again.ended()[0] == 1 and any("exists" in line for line in again.lines)
