"""The hostile agents: each is refused in the enforcer's own words, and each gets through where the wall is down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from agent_stand import CANARY, MIB, MODULES, NONCE, Ended, StrictPeer, Weakening, ending, lifted
from mcp_types import methods

from ironbound.controller.openapi import DESCRIPTION
from ironbound.core.canary import MAX_REPORT, MAX_TEXT, applies, parse_probes, verdict
from ironbound.core.canonical import FormatError
from ironbound.core.statement import ACTS
from ironbound.core.surface import is_component
from ironbound.core.wasm import parse_module
from ironbound.core.wasm_component import parse_component
from ironbound.terminal.main import COMMANDS

TABLE = (CANARY / "probes.json").read_bytes()
ROWS: dict[str, Any] = {row["probe"]: row for row in json.loads(TABLE) if row["family"] == "wasm"}
CHANNEL = sorted(name for name, row in ROWS.items() if row["stage"] == "channel")
RUNTIME = sorted(name for name, row in ROWS.items() if row["stage"] != "channel")

FOUR_GIB = 4096 * MIB
WASI = "wasi_snapshot_preview1"


def featured(*features: str, memories: int = 1) -> Weakening:
    """A sandbox that compiles what these proposals add, and parses nothing before."""
    return Weakening(features=features, unparsed=True, memories=memories)


LIFTED: dict[str, Weakening] = {
    "text-module": Weakening(unparsed=True),
    "feature-memory64": featured("wasm_memory64"),
    "feature-threads": featured("wasm_threads"),
    "feature-multi-memory": featured("wasm_multi_memory", memories=2),
    "feature-gc": featured("wasm_gc", "wasm_function_references", "gc_support"),
    "feature-exceptions": featured("wasm_exceptions", "gc_support"),
    "import-clock": Weakening(imports=((WASI, "clock_time_get"),)),
    "import-random": Weakening(imports=((WASI, "random_get"),)),
    "import-poll": Weakening(imports=((WASI, "poll_oneoff"),)),
    "import-proc-exec": Weakening(imports=(("wasix_32v1", "proc_exec"),)),
    "component-random": Weakening(imports=(("wasi:random/random@0.2.0", "get-random-u64"),)),
    "import-memory": Weakening(imports=(("env", "memory"),)),
    "import-table": Weakening(imports=(("env", "__indirect_function_table"),)),
    "import-global": Weakening(imports=(("env", "__stack_pointer"),)),
    "initial-table": lifted(max_table_elements=2**31),
    "many-tables": lifted(max_tables=16),
    "many-instances": lifted(max_instances=1001),
    "start-memory": lifted(max_memory=FOUR_GIB),
    "answer-outside": Weakening(limits=lifted(max_memory=FOUR_GIB).limits, whole_memory=True),
    "import-path-open": Weakening(imports=(("wasi_snapshot_preview1", "path_open"),)),
    "import-sock-send": Weakening(imports=(("wasi_snapshot_preview1", "sock_send"),)),
    "import-exec": Weakening(imports=(("agent", "exec"),)),
    "import-grant": Weakening(imports=(("ironbound", "grant"),)),
    "initial-memory": lifted(max_memory=FOUR_GIB),
    "start-loop": lifted(max_fuel=2**62),
    "memory-grow": lifted(max_memory=FOUR_GIB),
    "table-grow": lifted(max_table_elements=2**31),
    "fuel-loop": lifted(max_fuel=2**62),
    "stack-recursion": lifted(max_stack=128 * MIB),
    "out-of-bounds": Weakening(limits=lifted(max_memory=FOUR_GIB).limits, whole_memory=True),
    "output-flood": lifted(max_message=16 * MIB),
}
SLOW = {"start-loop", "fuel-loop"}


def judge(name: str, ended: Ended, nonce: str = NONCE) -> tuple[str, str]:
    return verdict(ROWS[name], nonce, ended.reason, ended.text, ended.report)


def one_gap(name: str) -> Callable[[str, Any], bool]:
    """A gateway's gap: it lets the last request of this canary through."""
    counting = StrictPeer()
    ending(MODULES / f"{name}.wasm", counting)
    seen = 0

    def lets(method: str, params: Any) -> bool:
        nonlocal seen
        seen += 1
        return seen == counting.requests - 1

    return lets


def test_the_table_names_each_committed_module_and_nothing_else() -> None:
    assert {f"{name}.wasm" for name in ROWS} == {path.name for path in MODULES.glob("*.wasm")}
    assert len(ROWS) >= 30
    assert sum(probe.family == "wasm" for probe in parse_probes(TABLE)) == len(ROWS)


def test_each_module_imports_only_what_its_probe_is_about() -> None:
    for name, row in ROWS.items():
        if row["stage"] in ("module", "compile"):
            with pytest.raises(FormatError):
                parse_module((MODULES / row["module"]).read_bytes(), limit=MIB)
            continue
        if is_component(data := (MODULES / row["module"]).read_bytes()):
            assert bool(parse_component(data, limit=MIB).imports) == (row["stage"] == "imports"), name
            continue
        surface = parse_module(data, limit=MIB)
        assert bool(surface.imports) == (row["stage"] == "imports"), name
        assert surface.has_start == (name in ("start-loop", "start-memory")), name


def test_every_probe_has_its_positive_control() -> None:
    assert LIFTED.keys() == set(RUNTIME)


@pytest.mark.parametrize("name", RUNTIME)
def test_the_runtime_refuses_the_attempt_in_its_own_words(name: str) -> None:
    ended = ending(MODULES / f"{name}.wasm", StrictPeer())
    assert judge(name, ended)[0] == "REFUSED", ended


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in RUNTIME]
)
def test_with_just_that_wall_down_the_attempt_is_seen_to_succeed(name: str) -> None:
    ended = ending(MODULES / f"{name}.wasm", StrictPeer(lambda method, params: True), weakening=LIFTED[name])
    assert judge(name, ended)[0] == "ESCAPED", ended


@pytest.mark.parametrize("name", CHANNEL)
def test_a_strict_gateway_refuses_every_attempt_of(name: str) -> None:
    peer = StrictPeer()
    ended = ending(MODULES / f"{name}.wasm", peer)
    assert judge(name, ended)[0] == "REFUSED", ended
    assert peer.requests - 1 + peer.malformed == ROWS[name]["attempts"]


@pytest.mark.parametrize("name", CHANNEL)
def test_a_gateway_with_one_gap_turns_the_result_red_for(name: str) -> None:
    ended = ending(MODULES / f"{name}.wasm", StrictPeer(one_gap(name)))
    assert judge(name, ended)[0] == "ESCAPED", ended


def words_of_the_dictionary() -> list[str]:
    lines = (MODULES / "operator-words.h").read_text("ascii").splitlines()
    return [line.removeprefix('WORD("').removesuffix('")') for line in lines if line.startswith("WORD(")]


def sent_by_operator_verbs() -> list[tuple[str, Any]]:
    """What the canary really sends, line by line, as the gateway takes it."""
    peer, sent = StrictPeer(), []

    def heard(line: bytes) -> list[bytes]:
        try:
            message = json.loads(line)
            sent.append((message["method"], message.get("params")))
        except ValueError:
            sent.append((line.decode(), None))
        return peer(line)

    assert judge("operator-verbs", ending(MODULES / "operator-verbs.wasm", heard))[0] == "REFUSED"
    return sent


def test_the_dictionary_holds_whatever_an_operator_has_and_mcp_offers_and_all_of_it_is_sent() -> None:
    words, sent = words_of_the_dictionary(), sent_by_operator_verbs()
    methods_sent = {method for method, _ in sent}
    assert len(words) == len(set(words)) >= 300
    assert set(words) <= methods_sent
    wanted = set(ACTS) | {act for act in ACTS.values() if act}
    wanted |= {word for command in COMMANDS for word in command.words.split()} - {"status", "agents", "grants", "log"}
    wanted |= {method for method, _ in [*methods.CLIENT_REQUESTS, *methods.CLIENT_NOTIFICATIONS]}
    wanted |= {method for method, _ in [*methods.SERVER_REQUESTS, *methods.SERVER_NOTIFICATIONS]}
    routes = [(path, verb, one) for path, item in DESCRIPTION["paths"].items() for verb, one in item.items()]
    wanted |= {path for path, _, _ in routes} | {f"{verb.upper()} {path}" for path, verb, _ in routes}
    wanted |= {one["operationId"] for _, _, one in routes} - {"status"}
    served = {"initialize", "ping", "tools/list", "tools/call", "resources/list", "resources/read"}
    missing = sorted(wanted - served - methods_sent)
    assert not missing, f"{missing}: a line each in operator-words.h, then sdk/c/build.py, then probes.json's attempts"
    for path, verb, _ in routes:
        assert f"{verb.upper()} {path} HTTP/1.1" in methods_sent
        assert ("resources/read", {"uri": f"http://controller{path}"}) in sent


@pytest.mark.parametrize("word", ["sudo", "POST /requests", "trust-root-change", "ledger/reset", "grant"])
def test_a_gateway_with_one_such_route_added_is_seen_by_the_canary(word: str) -> None:
    ended = ending(MODULES / "operator-verbs.wasm", StrictPeer(lambda method, params: method == word))
    assert judge("operator-verbs", ended) == ("ESCAPED", f"method {word}")


def test_a_gateway_that_answers_one_attempt_with_silence_proves_nothing() -> None:
    peer = StrictPeer()
    ended = ending(MODULES / "operator-verbs.wasm", lambda line: [] if b"reconfigure" in line else peer(line))
    assert ended.report == ""
    assert judge("operator-verbs", ended)[0] == "INCONCLUSIVE"


def test_a_gateway_that_answers_with_garbage_proves_nothing() -> None:
    peer = StrictPeer()
    ended = ending(MODULES / "operator-verbs.wasm", lambda line: [b"ok"] if b"reconfigure" in line else peer(line))
    assert judge("operator-verbs", ended)[0] == "INCONCLUSIVE"


def test_a_sandbox_with_a_wall_down_is_red_even_if_another_limit_stops_the_agent() -> None:
    ended = ending(MODULES / "fuel-loop.wasm", StrictPeer())
    assert judge("stack-recursion", ended)[0] == "INCONCLUSIVE"
    assert judge("out-of-bounds", ended)[0] == "INCONCLUSIVE"


def test_a_refusal_while_instantiating_is_no_refusal_of_an_import() -> None:
    text = "unknown import: `agent::exec` has not been defined"
    assert judge("import-exec", Ended("imports", text))[0] == "REFUSED"
    for reason in ("module", "compile", "limit", "finished", "trap", "", "Imports"):
        assert judge("import-exec", Ended(reason, text))[0] == "INCONCLUSIVE", reason
    assert judge("import-exec", Ended("imports", text.replace("exec", "other")))[0] == "INCONCLUSIVE"


def refused_report(**changes: Any) -> str:
    report = {
        "nonce": NONCE,
        "probe": "memory-grow",
        "verdict": "REFUSED",
        "refusal": "memory.grow returned -1 at 1024 pages",
        "tried": 1,
        "refused": 1,
    }
    return json.dumps({key: value for key, value in (report | changes).items() if value is not ...})


def test_a_report_counts_only_if_everything_in_it_is_right() -> None:
    assert judge("memory-grow", Ended("finished", "", refused_report()))[0] == "REFUSED"
    for changes in (
        {"nonce": "ff" * 16},
        {"nonce": None},
        {"nonce": ...},
        {"probe": "table-grow"},
        {"verdict": "refused"},
        {"verdict": "INCONCLUSIVE"},
        {"verdict": True},
        {"refusal": "it was fine"},
        {"refusal": None},
        {"tried": 0, "refused": 0},
        {"tried": 2},
        {"tried": 2, "refused": 2},
        {"tried": True, "refused": True},
        {"refused": -1},
        {"more": 1},
    ):
        assert judge("memory-grow", Ended("finished", "", refused_report(**changes)))[0] == "INCONCLUSIVE", changes
    for report in (
        "",
        "{}",
        "[]",
        "null",
        "REFUSED",
        refused_report() * 2,
        refused_report() + " " * MAX_REPORT,
        "\ud800",
    ):
        assert judge("memory-grow", Ended("finished", "", report))[0] == "INCONCLUSIVE", report
    for reason in ("eof", "trap", "fuel", "wall-clock", "Finished", ""):
        assert judge("memory-grow", Ended(reason, "", refused_report()))[0] == "INCONCLUSIVE", reason


def test_an_escape_is_an_escape_however_the_agent_ended_but_not_with_another_nonce() -> None:
    report = refused_report(verdict="ESCAPED", refused=0)
    for reason in ("finished", "trap", "eof"):
        assert judge("memory-grow", Ended(reason, "", report))[0] == "ESCAPED"
    assert judge("memory-grow", Ended("finished", "", report), nonce="other")[0] == "INCONCLUSIVE"
    assert judge("memory-grow", Ended("finished", "", report), nonce="")[0] == "INCONCLUSIVE"


def test_a_text_that_is_too_long_or_an_end_of_the_right_kind_without_words_proves_nothing() -> None:
    words = "wasm trap: all fuel consumed by WebAssembly"
    assert judge("fuel-loop", Ended("fuel", words)) == ("REFUSED", words)
    assert judge("fuel-loop", Ended("fuel", ""))[0] == "INCONCLUSIVE"
    assert judge("fuel-loop", Ended("fuel", words + " " * MAX_TEXT))[0] == "INCONCLUSIVE"
    assert judge("fuel-loop", Ended("wall-clock", words))[0] == "INCONCLUSIVE"


def test_a_row_of_the_table_that_is_not_exactly_right_proves_nothing() -> None:
    row = ROWS["fuel-loop"]
    words = "wasm trap: all fuel consumed by WebAssembly"
    assert verdict(row, NONCE, "fuel", words, "")[0] == "REFUSED"
    without_controls = {key: value for key, value in row.items() if key != "controls"}
    wrongs: tuple[Any, ...] = (
        None,
        [],
        {},
        without_controls,
        row | {"more": 1},
        row | {"refusal": ""},
        row | {"refusal": ".*........"},
        row | {"refusal": "(a|b|c|d"},
        row | {"refusal": "^|wasm trap"},
        row | {"refusal": "wasm" * 100},
        row | {"reasons": []},
        row | {"reasons": "fuel"},
        row | {"stage": "elsewhere"},
        row | {"attempts": 0},
        row | {"attempts": True},
        row | {"module": "../../other.wasm"},
        row | {"family": "native"},
        row | {"family": "microvm"},
        row | {"family": None},
        {key: value for key, value in row.items() if key != "family"},
        row | {"controls": [1]},
    )
    for wrong in wrongs:
        assert verdict(wrong, NONCE, "fuel", words, "")[0] == "INCONCLUSIVE", wrong


def test_a_native_probe_is_made_by_the_one_program_and_needs_a_native_sandbox() -> None:
    row = ROWS["fuel-loop"] | {"family": "native", "module": "probe"}
    assert verdict(row, NONCE, "fuel", "wasm trap: all fuel consumed by WebAssembly", "")[0] == "REFUSED"
    assert [family for family in ("wasm", "native", "microvm") if applies("native", family)] == ["native", "microvm"]
    assert [family for family in ("wasm", "native", "microvm") if applies("wasm", family)] == ["wasm"]


def test_a_table_with_a_doubled_probe_is_refused() -> None:
    row = ROWS["fuel-loop"]
    with pytest.raises(FormatError, match="two probes of one name"):
        parse_probes(json.dumps([row, row]).encode())
    with pytest.raises(FormatError, match="expected a list"):
        parse_probes(b"{}")
