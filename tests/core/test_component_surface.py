"""The component parser and the surface document: what lies inside is seen, and only bytes that are read have one."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core import wasm_component
from ironbound.core.canonical import FormatError, canonical, sha256_hex
from ironbound.core.native import Manifest
from ironbound.core.surface import (
    COMPONENT_EXPORT,
    approval_body,
    first_import,
    memory_pages,
    missing_exports,
    parse_surface,
    surface_digest,
    surface_document,
)
from ironbound.core.wasm_component import ComponentSurface, Named, parse_component

PREAMBLE = b"\x00asm\x0d\x00\x01\x00"
MODULE = b"\x00asm\x01\x00\x00\x00"
LIMIT = 1 << 20


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def surface_of(text: str) -> ComponentSurface:
    return parse_component(binary(text), limit=LIMIT)


def refused(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_component(data, limit=LIMIT)
    assert caught.value.code == code


def section(kind: int, *items: bytes) -> bytes:
    body = bytes([len(items)]) + b"".join(items)
    return bytes([kind, len(body)]) + body


def test_imports_and_exports_of_every_kind_are_seen() -> None:
    surface = surface_of(
        """(component (import "f" (func)) (import "i" (instance)) (import "m" (core module)) (import "c" (component))
        (import "r" (type (sub resource))) (type $u u8) (import "t" (type (eq $u)))
        (export "f2" (func 0)) (export "i2" (instance 0)) (export "m2" (core module 0)) (export "c2" (component 0))
        (export "t2" (type $u) (type (eq $u))))"""
    )
    assert surface.imports == (
        Named("f", "func"), Named("i", "instance"), Named("m", "core module"), Named("c", "component"),
        Named("r", "resource"), Named("t", "type"),
    )  # fmt: skip
    assert surface.exports == (
        Named("f2", "func"), Named("i2", "instance"), Named("m2", "core module"), Named("c2", "component"),
        Named("t2", "type"),
    )  # fmt: skip


SMUGGLER = """(component (component $outer (component $inner (import "wasi:cli/exec" (func))
    (core module (import "wasi" "exec" (func)) (func (export "go") call 0)))))"""


def test_an_import_smuggled_into_a_nested_component_is_seen_and_so_is_its_reach() -> None:
    document: Any = surface_document(binary(SMUGGLER))
    assert document["imports"] == []
    inner = document["parts"][0]["parts"][0]
    assert inner["imports"] == [{"name": "wasi:cli/exec", "kind": "func"}]
    assert inner["parts"][0]["imports"][0]["module"] == "wasi"
    assert inner["parts"][0]["exports"][0]["reaches"] == [0]


def test_each_part_is_named_by_its_place_and_digest() -> None:
    data = binary(SMUGGLER)
    outer = parse_component(data, limit=LIMIT).parts[0]
    assert isinstance(outer.surface, ComponentSurface)
    for part in (outer, *outer.surface.parts):
        inside = data[part.offset : part.offset + part.size]
        assert hashlib.sha256(inside).hexdigest() == part.sha256 and inside[:8] == PREAMBLE


def test_with_any_import_every_export_of_a_component_counts_as_reaching_each() -> None:
    text = '(component (import "a" (func)) (import "b" (func)) (export "x" (func 0)))'
    document: Any = surface_document(binary(text))
    assert document["exports"] == [{"name": "x", "kind": "func", "reaches": [0, 1]}]


def test_how_the_parts_are_linked_is_read_in_full() -> None:
    surface = surface_of(
        """(component (import "f" (func $f (param "x" string)))
        (core module $mem (memory (export "memory") 3)
          (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0))
        (core instance $mem (instantiate $mem))
        (alias core export $mem "realloc" (core func $realloc))
        (core func $low (canon lower (func $f) string-encoding=utf16 (memory (core memory $mem "memory"))
          (realloc $realloc)))
        (alias core export $mem "memory" (core memory $memory))
        (core instance (export "f" (func $low)) (export "m" (memory $memory)))
        (core module $user (import "l" "f" (func (param i32 i32))) (func (export "go") (result i32) i32.const 0)
          (func (export "after") (param i32)) (memory 2))
        (core instance $user (instantiate $user (with "l" (instance (export "f" (func $low))))))
        (type $r (resource (rep i32))) (core func (canon resource.new $r)) (core func (canon resource.drop $r))
        (core func (canon resource.rep $r))
        (func $go (result string) (canon lift (core func $user "go") (memory (core memory $mem "memory"))
          (post-return (core func $user "after"))))
        (component $c (import "f" (func)) (alias outer 1 $r (type $outer)) (export "g" (func 0)))
        (func $nothing (canon lift (core func $mem "nothing")))
        (instance $i (instantiate $c (with "f" (func $nothing))))
        (alias export $i "g" (func $g)) (instance $j (export "g" (func $g))) (export "j" (instance $j)))""".replace(
            '(func (export "realloc")', '(func (export "nothing")) (func (export "realloc")'
        )
    )
    assert dict(surface.canons) == {"lift": 2, "lower": 1, "resource.new": 1, "resource.drop": 1, "resource.rep": 1}
    assert surface.instances == 6
    assert memory_pages(surface) == 3 and first_import(surface) == "f"


def test_custom_sections_are_seen() -> None:
    assert [one.name for one in surface_of("(component $named)").custom] == ["component-name"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "wasm-magic"),
        (MODULE, "wasm-version"),
        (b"\x00asm\x0e\x00\x01\x00", "wasm-version"),
        (PREAMBLE + b"\x0a", "wasm-truncated"),
        (PREAMBLE + b"\x09\x00", "component-section"),
        (PREAMBLE + b"\x0c\x00", "component-section"),
        (PREAMBLE + b"\x01\x08" + PREAMBLE, "wasm-version"),
        (PREAMBLE + b"\x04\x08" + MODULE, "wasm-version"),
        (PREAMBLE + b"\x01\x04abcd", "wasm-magic"),
        (PREAMBLE + b"\x01\x03abc", "wasm-truncated"),
        (PREAMBLE + section(10, b"\x02\x01a\x01\x00"), "component-name"),
        (PREAMBLE + section(10, b"\x00\x01a\x06\x00"), "component-sort"),
        (PREAMBLE + section(10, b"\x00\x01a\x00\x00\x00"), "component-sort"),
        (PREAMBLE + section(10, b"\x00\x01a\x02\x00"), "component-value"),
        (PREAMBLE + section(10, b"\x00\x01a\x03\x02"), "component-type"),
        (PREAMBLE + section(10, b"\x00\x01a\x01\x00\x00"), "wasm-length"),
        (PREAMBLE + section(10, b"\x00\x01a\x01\x00", b"\x00\x01a\x01\x00"), "component-name"),
        (PREAMBLE + section(11, b"\x00\x01a\x06\x00\x00"), "component-sort"),
        (PREAMBLE + section(11, b"\x00\x01a\x00\x13\x00\x00"), "component-sort"),
        (PREAMBLE + section(11, b"\x00\x01a\x00\x00\x00\x00"), "component-sort"),
        (PREAMBLE + section(11, b"\x00\x01a\x02\x00\x00"), "component-sort"),
        (PREAMBLE + section(11, b"\x00\x01a\x01\x00\x02"), "component-sort"),
        (PREAMBLE + section(2, b"\x02"), "component-instance"),
        (PREAMBLE + section(2, b"\x00\x00\x01\x01a\x11\x00"), "component-sort"),
        (PREAMBLE + section(2, b"\x01\x01\x01a\x13\x00"), "component-sort"),
        (PREAMBLE + section(5, b"\x02"), "component-instance"),
        (PREAMBLE + section(6, b"\x01\x03\x00\x00"), "component-alias"),
        (PREAMBLE + section(8, b"\x05"), "component-canon"),
        (PREAMBLE + section(8, b"\x00\x01\x00\x00\x00"), "component-canon"),
        (PREAMBLE + section(8, b"\x00\x00\x00\x01\x06\x00"), "component-canon"),
    ],
)
def test_a_malformed_component_is_refused_for_its_own_reason(data: bytes, code: str) -> None:
    refused(data, code)


def nested(depth: int) -> bytes:
    data = PREAMBLE
    for _ in range(depth):
        data = PREAMBLE + bytes([4, len(data)]) + data
    return data


def test_components_nest_to_the_limit_and_not_beyond() -> None:
    parse_component(nested(8), limit=LIMIT)
    refused(nested(9), "component-nesting")


def test_a_small_file_with_many_large_surfaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = binary('(component (core module (import "a" "b" (func (param i32 i32))) (export "c" (func 0))) (component))')
    monkeypatch.setattr(wasm_component, "MAX_WEIGHT", 2 * 1000 + 2 * len("(i32 i32) -> ()") + 1)
    parse_component(data, limit=LIMIT)
    monkeypatch.setattr(wasm_component, "MAX_WEIGHT", 2 * 1000 + 2 * len("(i32 i32) -> ()"))
    refused(data, "wasm-too-large")


@given(st.binary(max_size=64))
def test_garbage_parses_or_gives_the_one_error(tail: bytes) -> None:
    try:
        parse_component(PREAMBLE + tail, limit=LIMIT)
    except FormatError:
        return


# The document


AGENT = binary(
    """(module (memory (export "memory") 1 2) (table 3 funcref) (global i32 (i32.const 1)) (data "x") (elem func 0)
    (func (export "alloc") (param i32) (result i32) i32.const 8) (func $go) (start $go)
    (func (export "handle") (param i32 i32) (result i64) i64.const 0))"""
)


def test_a_document_says_what_the_bytes_are_and_all_that_they_declare() -> None:
    document: Any = surface_document(AGENT)
    assert document["format"] == "ironbound-surface/v1" and document["kind"] == "module"
    assert (document["sha256"], document["size"]) == (hashlib.sha256(AGENT).hexdigest(), len(AGENT))
    assert document["memories"] == [{"minimum": 1, "maximum": 2}]
    assert document["tables"] == [{"minimum": 3, "maximum": None}]
    assert document["start"] == {"reaches": []}
    counts = {name: document[name] for name in ("functions", "globals", "elements", "data")}
    assert counts == {"functions": 3, "globals": 1, "elements": 1, "data": 1}
    assert [one["name"] for one in document["custom"]] == ["name"]
    empty: Any = surface_document(MODULE)
    assert empty["start"] is None


def test_the_digest_changes_with_a_section_that_no_instruction_reads() -> None:
    assert surface_digest(AGENT) == hashlib.sha256(canonical(surface_document(AGENT))).hexdigest()
    assert surface_digest(AGENT) != surface_digest(AGENT + b"\x00\x02\x01x")


def test_what_no_parser_reads_and_a_manifest_have_no_digest() -> None:
    assert surface_digest(Manifest(sha256_hex(b"tree"), ("/agent",)).encode()) is None
    assert surface_digest(AGENT[:-1]) is None
    assert surface_digest(nested(1)) is not None
    with pytest.raises(FormatError):
        surface_document(AGENT[:-1])
    with pytest.raises(FormatError):
        surface_document(AGENT, limit=len(AGENT) - 1)


def test_a_body_for_approval_carries_size_and_surface() -> None:
    digest = surface_digest(AGENT)
    assert approval_body(AGENT) == {"kind": "agent", "size": len(AGENT), "surface_sha256": digest, "probe": None}
    assert approval_body(AGENT, {"p": 1})["kind"] == "canary"


def test_what_the_sandbox_calls_must_be_exported_with_its_kind() -> None:
    assert missing_exports(parse_surface(AGENT)) == []
    assert missing_exports(parse_surface(binary('(module (func (export "memory")) (func (export "alloc")))'))) == [
        "memory",
        "handle",
    ]
    assert missing_exports(parse_surface(PREAMBLE)) == [COMPONENT_EXPORT]
    other = binary(f'(component (instance $i) (export "{COMPONENT_EXPORT}" (instance $i)))')
    assert missing_exports(parse_surface(other)) == []


def test_memory_and_the_first_import_are_told_of_modules_and_components() -> None:
    assert memory_pages(parse_surface(AGENT)) == 1 and memory_pages(parse_surface(PREAMBLE)) == 0
    assert memory_pages(parse_surface(binary("(component (core module (memory 2)) (core module (memory 5)))"))) == 5
    assert first_import(parse_surface(AGENT)) is None and first_import(parse_surface(PREAMBLE)) is None
    assert first_import(parse_surface(binary('(module (import "a" "b" (func)))'))) == "a::b"
