"""The module parser: it sees what the runtime sees, follows what calls what, and garbage gives one error."""

from __future__ import annotations

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core import wasm
from ironbound.core.canonical import FormatError
from ironbound.core.wasm import Export, Import, Limits, ModuleSurface, parse_module

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


def surface_of(text: str) -> ModuleSurface:
    return parse_module(binary(text), limit=LIMIT)


def reached(text: str) -> dict[str, list[str]]:
    surface = surface_of(text)
    return {one.name: [surface.imports[index].name for index in one.reaches] for one in surface.exports}


def refused(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_module(data, limit=LIMIT)
    assert caught.value.code == code


def section(kind: int, *items: bytes) -> bytes:
    body = bytes([len(items)]) + b"".join(items)
    return bytes([kind, len(body)]) + body


def with_body(body: bytes) -> bytes:
    """A module with one function of this body, its locals included."""
    return PREAMBLE + section(1, b"\x60\x00\x00") + section(3, b"\x00") + section(10, bytes([len(body)]) + body)


def test_imports_exports_and_the_start_function_are_seen() -> None:
    surface = parse_module(FULL, limit=len(FULL))
    assert surface.imports == (
        Import("wasi_snapshot_preview1", "path_open", "func", "(i32) -> (i32)"),
        Import("agent", "table", "table", "funcref 1..2"),
        Import("env", "memory", "memory", "1..4"),
        Import("env", "counter", "global", "mut i64"),
    )
    assert surface.exports == (
        Export("go", "func", "() -> ()", ()),
        Export("memory", "memory", "1..4", (2,)),
        Export("t", "table", "funcref 1..2", (0, 1, 2, 3)),
        Export("g", "global", "mut i64", (3,)),
    )
    assert surface.has_start and surface.start == () and surface.memories == () and surface.functions == 1


def test_an_empty_module_has_no_surface() -> None:
    assert parse_module(PREAMBLE, limit=8) == ModuleSurface((), (), (), (), None, 0, 0, 0, 0, ())


def test_memories_and_tables_are_seen_with_their_limits() -> None:
    assert surface_of("(module (memory 3 7))").memories == (Limits(3, 7),)
    assert surface_of("(module (memory 3) (table 2 funcref))").memories == (Limits(3, None),)
    assert surface_of("(module (memory 3) (table 2 funcref))").tables == (Limits(2, None),)


def test_segments_of_every_kind_are_counted() -> None:
    surface = surface_of(
        """(module (memory 1) (table $t 3 funcref) (table $u 3 funcref) (func $f)
        (elem (i32.const 0) $f) (elem func $f) (elem (table $u) (i32.const 0) func $f) (elem declare func $f)
        (elem (i32.const 0) funcref (ref.func $f)) (elem funcref (ref.null func))
        (elem (table $u) (i32.const 0) funcref (ref.null func)) (elem declare funcref (ref.func $f))
        (data (i32.const 0) "x") (data "y"))"""
    )
    assert (surface.elements, surface.data) == (8, 2)
    memory_named = PREAMBLE + section(5, b"\x00\x01") + section(11, b"\x02\x00\x41\x00\x0b\x01x")
    assert parse_module(memory_named, limit=LIMIT).data == 1


def test_an_import_hidden_behind_custom_sections_is_seen() -> None:
    custom = b"\x00\x08\x05decoy\x01\x02"
    surface = parse_module(PREAMBLE + custom * 3 + FULL[8:] + custom, limit=LIMIT)
    assert len(surface.imports) == 4
    assert [(one.name, one.size) for one in surface.custom[:1]] == [("decoy", 2)]


def test_a_name_section_that_lies_about_a_function_changes_nothing_but_its_own_digest() -> None:
    honest = '(module (import "agent" "exec" (func {})) (func (export "handle") call 0))'
    plain, lying = surface_of(honest.format("")), surface_of(honest.format("$harmless"))
    assert [one.name for one in lying.custom] == ["name"] and plain.custom == ()
    assert (plain.imports, plain.exports) == (lying.imports, lying.exports)
    assert lying.exports[0].reaches == (0,)


IMPORTS = '(import "h" "exec" (func $exec (param i32))) (import "h" "time" (func $time (result i32)))'


def test_an_export_reaches_the_imports_that_it_calls_and_no_others() -> None:
    assert reached(f'(module {IMPORTS} (func (export "a") i32.const 1 call $exec) (func (export "b")))') == {
        "a": ["exec"],
        "b": [],
    }


def test_a_call_through_many_functions_in_circles_is_followed() -> None:
    text = f"""(module {IMPORTS} (func $one call $two) (func $two call $three call $one)
        (func $three call $one i32.const 0 call $exec) (func (export "a") call $two) (func (export "b") call $time drop)
        (func $alone call $alone) (func (export "c") call $alone))"""
    assert reached(text) == {"a": ["exec"], "b": ["time"], "c": []}


def test_an_import_reached_only_through_an_indirect_call_is_seen() -> None:
    text = f"""(module {IMPORTS} (type $t (func (param i32))) (table 1 funcref) (elem (i32.const 0) $exec)
        (func (export "a") i32.const 1 i32.const 0 call_indirect (type $t)))"""
    assert reached(text) == {"a": ["exec"]}


def test_an_indirect_call_counts_as_a_call_of_every_function_of_its_type_wherever_it_stands() -> None:
    text = f"""(module {IMPORTS} (type $t (func (param i64))) (table 1 funcref)
        (func (param i64) i32.const 0 call $exec)
        (func (export "a") (param f32) i64.const 1 i32.const 0 call_indirect (type $t))
        (func (export "b") (param i64) i32.const 0 call_indirect))"""
    assert reached(text) == {"a": ["exec"], "b": []}


def test_two_spellings_of_one_type_are_one_type() -> None:
    types = section(1, b"\x60\x00\x00", b"\x60\x00\x00")
    code = b"\x07\x00\x41\x00\x11\x01\x00\x0b"
    data = (
        PREAMBLE + types + section(2, b"\x01h\x01x\x00\x00") + section(3, b"\x00") + section(4, b"\x70\x00\x01")
        + section(7, b"\x01a\x00\x01") + section(10, code)
    )  # fmt: skip
    assert wasmtime.Module(wasmtime.Engine(), data).exports
    assert parse_module(data, limit=LIMIT).exports[0].reaches == (0,)


def test_whatever_hands_functions_in_is_reached_by_every_indirect_call() -> None:
    text = """(module (import "h" "t" (table 1 funcref)) (import "h" "g" (global funcref))
        (import "h" "get" (func (result funcref))) (import "h" "take" (func (param funcref)))
        (import "h" "m" (memory 1)) (func (export "a") i32.const 0 call_indirect))"""
    assert reached(text) == {"a": ["t", "g", "get"]}


def test_a_reference_counts_as_a_call_and_what_hands_functions_out_reaches_every_import() -> None:
    text = f"""(module {IMPORTS} (elem declare func $exec) (table (export "t") 1 funcref)
        (global (export "g") funcref (ref.null func)) (func (export "a") ref.func $exec drop)
        (func (export "b") (result funcref) ref.null func))"""
    everything = ["exec", "time"]
    assert reached(text) == {"t": everything, "g": everything, "a": ["exec"], "b": everything}


def test_what_the_start_function_reaches_is_seen() -> None:
    surface = surface_of(f"(module {IMPORTS} (func $go call $time drop) (start $go))")
    assert surface.start == (1,)
    assert surface_of('(module (import "h" "x" (func)) (start 0))').start == (0,)


def test_a_call_behind_a_jump_table_and_every_kind_of_immediate_is_seen() -> None:
    text = f"""(module {IMPORTS} (memory 1) (data "x") (table 1 funcref) (elem func $exec)
        (func (export "a") (param i32) (local v128 f64)
          block block block local.get 0 br_table 0 1 2 0 end end end
          i64.const -9223372036854775808 drop f32.const 1 drop f64.const 2 drop
          v128.const i64x2 16 16 i8x16.extract_lane_u 11 drop
          i32.const 16 v128.load offset=16 align=1 local.set 1
          i32.const 0 local.get 1 v128.load8_lane 3 drop
          local.get 1 local.get 1 i8x16.shuffle 16 0 0 0 0 0 0 0 0 0 0 0 0 0 0 16 drop
          i32.const 0 i32.const 0 i32.const 0 memory.init 0 data.drop 0
          i32.const 0 i32.const 0 i32.const 0 memory.copy i32.const 0 i32.const 0 i32.const 0 memory.fill
          i32.const 0 i32.const 0 i32.const 0 table.init 0 elem.drop 0 table.size drop
          ref.null func i32.const 0 table.grow drop memory.size memory.grow drop
          i32.const 1 i32.const 2 i32.const 3 select (result i32) drop
          f64.const 1 i64.trunc_sat_f64_u i64.extend8_s drop ref.null func ref.is_null drop
          i32.const 0 if (result i32) call $time else i32.const 16 end drop))"""
    assert wasmtime.Module(wasmtime.Engine(), binary(text)).exports
    assert reached(text) == {"a": ["time"]}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "wasm-magic"),
        (b"(module)", "wasm-magic"),
        (b"\x00asm", "wasm-version"),
        (b"\x00asm\x02\x00\x00\x00", "wasm-version"),
        (b"\x00asm\x0d\x00\x01\x00", "wasm-version"),
        (PREAMBLE + b"\x01", "wasm-truncated"),
        (PREAMBLE + b"\x02\x05\x00", "wasm-truncated"),
        (PREAMBLE + b"\x0d\x00", "wasm-section"),
        (PREAMBLE + b"\x02\x01\x00\x02\x01\x00", "wasm-section"),
        (PREAMBLE + b"\x07\x01\x00\x02\x01\x00", "wasm-section"),
        (PREAMBLE + b"\x02\x02\x00\x00", "wasm-length"),
        (PREAMBLE + b"\x02\x80\x80\x80\x80\x80\x00", "wasm-integer"),
        (PREAMBLE + b"\x02\xff\xff\xff\xff\x1f", "wasm-integer"),
        (PREAMBLE + b"\x02\x05\xff\xff\xff\xff\x0f", "wasm-truncated"),
        (PREAMBLE + b"\x02\x05\x01\x01\xff\x00\x00", "wasm-name"),
        (PREAMBLE + b"\x02\x07\x01\xff\xff\xff\x0f\x00\x00", "wasm-name"),
        (PREAMBLE + b"\x02\x05\x01\x00\x00\x04\x00", "wasm-kind"),
        (PREAMBLE + b"\x02\x08\x01\x01a\x00\x7f\x01\x00\x00", "wasm-kind"),
        (PREAMBLE + b"\x07\x04\x01\x00\x04\x00", "wasm-kind"),
        (PREAMBLE + section(5, b"\x00\x01") + b"\x07\x07\x02\x00\x02\x00\x00\x02\x00", "wasm-export"),
        (PREAMBLE + b"\x07\x04\x01\x00\x00\x00", "wasm-index"),
        (PREAMBLE + b"\x08\x01\x00", "wasm-index"),
        (PREAMBLE + b"\x02\x05\x01\x00\x00\x00\x00", "wasm-index"),
        (PREAMBLE + b"\x05\x04\x01\x01\x02\x01", "wasm-limits"),
        (PREAMBLE + b"\x05\x03\x01\x04\x00", "wasm-limits"),
        (PREAMBLE + b"\x05\x05\x01\x00\x81\x80\x04", "wasm-limits"),
        (PREAMBLE + b"\x01\x03\x01\x5f\x00", "wasm-type"),
        (PREAMBLE + b"\x02\x06\x01\x00\x00\x03\x40\x00", "wasm-type"),
        (PREAMBLE + b"\x02\x06\x01\x00\x00\x03\x7f\x02", "wasm-type"),
        (PREAMBLE + b"\x02\x07\x01\x00\x00\x01\x7f\x00\x00", "wasm-type"),
        (PREAMBLE + b"\x06\x05\x01\x7f\x00\x01\x0b", "wasm-code"),
        (PREAMBLE + b"\x09\x02\x01\x08", "wasm-element"),
        (PREAMBLE + b"\x09\x04\x01\x05\x7f\x00", "wasm-element"),
        (PREAMBLE + b"\x09\x04\x01\x01\x01\x00", "wasm-element"),
        (PREAMBLE + b"\x09\x07\x01\x02\x00\x41\x00\x0b\x00", "wasm-index"),
        (PREAMBLE + b"\x0b\x02\x01\x03", "wasm-data"),
        (PREAMBLE + b"\x0b\x03\x01\x02\x00", "wasm-index"),
        (PREAMBLE + b"\x0c\x01\x01", "wasm-count"),
        (PREAMBLE + section(1, b"\x60\x00\x00") + section(3, b"\x00"), "wasm-count"),
        (with_body(b"\x00\x10\x01\x0b"), "wasm-index"),
        (with_body(b"\x00\x11\x01\x00\x0b"), "wasm-index"),
        (with_body(b"\x00\x12\x00\x0b"), "wasm-code"),
        (with_body(b"\x00\x02\x40\x0b"), "wasm-code"),
        (with_body(b"\x00\x0b\x0b"), "wasm-length"),
        (with_body(b"\x01\x01\x6f\x0b"), "wasm-code"),
        (with_body(b"\x00\x0e\x01\x00"), "wasm-code"),
        (with_body(b"\x00\x41\xff\xff\xff\xff\x0f\x1a\x0b"), "wasm-code"),
        (with_body(b"\x00\xfd\x80\x02\x0b"), "wasm-code"),
    ],
)
def test_a_malformed_module_is_refused_for_its_own_reason(data: bytes, code: str) -> None:
    refused(data, code)


def test_a_module_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(FormatError) as caught:
        parse_module(FULL, limit=len(FULL) - 1)
    assert caught.value.code == "wasm-too-large"


@pytest.mark.parametrize("name", ["MAX_IMPORTS", "MAX_EXPORTS", "MAX_FUNCTIONS", "MAX_PARAMETERS", "MAX_REACHES"])
def test_a_surface_beyond_a_named_limit_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = binary(f"""(module {IMPORTS} (func $a (param i32 i32) call $time call $exec) (func $b (param i32 i32))
        (export "a" (func $a)) (export "b" (func $b)))""")
    assert parse_module(data, limit=LIMIT).exports[0].reaches == (0, 1)
    monkeypatch.setattr(wasm, name, 1)
    monkeypatch.setattr(wasm, "_MOST", {2: wasm.MAX_IMPORTS, 3: wasm.MAX_FUNCTIONS, 7: wasm.MAX_EXPORTS})
    refused(data, "wasm-too-large")


@given(st.binary(max_size=64))
def test_garbage_parses_or_gives_the_one_error(tail: bytes) -> None:
    try:
        parse_module(PREAMBLE + tail, limit=LIMIT)
    except FormatError:
        return
