"""Two operators with passkeys from `init` to the auditor, by the real command line and real browsers."""

from __future__ import annotations

import hashlib
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
from ironbound.core.canonical import b64decode
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


#: What a page could swallow, and a terminal break into rows.
TICKET = "a  b <b>&amp;</b> größe"


def page_text(browser: Browser) -> tuple[str, str]:
    """What is read on the page, as lines of a terminal: the signed text, and what stands around it."""
    sections = browser.script(
        "return [...document.querySelectorAll('dl')].map((one) => [...one.children].map((row) => "
        "[row.classList.contains('part'), ...[...row.children].map((cell) => cell.innerText)]))"
    )
    lines = ["".join(f"{'  ' * part + label:14} {value}\n" for part, label, value in rows) for rows in sections]
    return lines[0], lines[1]


def terminal_text(command: Command, expected: str) -> str:
    """As many lines as are expected, as they stand in the terminal before the page's address."""
    lines = list(command.lines)
    end = next(at for at, line in enumerate(lines) if OPEN.match(line))
    count = expected.count("\n")
    return "".join(line.removeprefix("ironbound: ") + "\n" for line in lines[max(0, end - count) : end])


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
        command = Command("approve", "profile", str(STRICT), "-d", str(place), "--ticket", TICKET,
                          "--sign", "ada=passkey", "--sign", "bo=passkey")  # fmt: skip
        _, url = command.page(0)
        people["ada"].open(url)
        signed_text, around = page_text(people["ada"])
        assert terminal_text(command, signed_text + around) == signed_text + around
        assert '"a \\u0020b <b>&amp;</b> gr\\u00f6\\u00dfe"' in signed_text and signed_text.count("\n") > 15
        words, digest = (re.findall(rf"^{label} +(.+)$", around, re.MULTILINE) for label in ("words", "SHA-256"))
        assert [words_of(one) for one in digest] == words
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
        who, url = made.page(0)
        people[who].open(url)
        signed_text, _ = page_text(people[who])
        assert people[who].finish() == "good"
        assert made.ended()[0] == 0
        # What the page showed is, to the byte, what the signature says that was shown.
        payload = json.loads(b64decode(json.loads(file.read_bytes())["request"]["payload"]))
        assert hashlib.sha256(signed_text.encode()).hexdigest() == payload["predicate"]["shown_sha256"]
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
    assert interrupted.ended()[0] == 130 and not any("Traceback" in line for line in interrupted.lines)
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
