"""The command line against a running deployment: its verbs, its errors with cause and hint, its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import wasmtime
from puppet import WAIT, puppet
from stand import PEOPLE, STRICT, Stand, folder

from ironbound.core import authority
from ironbound.core.canonical import sha256_hex
from ironbound.core.profile import keys_of
from ironbound.core.surface import surface_digest
from ironbound.terminal.main import USAGE
from ironbound.verifier.proof.obligations import scripts

IDLE = puppet(WAIT)
TWO = PEOPLE[:2]
COMMANDS = [
    ("init",), ("up",), ("status",), ("agents",), ("grants",), ("log",), ("approve", "profile"), ("approve", "module"),
    ("approve", "canaries"), ("approve", "release"),
    ("run",), ("stop",), ("grant",), ("revoke",), ("sign",), ("submit",), ("credential",),
    ("image", "load"), ("image", "list"), ("image", "kernel"), ("surface",), ("canary", "run"), ("evidence", "export"),
    ("verify",), ("demo",), ("operator", "key"), ("explain",), ("operator", "new"), ("roster",),
    ("requests",), ("requests", "show"), ("requests", "approve"),
    ("requests", "decline"),
    ("roster", "propose"), ("roster", "flag"), ("roster", "review"), ("evidence", "report"), ("prove",), ("scan",),
    ("trace",), ("quota",),
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(stand: Stand, words: tuple[str, ...]) -> None:
    shown = stand.command(*words, "--help", where=False)
    assert shown.returncode == 0, shown.stderr
    assert "ironbound " + " ".join(words) in re.sub(r"\s+", " ", shown.stdout), shown.stdout


def test_the_screen_of_usage_names_exactly_the_commands_that_exist(stand: Stand) -> None:
    named = set()
    for line in re.findall(r"^  ironbound (.+?)(?:  |\n|$)", USAGE, re.MULTILINE):
        named |= {part.split()[0] for part in line.split(" | ")}
    assert named == {words[0] for words in COMMANDS}
    shown = stand.command(where=False)
    assert shown.returncode == 0 and shown.stdout.strip() == USAGE.strip()
    unknown = stand.command("destroy", where=False)
    assert unknown.returncode == 2 and "hint" in unknown.stderr


def test_the_whole_life_of_an_agent_from_the_command_line(stand: Stand, tmp_path: Path) -> None:
    module = tmp_path / "agent.wasm"
    module.write_bytes(puppet(WAIT, WAIT, WAIT))
    done = stand.command("approve", "module", str(module), "--json", names=TWO)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["humans"] == list(TWO)
    done = stand.command("run", str(module), "--as", "cli", "--profile", "strict", "--ticket", "T-1", names=TWO)
    assert done.returncode == 0, done.stderr
    assert "launch of cli admitted" in done.stdout and re.search(r'ticket +"T-1"', done.stderr)
    entry = stand.await_entry("started", agent="cli")
    agents = json.loads(stand.command("agents", "--json").stdout)
    assert agents[-1]["agent"] == "cli" and agents[-1]["state"] == "running" and agents[-1]["humans"] == list(TWO)
    done = stand.command(
        "grant", "cli", "http.request", "--tool", "fetch", "--where", "host=127.0.0.1", "--where", "method=GET|HEAD",
        "--where", "path=/records/*", "--calls", "5", "--for", "8h", "--json", names=TWO,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grant = json.loads(done.stdout)["id"]
    listed = json.loads(stand.command("grants", "--json").stdout)
    mine = next(one for one in listed if one["grant"] == grant)
    assert (mine["tool"], mine["calls_left"], mine["state"]) == ("fetch", 5, "live")
    assert mine["where"]["method"] == {"one_of": ["GET", "HEAD"]}
    assert stand.command("revoke", grant, names=("cy",)).returncode == 0
    listed = json.loads(stand.command("grants", "--json").stdout)
    assert next(one for one in listed if one["grant"] == grant)["state"] == "revoked"
    status = json.loads(stand.command("status", "--json").stdout)
    assert "cli" in status["running"] and status["quorum"]["launch"] == 2
    assert stand.command("stop", "cli", names=("bo",)).returncode == 0
    stand.await_entry("exited", entry.index, started=entry.index, reason="stopped")
    log = json.loads(stand.command("log", "--last", "0", "--json").stdout)
    assert [one["index"] for one in log] == list(range(len(log)))
    assert "trust-root" in stand.command("log", "--last", "0").stdout
    for name in ("status", "agents", "grants", "log"):
        shown = stand.command(name)
        assert shown.returncode == 0 and shown.stdout and not shown.stderr, name


def test_two_operators_on_two_machines_sign_one_after_the_other(stand: Stand, tmp_path: Path) -> None:
    module, paper = tmp_path / "agent.wasm", tmp_path / "request.json"
    module.write_bytes(puppet(WAIT, WAIT, WAIT, WAIT))
    size = stand.sync()
    done = stand.command("approve", "module", str(module), "--out", str(paper), names=("ada",))
    sent = [one for one in stand.entries(None, size) if one.kind in ("admitted", "proposed", "seconded")]
    assert done.returncode == 0 and not sent and "logged at" not in done.stderr, "nothing was sent"
    early = stand.command("submit", str(paper))
    assert early.returncode == 1 and early.stderr.count("fewer humans consent") == 1
    before = paper.read_bytes()
    refused = stand.command("sign", str(paper), names=("ada",))
    assert refused.returncode == 1 and "initiator-approves" in refused.stderr and paper.read_bytes() == before
    signed = stand.command("sign", str(paper), names=("cy",))
    assert signed.returncode == 0 and "approve a module" in signed.stderr
    done = stand.command("submit", str(paper), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["humans"] == ["ada", "cy"]
    again = stand.command("submit", str(paper))
    assert again.returncode == 1 and "request-replayed" in again.stderr
    stand.sync()
    for said, reason in ((early, "quorum-not-met"), (again, "request-replayed")):
        logged = re.search(rf"{reason}: .*logged at (\d+)", said.stderr)
        assert logged and stand.log.entries[int(logged[1])].predicate["reason"] == reason, said.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[agent\n", ("line 1",)),
        ('profile = "x"\n[agent.runtime]\nmax_memmory = 12\n', ("max_memmory", "max_memory")),
        ('profile = "x"\n[agent.runtime]\nmax_memory = -1\n', ("max_memory", "-1")),
        ('profile = "x"\n[agent.runtime]\nmax_fuel = 0\n', ("max_fuel",)),
        ('profile = "x"\n[agent.runtime]\nmax_stack = "512"\n', ("max_stack",)),
        ('profile = "x"\n[agent.runtime]\nmax_stack = true\n', ("max_stack",)),
        ('profile = "x"\n[agent.runtime]\nstrict_security = false\n', ("strict_security", "there is no other mode")),
        ('profile = "x"\n[agent.runtime]\ndisallowed_imports = []\n', ("disallowed_imports",)),
        ('profile = "x"\n[agent.network]\nallow = ["*"]\n', ("network",)),
    ],
)
def test_a_profile_with_a_mistake_is_refused_with_cause_and_hint(
    stand: Stand, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    site = tmp_path / "site.toml"
    site.write_text(text)
    before, size = stand.snapshot(), stand.sync()
    done = stand.command("approve", "profile", str(STRICT), str(site), names=TWO)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "ironbound: error:" in done.stderr and "ironbound: hint:" in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert stand.snapshot() == before
    assert not [one for one in stand.entries(None, size) if one.role == "controller"]


@pytest.mark.parametrize(
    ("words", "names", "code", "said"),
    [
        (("run", "/no/such/agent.wasm", "--as", "x", "--profile", "strict"), TWO, 1, "No such file"),
        (("run", "{strict}", "--as", "x", "--profile", "none-such"), TWO, 1, "no approved profile"),
        (("run", "{strict}", "--as", "x", "--profile", "strict"), TWO, 1, "module-not-approved"),
        (("run", "{strict}", "--as", "Bad Name", "--profile", "strict"), TWO, 1, "agent"),
        (("approve", "module", "{strict}"), TWO, 1, "module-malformed"),
        (("approve", "module", "{strict}"), (), 2, "nobody signs"),
        (("stop", "nobody"), TWO, 1, "ever launched"),
        (("grant", "nobody", "http.request"), TWO, 1, "ever launched"),
        (("revoke", "00" * 16), TWO, 1, "no grant"),
        (("grant", "x", "http.get"), TWO, 2, "nearest: http.request"),
        (("grant", "x", "http.request", "--for", "1y"), TWO, 2, "length of time"),
        (("grant", "x", "http.request", "--where", "host"), TWO, 2, "ARG=VALUE"),
        (("submit", "{strict}"), (), 1, "--out"),
        (("log", "--las", "3"), (), 2, "unrecognized"),
        (("run", "{strict}", "--as", "x"), TWO, 2, "--profile"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_with_its_exit_code(
    stand: Stand, words: tuple[str, ...], names: tuple[str, ...], code: int, said: str
) -> None:
    before = stand.snapshot()
    done = stand.command(*(word.format(strict=STRICT) for word in words), names=names)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and said in done.stderr, done.stderr
    assert stand.snapshot() == before


def test_a_profile_is_explained_line_by_line_with_the_layer_that_set_each(stand: Stand, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[agent.runtime]\nmax_memory = 48\n")
    done = stand.command("explain", str(STRICT), str(site), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    rows = {one["setting"]: one for one in said["rows"]}
    assert set(keys_of("wasmtime")) <= set(rows) and said["approved"] is None
    assert (rows["runtime.max_memory"]["value"], rows["runtime.max_memory"]["layer"]) == (48, "site.toml")
    assert rows["runtime.max_fuel"]["layer"] == "strict.toml"
    assert "only mode" in rows["runtime.strict_security"]["means"]
    assert all(one["enforcer"] and one["code"] and one["kernel"] and one["controls"] for one in rows.values())
    alone = stand.command("explain", str(STRICT), where=False)
    assert alone.returncode == 0 and "-d DIR" in alone.stderr and "runtime.max_memory = " in alone.stdout
    assert "kernel       seccomp(2)" in alone.stdout and "controls     CM-6, SC-39" in alone.stdout
    site.write_text("[agent.runtime]\nstrict_security = false\n")
    refused = stand.command("explain", str(STRICT), str(site))
    assert refused.returncode == 1 and "there is no other mode" in refused.stderr


@pytest.mark.slow
def test_the_monitor_proves_its_own_kernel_and_says_so_in_the_log(stand: Stand, tmp_path: Path) -> None:
    done = stand.command("prove", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    entry = next(one for one in stand.entries("kernel-proof") if one.index == said["entry"])
    starts = {one.predicate["kernel_sha256"] for one in stand.entries("service-started")}
    assert entry.role == "monitor" and entry.void is None and {entry.predicate["kernel_sha256"]} == starts
    files = stand.command("prove", "--out", str(tmp_path), where=False)
    assert files.returncode == 0 and said["scripts_sha256"] in files.stdout, files.stderr
    names = [one.name for one in scripts(authority)]
    lines = [f"{sha256_hex((tmp_path / f'{name}.smt2').read_bytes())}  {name}.smt2\n" for name in names]
    assert sha256_hex("".join(lines).encode()) == said["scripts_sha256"]


def test_a_wrong_passphrase_and_an_unknown_operator_are_told(stand: Stand) -> None:
    stand.phrases["ada"], kept = "wrong", stand.phrases["ada"]
    try:
        done = stand.command("approve", "module", str(STRICT), names=TWO)
    finally:
        stand.phrases["ada"] = kept
    assert done.returncode == 1 and "is the passphrase right?" in done.stderr
    stand.phrases["eve"] = "x"
    done = stand.command("approve", "module", str(STRICT), names=("eve",))
    del stand.phrases["eve"]
    assert done.returncode == 1 and "eve" in done.stderr and "--keys" in done.stderr


@pytest.mark.parametrize("words", [("status",), ("agents",), ("grants",), ("log",), ("canary", "run")], ids=" ".join)
def test_without_services_a_command_says_what_to_start(tmp_path: Path, words: tuple[str, ...]) -> None:
    still = Stand(folder(tmp_path, "d"))
    done = still.command(*words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "ironbound up" in done.stderr, done.stderr


def test_what_is_no_deployment_is_told(stand: Stand, tmp_path: Path) -> None:
    done = stand.command("status", "-d", str(tmp_path), where=False)
    assert done.returncode == 1 and "ironbound init" in done.stderr
    done = stand.command("init", str(stand.root), "--passphrase-fd", "0", where=False)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr


def test_the_surface_of_a_file_is_shown_and_its_json_is_the_document_that_is_approved(
    stand: Stand, tmp_path: Path
) -> None:
    reaching = """(module (import "agent" "\\1b[2J" (func)) (memory (export "memory") 1)
        (func (export "alloc") (param i32) (result i32) i32.const 0)
        (func (export "handle") (param i32 i32) (result i64) call 0 i64.const 0))"""
    files = {"idle": IDLE, "reaching": bytes(wasmtime.wat2wasm(reaching)), "nested": bytes(wasmtime.wat2wasm(SMUGGLER))}
    for name, data in files.items():
        path = tmp_path / f"{name}.wasm"
        path.write_bytes(data)
        told = stand.command("surface", "--json", str(path), where=False)
        assert told.returncode == 0, told.stderr
        assert sha256_hex(told.stdout.removesuffix("\n").encode()) == surface_digest(data)
        shown = stand.command("surface", str(path), where=False).stdout
        assert surface_digest(data) in shown and "\x1b" not in shown
        assert ("no instruction in it can reach out" in shown) == (name != "reaching"), shown
        if name == "reaching":
            assert "handle  func (i32 i32) -> (i64)  reaches 'agent::\\x1b[2J'" in shown, shown
    refused = stand.command("surface", str(tmp_path / "none.wasm"), where=False)
    assert refused.returncode != 0 and "none.wasm" in refused.stderr
    (tmp_path / "text").write_bytes(b"(module)")
    refused = stand.command("surface", str(tmp_path / "text"), where=False)
    assert refused.returncode == 1 and "wasm-magic" in refused.stderr


SMUGGLER = '(component (component (import "wasi:cli/exec" (func))))'
