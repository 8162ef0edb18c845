"""`ironbound trace`: the ladder of each launch, what is broken in it, and the same in the report."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from ironbound.canary.probes import controlled
from ironbound.evidence.report.build import report_html
from ironbound.terminal.main import main
from ironbound.verifier.trace import Ladder, ladders
from ironbound.verifier.verify import read_bundle

from .lab import Honest, honest

NAMES = [
    "signed release", "release approved", "services' configuration", "measured hosts", "module", "profile", "launch",
    "monitor's look", "consumed", "grant", "end",
]  # fmt: skip
DIFFERENT = [{"path": "site/ironbound/x.pyc", "expected": "a", "got": "b"}]


def traced(scene: Honest, agent: str | None = "clerk") -> list[Ladder]:
    sound = read_bundle(io.BytesIO(scene.lab.bundle()), scene.lab.pin)
    return list(ladders(sound.history, sound.releases, agent))


@pytest.fixture(scope="module")
def scene() -> Honest:
    return honest(releases=True)


@pytest.fixture
def file(scene: Honest, tmp_path: Path) -> str:
    path = tmp_path / "evidence.ironbound"
    path.write_bytes(scene.lab.bundle())
    return str(path)


def test_a_ladder_has_every_link_with_its_entry_and_is_whole(scene: Honest) -> None:
    (one,) = traced(scene)
    assert one.whole and [link.name for link in one.links] == NAMES
    entries = {link.name: link.index for link in one.links}
    assert entries["launch"] == scene.launch and entries["consumed"] == scene.started and entries["end"] is None
    assert entries["release approved"] < entries["profile"] < entries["launch"] < entries["consumed"]  # type: ignore[operator]
    words = {link.name: link.text for link in one.links}
    assert "asked by ada, approved by bob" in words["launch"] and "1 calls, signed by ada, bob" in words["grant"]


def test_the_command_tells_it_to_people_and_programs(
    file: str, scene: Honest, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trace", "clerk", "--bundle", file, "--pin", str(scene.lab.pin)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"clerk, launch in entry {scene.launch}: whole") and told.count("✓") == len(NAMES)
    assert main([*words, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["whole"] and [link["name"] for link in one["links"]] == NAMES


def test_no_such_agent_another_pin_and_a_pin_for_nothing_are_errors(
    file: str, scene: Honest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "nobody", "--bundle", file]) == 1
    assert "no launch of nobody" in capsys.readouterr().err
    other = re.sub(r"^lab", "other", str(scene.lab.pin))
    assert main(["trace", "clerk", "--bundle", file, "--pin", other]) == 3
    assert "pin-differs" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        raise SystemExit(main(["trace", "clerk", "--pin", str(scene.lab.pin)]))
    assert usage.value.code != 0


def test_a_broken_link_is_named_and_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = honest(releases=True)
    lab = scene.lab
    lab.measure("ledger", differences=DIFFERENT)
    lab.start(lab.expect(lab.ask_launch("second", scene.module, scene.cage)))
    assert [one.whole for one in traced(scene)] == [True]
    (one,) = traced(scene, "second")
    assert not one.whole and one.links[0].broken == (("start-void", "host-differs"),)
    path = tmp_path / "evidence.ironbound"
    path.write_bytes(lab.bundle())
    assert main(["trace", "second", "--bundle", str(path)]) == 1
    assert "✗" in (told := capsys.readouterr().out) and "start-void" in told


def test_without_a_release_the_first_link_is_broken_and_says_why() -> None:
    (one,) = traced(honest())
    assert [(link.name, link.broken[0][0]) for link in one.links if link.broken][0] == ("release", "no-release")


def test_what_ended_and_what_never_started_are_told() -> None:
    scene = honest(releases=True)
    lab = scene.lab
    lab.expect(lab.exit(scene.started))
    lab.expect(lab.ask_launch("clerk", scene.module, scene.cage))
    first, second = traced(scene)
    assert first.links[-1].text == "finished" and first.whole
    assert second.started is None and second.links[-1].text == "not started in this log" and second.whole


def test_the_report_says_which_canaries_got_out_in_their_control_and_by_whose_word(scene: Honest) -> None:
    page = report_html(io.BytesIO(scene.lab.bundle()), scene.lab.pin, controlled=controlled())[0].decode()
    part = page.partition("<h3>Positive controls</h3>")[2].partition("</section>")[0]
    assert "not by this log" in part and part.count("<summary>") == 1, "of the runtimes that ran here"
    (wasm,) = (one for one in controlled() if one.runtime == "wasmtime")
    assert f"wasmtime: {wasm.probes} of {wasm.probes} canaries got out" in part
    gvisor = next(one for one in controlled() if one.runtime == "gvisor")
    assert len(gvisor.without) == 29 < gvisor.probes and "](" not in "".join(one.how for one in controlled())


def test_the_report_has_the_chains_of_agents_as_the_verifier_told_them(scene: Honest) -> None:
    page = report_html(io.BytesIO(scene.lab.bundle()), scene.lab.pin)[0].decode()
    assert "1 launches of agents, 0 of them with a broken link" in page
    chain = page.partition("<details><summary>clerk")[2].partition("</details>")[0]
    assert [name.replace("&#x27;", "'") for name in re.findall(r"<b>(.*?)</b>", chain)] == NAMES
