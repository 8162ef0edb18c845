"""The module parser: it sees what the runtime sees, and garbage gives one error."""

from __future__ import annotations

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.canonical import FormatError
from ironbound.core.wasm import Export, Import, MemoryLimits, parse_module

PREAMBLE = b"\x00asm\x01\x00\x00\x00"
LIMIT = 1 << 20


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


FULL = binary(
    """(module (import "wasi_snapshot_preview1" "path_open" (func (param i32) (result i32)))
    (import "agent" "table" (table 1 2 funcref)) (import "env" "memory" (memory 1 4))
    (import "env" "counter" (global (mut i64))) (func $go) (start $go)
    (export "go" (func $go)) (export "memory" (memory 0)) (export "t" (table 0)) (export "g" (global 0)))"""
)


def parse(data: bytes) -> None:
    parse_module(data, limit=LIMIT)


def refused(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(data)
    assert caught.value.code == code


def test_imports_exports_and_the_start_function_are_seen() -> None:
    surface = parse_module(FULL, limit=len(FULL))
    assert surface.imports == (
        Import("wasi_snapshot_preview1", "path_open", "func"),
        Import("agent", "table", "table"),
        Import("env", "memory", "memory"),
        Import("env", "counter", "global"),
    )
    assert surface.exports == (
        Export("go", "func"), Export("memory", "memory"), Export("t", "table"), Export("g", "global"),
    )  # fmt: skip
    assert surface.has_start and surface.memories == ()


def test_an_empty_module_has_no_surface() -> None:
    surface = parse_module(PREAMBLE, limit=8)
    assert (surface.imports, surface.exports, surface.memories, surface.has_start) == ((), (), (), False)


def test_memories_are_seen_with_their_limits() -> None:
    assert parse_module(binary("(module (memory 3 7))"), limit=LIMIT).memories == (MemoryLimits(3, 7),)
    assert parse_module(binary("(module (memory 3))"), limit=LIMIT).memories == (MemoryLimits(3, None),)


def test_an_import_hidden_behind_custom_sections_is_seen() -> None:
    custom = b"\x00\x06\x05decoy"
    surface = parse_module(PREAMBLE + custom * 3 + FULL[8:] + custom, limit=LIMIT)
    assert len(surface.imports) == 4


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "wasm-magic"),
        (b"(module)", "wasm-magic"),
        (b"\x00asm", "wasm-version"),
        (b"\x00asm\x02\x00\x00\x00", "wasm-version"),
        (b"\x00asm\x0d\x00\x01\x00", "component"),
        (PREAMBLE + b"\x01", "wasm-truncated"),
        (PREAMBLE + b"\x02\x05\x00", "wasm-truncated"),
        (PREAMBLE + b"\x0e\x00", "wasm-section"),
        (PREAMBLE + b"\x02\x01\x00\x02\x01\x00", "wasm-section"),
        (PREAMBLE + b"\x07\x01\x00\x02\x01\x00", "wasm-section"),
        (PREAMBLE + b"\x02\x02\x00\x00", "wasm-length"),
        (PREAMBLE + b"\x02\x80\x80\x80\x80\x80\x00", "wasm-integer"),
        (PREAMBLE + b"\x02\xff\xff\xff\xff\x1f", "wasm-integer"),
        (PREAMBLE + b"\x02\x05\xff\xff\xff\xff\x0f", "wasm-truncated"),
        (PREAMBLE + b"\x02\x05\x01\x01\xff\x00\x00", "wasm-name"),
        (PREAMBLE + b"\x02\x05\x01\x00\x00\x05\x00", "wasm-kind"),
        (PREAMBLE + b"\x07\x04\x01\x00\x05\x00", "wasm-kind"),
        (PREAMBLE + b"\x07\x07\x02\x00\x00\x00\x00\x00\x00", "wasm-export"),
        (PREAMBLE + b"\x05\x04\x01\x01\x02\x01", "wasm-limits"),
        (PREAMBLE + b"\x05\x03\x01\x04\x00", "wasm-limits"),
        (PREAMBLE + b"\x05\x05\x01\x00\x81\x80\x04", "wasm-limits"),
        (PREAMBLE + b"\x02\x06\x01\x00\x00\x03\x40\x00", "wasm-type"),
        (PREAMBLE + b"\x02\x06\x01\x00\x00\x03\x7f\x02", "wasm-type"),
        (PREAMBLE + b"\x02\x07\x01\x00\x00\x01\x7f\x00\x00", "wasm-type"),
        (PREAMBLE + b"\x02\x06\x01\x00\x00\x04\x01\x00", "wasm-type"),
    ],
)
def test_a_malformed_module_is_refused_for_its_own_reason(data: bytes, code: str) -> None:
    refused(data, code)


def test_a_module_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(FormatError) as caught:
        parse_module(FULL, limit=len(FULL) - 1)
    assert caught.value.code == "wasm-too-large"


def test_a_tag_import_is_seen() -> None:
    data = PREAMBLE + b"\x02\x06\x01\x00\x00\x04\x00\x00"
    assert parse_module(data, limit=LIMIT).imports == (Import("", "", "tag"),)


@given(st.binary(max_size=64))
def test_garbage_parses_or_gives_the_one_error(tail: bytes) -> None:
    try:
        parse(PREAMBLE + tail)
    except FormatError:
        return


@given(st.integers(8, len(FULL) - 1), st.integers(0, 255))
def test_what_the_runtime_takes_after_a_change_has_the_surface_that_the_runtime_sees(at: int, byte: int) -> None:
    data = FULL[:at] + bytes([byte]) + FULL[at + 1 :]
    try:
        module = wasmtime.Module(wasmtime.Engine(), data)
    except wasmtime.WasmtimeError:
        module = None
    try:
        surface = parse_module(data, limit=LIMIT)
    except FormatError:
        # Newer proposals that the runtime's default engine takes are refused here: stricter, never laxer.
        return
    if module is not None:
        assert [(item.module, item.name) for item in surface.imports] == [(i.module, i.name) for i in module.imports]
        assert [item.name for item in surface.exports] == [item.name for item in module.exports]
