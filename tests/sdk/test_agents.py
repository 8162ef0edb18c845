"""Agents written with the C SDK do their work against a scripted gateway, and survive what gateways do to them."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agent_stand import (
    CHECKOUT,
    EXAMPLES,
    LIMITS,
    MIB,
    Agent,
    Office,
    Stopped,
    StrictPeer,
    converse,
    encode,
    ending,
    error,
    initialized,
    notification,
    result,
)

from ironbound.core.canonical import FormatError, parse_json
from ironbound.core.wasm import parse_module

TRIAGE = EXAMPLES / "triage.wasm"
HELLO = EXAMPLES / "hello.wasm"
BUILD = CHECKOUT / "sdk" / "c" / "build.py"
TOOLS = {"records.fetch", "scratch.write", "report.post"}
CHANGED = notification("notifications/tools/list_changed")
UPDATED = notification("notifications/resources/updated", uri="ironbound://agent/input")

# The rules of triage.c, said a second time.
CLASSES = {
    "security": (2, "breach phish leak password unauthori vulnerab hacked suspicious two-factor".split()),
    "outage": (2, ["outage", "down", "unavailable", "offline", "timeout", "error 5", "crash", "unreachable"]),
    "billing": (1, ["invoice", "refund", "charge", "billing", "payment", "credit card", "subscription", "price"]),
    "feature": (0, ["feature", "would be nice", "please add", "wish", "suggest", "roadmap", "integrat"]),
}
URGENT = ["urgent", "asap", "immediately", "all users", "production", "right now"]
SEVERITIES = ["low", "normal", "high", "critical"]

SENTENCES = [
    "The Dashboard is DOWN for all users in production.",
    "I cannot find my invoice for November; please send it.",
    "Someone seems to have changed my password, this looks suspicious!",
    "It would be nice to sort the table by date. Please add it.",
    "Thank you for the quick answer yesterday.",
    "The charge on my credit card is wrong, I want a refund asap.",
    "We see a timeout \u2014 \u201cerror 502\u201d \u2014 right now.",
    "Our countdown page and the discharge form look fine.",
    "Wir w\u00fcnschen einen dunklen Modus \U0001f319, a feature like others have.",
    'A path like C:\\temp and a "quote"\twith a tab; nothing else.',
]


def make_records(count: int, seed: int = 7) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    names = [f"Kund\u00e9 {number} | <b>" if number % 7 == 0 else f"Customer {number}" for number in range(40)]
    return [
        {
            "id": number,
            "customer": draw.choice(names),
            "channel": draw.choice(["email", "chat", "phone"]),
            "subject": draw.choice(SENTENCES),
            "body": " ".join(draw.choices(SENTENCES[:5] if draw.random() < 0.3 else SENTENCES[4:5], k=2)),
            "amount_cents": draw.randrange(-5000, 250_000),
            "created": "2026-11-01",
        }
        for number in range(1, count + 1)
    ]


def begins_a_word(text: str, words: list[str]) -> bool:
    lowered = "".join(c.lower() if c.isascii() else c for c in text)
    for word in words:
        at = lowered.find(word)
        while at >= 0:
            before = lowered[at - 1] if at else " "
            if before.isascii() and not before.isalpha():
                return True
            at = lowered.find(word, at + 1)
    return False


def sort_one(record: dict[str, Any]) -> tuple[str, str]:
    texts = (record["subject"], record["body"])
    found = next((name for name, (_, words) in CLASSES.items() if any(begins_a_word(t, words) for t in texts)), "other")
    base = CLASSES[found][0] if found in CLASSES else 0
    return found, SEVERITIES[min(3, base + any(begins_a_word(t, URGENT) for t in texts))]


def expected_summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = [(record, *sort_one(record)) for record in records]
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for record in records:
        sums[record["customer"]] += record["amount_cents"]
        counts[record["customer"]] += 1
    top = sorted(sums, key=lambda name: (-sums[name], name.encode()))[:5]
    return {
        "records": len(records),
        "amount_cents": sum(record["amount_cents"] for record in records),
        "classes": {
            name: {
                "records": sum(kind == name for _, kind, _ in kinds),
                "amount_cents": sum(record["amount_cents"] for record, kind, _ in kinds if kind == name),
            }
            for name in [*CLASSES, "other"]
        },
        "severities": {name: sum(severity == name for _, _, severity in kinds) for name in SEVERITIES},
        "top_customers": [{"customer": n, "records": counts[n], "amount_cents": sums[n]} for n in top],
    }


def office(count: int = 300, granted: set[str] = TOOLS, **more: Any) -> Office:
    records = make_records(count)
    return Office([records[start : start + 25] for start in range(0, count, 25)], set(granted), **more)


def records_of(world: Office) -> list[dict[str, Any]]:
    return [record for page in world.pages for record in page]


def assert_right(post: dict[str, Any], world: Office) -> None:
    expected = expected_summary(records_of(world))
    assert {key: post[key] for key in expected} == expected


@pytest.mark.parametrize("structured", [True, False], ids=["structured", "as text"])
def test_triage_sorts_three_hundred_records_as_python_does_and_posts_the_summary(structured: bool) -> None:
    world = office(structured=structured)
    agent = Agent(TRIAGE)
    converse(agent, world, b"")
    assert len(world.posts) == 1
    assert_right(world.posts[0], world)
    assert all(part["records"] > 0 for part in world.posts[0]["classes"].values())
    assert all(count > 0 for count in world.posts[0]["severities"].values())
    assert world.refused == [] and len(world.fetched) == 13
    assert agent.most_fuel < LIMITS.max_fuel // 10
    assert world.methods[:4] == ["initialize", "notifications/initialized", "tools/list", "resources/read"]


def test_triage_writes_a_report_whose_numbers_are_those_of_the_summary() -> None:
    world = office()
    converse(Agent(TRIAGE), world, b"")
    report, expected = world.files["report.md"], expected_summary(records_of(world))

    def money(cents: int) -> str:
        return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02}"

    assert report.startswith(f"# Triage report\n\n300 records, {money(expected['amount_cents'])} in all.\n")
    for name, part in expected["classes"].items():
        assert f"| {name} | {part['records']} | {money(part['amount_cents'])} |\n" in report
    for name, count in expected["severities"].items():
        assert f"| {name} | {count} |\n" in report
    for row in expected["top_customers"]:
        shown = row["customer"].replace("|", "\\|").replace("<", "\\<").replace(">", "\\>")
        assert f"| {shown} | {row['records']} | {money(row['amount_cents'])} |\n" in report


def test_a_customers_words_cannot_break_out_of_the_report() -> None:
    records = make_records(1)
    records[0] |= {"customer": "a|b", "subject": "breach asap\n# <script>[x](javascript:0) `|`"}
    world = Office([records], set(TOOLS))
    converse(Agent(TRIAGE), world, b"")
    assert "- 1 (security): breach asap \\# \\<script\\>\\[x\\](javascript:0) \\`\\|\\`\n" in world.files["report.md"]


@pytest.mark.parametrize("as_tool_error", [False, True], ids=["as an error", "as a tool's result"])
@pytest.mark.parametrize("missing", sorted(TOOLS))
def test_triage_survives_a_refusal_and_goes_on_where_it_was_once_granted(missing: str, as_tool_error: bool) -> None:
    world = office(granted=TOOLS - {missing}, as_tool_error=as_tool_error)
    agent = Agent(TRIAGE)
    converse(agent, world, b"")
    assert world.refused == [missing] and world.posts == []
    fetched = len(world.fetched)
    converse(agent, world, CHANGED)
    assert world.refused == [missing], "a change that does not bring the tool is no reason to ask again"
    world.granted.add(missing)
    converse(agent, world, CHANGED)
    assert world.posts[0]["refusals"] == 1
    assert world.posts[0]["last_refusal"] == f"no live grant covers the tool {missing}"
    assert_right(world.posts[0], world)
    assert len(world.fetched) == 13 and fetched in (0, 13)


def test_a_revoked_tool_is_asked_for_again_only_when_the_input_changes() -> None:
    world = office(50)
    agent = Agent(TRIAGE)
    converse(agent, world, b"")
    world.granted.discard("report.post")
    converse(agent, world, CHANGED)
    assert world.refused == [] and len(world.posts) == 1
    converse(agent, world, UPDATED)
    assert world.refused == ["report.post"] and len(world.posts) == 1
    world.granted.add("report.post")
    converse(agent, world, CHANGED)
    assert len(world.posts) == 2 and world.posts[1]["posted"] == 1
    converse(agent, world, UPDATED)
    assert len(world.posts) == 3
    converse(agent, world, notification("notifications/resources/updated", uri="ironbound://agent/status"))
    assert len(world.posts) == 3


def test_a_grant_that_overtakes_the_refusal_is_not_missed() -> None:
    world = office(10, granted=TOOLS - {"report.post"})
    agent = Agent(TRIAGE)
    late: list[bytes] = []

    def peer(line: bytes) -> list[bytes]:
        answers = world(line)
        if b"report.post" in line and not world.posts and not late:
            late.extend(answers)
            world.granted.add("report.post")
            return [CHANGED]
        return answers

    converse(agent, peer, b"")
    assert world.posts == [] and len(late) == 1
    converse(agent, peer, *late)
    assert len(world.posts) == 1


@pytest.mark.parametrize("structured", [True, False], ids=["structured", "as text"])
def test_a_service_that_fails_is_a_refusal_that_is_tried_again(structured: bool) -> None:
    world = office(10, status=503, structured=structured)
    agent = Agent(TRIAGE)
    converse(agent, world, b"")
    assert world.posts == [] and len(world.fetched) == 1
    world.status = 200
    converse(agent, world, UPDATED)
    words = world.posts[0]["last_refusal"]
    assert words.startswith("[{") if structured else words == "the service answered with status 503"
    assert_right(world.posts[0], world)


def test_triage_ends_with_its_summary_when_the_input_says_how_often_to_post() -> None:
    world = office(30, rounds=1)
    ended = ending(TRIAGE, world, b"")
    assert ended.reason == "finished"
    assert json.loads(ended.report) == world.posts[0] | {"posted": 1}
    assert len(ended.report.encode()) <= 4096


def test_triage_without_any_grant_waits_and_harms_nobody() -> None:
    agent = Agent(TRIAGE)
    peer = StrictPeer()
    converse(agent, peer, b"")
    assert peer.malformed == 0 and peer.requests == 2
    converse(agent, peer, b"garbage", b"{}", b"[]", b'{"jsonrpc":"2.0","id":99,"result":{}}', CHANGED)
    assert peer.malformed == 0


def test_hello_counts_the_tools_of_its_grants() -> None:
    assert json.loads(ending(HELLO, office(), b"").report)["tools"] == 3
    assert json.loads(ending(HELLO, office(granted=set()), b"").report)["tools"] == 0
    refused = ending(HELLO, lambda line: error(json.loads(line)["id"], -32603, "the log is down"), b"")
    assert (refused.reason, refused.report) == ("finished", "the log is down")


def test_the_sdk_answers_a_ping_and_offers_no_methods_of_its_own() -> None:
    agent = Agent(TRIAGE)
    agent.take(b"")
    ping = {"jsonrpc": "2.0", "id": "p\u00e4", "method": "ping"}
    assert [json.loads(line) for line in agent.take(encode(ping))] == [
        {"jsonrpc": "2.0", "id": "p\u00e4", "result": {}}
    ]
    (refused,) = agent.take(encode({"jsonrpc": "2.0", "id": 3, "method": "shell", "params": {}}))
    assert json.loads(refused)["error"]["code"] == -32601


@pytest.mark.parametrize(
    "text",
    [
        '"\\ud834\\udd1e \\u00e9 \\" \\\\ \\/ \\b\\f\\n\\r\\t \\u0000"',
        '"\U0001d11e\u00e9\u20ac"',
    ],
)
def test_the_sdk_reads_and_writes_every_string_as_python_does(text: str) -> None:
    assert refusal_read_from(b'{"code":-1,"message":' + text.encode() + b"}") == json.loads(text)


def refusal_read_from(failure: bytes) -> str | None:
    """What hello says to this error of `initialize`; None if it does not take the line for an answer."""
    agent = Agent(HELLO)
    (line,) = agent.take(b"")
    ident = str(json.loads(line)["id"]).encode()
    try:
        agent.take(b'{"jsonrpc":"2.0","id":' + ident + b',"error":' + failure + b"}")
    except Stopped as stopped:
        return stopped.ended.report
    return None


@pytest.mark.parametrize(
    "failure",
    [
        b'{"message":"a"} ', b'{ "message" : "a" , "data":[1,-0.5e+3,true,false,null,{}] }', b'{"m\\u0065ssage":"a"}',
        b'{"message":"a","data":' + b"[" * 61 + b"]" * 61 + b"}",
    ],
)  # fmt: skip
def test_the_sdk_takes_strict_json_in_any_spelling(failure: bytes) -> None:
    assert refusal_read_from(failure) == "a"


@pytest.mark.parametrize(
    "failure",
    [
        b"", b"{", b'{"message":"a",}', b'{"message":"a"', b"{'message':'a'}", b'{"message":"a"}}',
        b'{"message":"\x01"}',
        b'{"message":"\\x41"}', b'{"message":"\\u12"}', b'{"message":"\\ud800"}', b'{"message":"\\udc00\\ud800"}',
        b'{"message":"\xff"}', b'{"message":"\xc0\xaf"}', b'{"message":"\xed\xa0\x80"}',
        b'{"message":"\xf4\x90\x80\x80"}',
        b'{"message":"\xe2\x82"}', b'{"data":01}', b'{"data":1.}', b'{"data":.5}', b'{"data":+1}', b'{"data":1e}',
        b'{"data":-}',
        b'{"data":NaN}', b'{"data":tru}', b'{"data":' + b"[" * 63 + b"]" * 63 + b"}", b'{"data":' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_the_sdk_takes_nothing_that_is_not_strict_json(failure: bytes) -> None:
    assert refusal_read_from(failure) is None


SEED_TEXTS = [
    '{"a":[1,-2.5e-3,true,false,null,"x\\u00e9\\ud834\\udd1e\\n"],"b":{"c":{},"d":[]}}',
    '"\u00e9\u20ac\U0001d11e \\" \\\\ \\/ \\b"',
    " [ 0 , 10 , -0 , 1E+5 , 0.0 ] ",
    "[" * 62 + "1" + "]" * 62,
]


def test_the_sdk_takes_a_message_exactly_if_the_core_parser_does() -> None:
    draw = random.Random(11)
    agent = Agent(TRIAGE)
    agent.take(b"")
    taken = 0
    for _ in range(4000):
        text = bytearray(draw.choice(SEED_TEXTS).encode())
        for _ in range(draw.randrange(3)):
            at = draw.randrange(len(text))
            match draw.randrange(3):
                case 0:
                    text[at] = draw.choice(b'0123456789abcdefu{}[]:,."\\ tn+-\x00\x1f\x80\xbf\xc0\xe0\xed\xf4\xff')
                case 1:
                    del text[at]
                case _:
                    text[at:at] = bytes([draw.choice(b'0{}[]:,"\\ e.-\x80')])
        line = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + bytes(text) + b"}"
        try:
            parse_json(line, limit=MIB)
        except FormatError as refusal:
            if refusal.code in ("duplicate-key", "number-not-finite"):
                continue
            assert agent.take(line) == [], line
        else:
            assert len(agent.take(line)) == 1, line
            taken += 1
    assert 1000 < taken < 3000


def test_a_doubled_member_counts_as_none() -> None:
    assert refusal_read_from(b'{"message":"a","message":"b"}') == ""


def test_a_long_conversation_does_not_take_more_and_more_memory() -> None:
    world = office(50)
    agent = Agent(TRIAGE)
    converse(agent, world, b"")
    before = agent.pages()
    for _ in range(300):
        converse(agent, world, UPDATED)
    assert len(world.posts) == 301 and agent.pages() == before


def test_the_examples_import_nothing_and_stay_small() -> None:
    for module in (TRIAGE, HELLO):
        surface = parse_module(module.read_bytes(), limit=MIB)
        assert surface.imports == () and not surface.has_start
        assert {export.name for export in surface.exports} == {"memory", "alloc", "handle"}
        assert module.stat().st_size < 32 * 1024


def load_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sdk_build", BUILD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sdk_build"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_each_committed_module_is_what_its_source_gives_byte_for_byte() -> None:
    assert load_build().differing() == []


@pytest.mark.slow
def test_a_module_that_is_not_what_its_source_gives_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = load_build()
    (tmp_path / "hello.c").write_bytes((EXAMPLES / "hello.c").read_bytes().replace(b"../ironbound.h", b"ironbound.h"))
    (tmp_path / "hello.wasm").write_bytes(HELLO.read_bytes()[:-1] + bytes([HELLO.read_bytes()[-1] ^ 1]))
    (tmp_path / "left-over.wasm").write_bytes(b"")
    monkeypatch.setattr(build, "EXAMPLES", tmp_path)
    monkeypatch.setattr(build, "CANARIES", tmp_path / "none")
    (tmp_path / "none").mkdir()
    assert build.differing() == ["hello.wasm", "left-over.wasm"]


def test_the_hello_of_the_readme_is_the_hello_that_is_built() -> None:
    assert (EXAMPLES / "hello.c").read_text() in (CHECKOUT / "sdk" / "README.md").read_text()


def test_a_peer_that_answers_with_a_strange_version_is_still_only_a_peer() -> None:
    agent = Agent(HELLO)
    (line,) = agent.take(b"")
    (answer,) = initialized(json.loads(line)["id"])
    said = agent.take(answer.replace(b"2025-11-25", b"1999-01-01"))
    assert [json.loads(part)["method"] for part in said] == ["notifications/initialized", "tools/list"]
    assert agent.take(result("unknown", {})[0]) == []
