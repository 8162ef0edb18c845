"""Our parser and the runtime read the same bytes: whatever both take has one surface, whatever one refuses is refused.

The runtime is asked under the engine's own configuration. What it takes and we refuse must be one of the named cases.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wasmtime
from components import ECHO, answers, component
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import component as model

from ironbound.core.canonical import FormatError
from ironbound.core.surface import Surface, parse_surface
from ironbound.core.wasm import ModuleSurface, parse_module
from ironbound.core.wasm_component import ComponentSurface, parse_component
from ironbound.node.sandbox import component as components
from ironbound.node.sandbox import engine as runtime

REPOSITORY = Path(__file__).parents[2]
LIMIT = 1 << 20
PREAMBLE = b"\x00asm\x01\x00\x00\x00"
ENGINE = runtime.make_engine(256 * 1024)
COMPONENTS = runtime.make_engine(256 * 1024, components=True)
CASES = 4000
COMPONENT_CASES = 1000

#: What the runtime takes and our parser refuses, by the code of the refusal: nothing that a compiler writes.
REFUSED_ALTHOUGH_TAKEN = {
    "wasm-type": "a type in a longer form than it needs: (ref null func) spelled out",
    "wasm-code": "such a type in code",
    "wasm-element": "such a type in an element segment",
    "wasm-too-large": "more than the named limits of a surface",
    "component-nesting": "components more than 8 deep within each other",
}

RICH = """(module (import "h" "exec" (func $exec (param i32))) (import "h" "t" (table 1 2 funcref))
  (import "h" "m" (memory 1 9)) (import "h" "g" (global (mut i64)))
  (type $f (func (param i32) (result i32 i64))) (global $x (mut f64) (f64.const 1)) (global i32 (i32.const 7))
  (table $own 3 funcref) (elem (i32.const 0) $exec $a) (elem declare func $b) (elem func $b $a)
  (elem (table $own) (i32.const 1) funcref (ref.func $a) (ref.null func)) (data "passive") (data (i32.const 8) "active")
  (func $a (export "a") (param i32) (local i64 i64 v128)
    block loop local.get 0 br_table 0 1 0 end end i32.const 1 call $exec
    i32.const 0 i32.const 0 call_indirect $own (type $f) drop drop
    i32.const 0 i64.load offset=8 align=4 drop v128.const i32x4 1 2 3 4 local.set 3
    i32.const 0 i32.const 0 i32.const 0 memory.init 0 i32.const 0 if (result f32) f32.const 1 else f32.const 2 end drop)
  (func $b (export "b") (result funcref) ref.func $a) (func $go ref.func $b drop) (start $go)
  (export "m" (memory 0)) (export "own" (table $own)) (export "x" (global $x)))"""
LINKED = """(component (import "a" (func $f (param "x" string)))
  (import "i" (instance (export "get" (func (result u32)))))
  (core module $m (import "l" "f" (func (param i32 i32))) (memory (export "memory") 1)
    (func (export "go") i32.const 0 i32.const 0 call 0)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0))
  (core module $mem (memory (export "memory") 1))
  (core instance $mem (instantiate $mem))
  (core func $low (canon lower (func $f) (memory (core memory $mem "memory"))))
  (core instance $m (instantiate $m (with "l" (instance (export "f" (func $low))))))
  (func (export "go") (canon lift (core func $m "go")))
  (type $r (resource (rep i32))) (core func (canon resource.new $r)) (core func (canon resource.drop $r))
  (component $inner (import "x" (func)) (export "y" (func 0)))
  (alias export $m2 "z" (func $z)) (instance $m2 (export "z" (func $f))) (export "inner" (component $inner)))"""


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def modules() -> list[bytes]:
    files = [*(REPOSITORY / "src/ironbound/canary/modules").glob("*.wasm"), REPOSITORY / "sdk/c/examples/hello.wasm"]
    small = [data for path in sorted(files) if len(data := path.read_bytes()) < 4000 and data[:8] == PREAMBLE]
    assert len(small) > 10
    return [*[binary(RICH)] * len(small), *small]


def nested(inner: str) -> str:
    return f'(component (component $c {inner}) (export "inner" (component $c)))'


def whole_components() -> list[bytes]:
    texts = [
        LINKED.replace('(alias export $m2 "z" (func $z)) ', ""),
        nested('(import "x" (func)) (core module (func (export "f")))'),
        '(component (import "m" (core module)) (import "r" (type (sub resource))) (type $t (tuple u8 string)))',
    ]
    return [ECHO, component(answers(2), code="(func $go) (start $go)"), *[binary(text) for text in texts]]


def sections(data: bytes) -> list[bytes]:
    """The sections, each with its head."""
    found, at = [], 8
    while at < len(data):
        size, shift, place = 0, 0, at + 1
        while True:
            byte = data[place]
            size |= (byte & 0x7F) << shift
            shift, place = shift + 7, place + 1
            if byte < 0x80:
                break
        found.append(data[at : place + size])
        at = place + size
    return found


def mutants(corpus: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Changed bytes, and whole sections twice, moved, dropped, cut or taken from another file."""
    dice = random.Random(seed)
    for _ in range(count):
        data = dice.choice(corpus)
        parts = sections(data)
        way = dice.randrange(8)
        if way < 4:
            made = bytearray(data)
            for _ in range(dice.choice((1, 1, 2))):
                at = dice.randrange(8, len(made))
                made[at] = dice.choice((made[at] ^ 1 << dice.randrange(8), dice.randrange(256), 0x63, 0x80, 0))
            yield bytes(made)
        elif way == 4:
            at = dice.randrange(8, len(data))
            yield data[:at] + dice.randbytes(dice.randrange(3)) + data[at + dice.randrange(3) :]
        else:
            at = dice.randrange(len(parts))
            other = dice.choice(sections(dice.choice(corpus)))
            parts[at : at + 1] = dice.choice(([], [parts[at]] * 2, [other], [parts[at], other], parts[at : at + 1]))
            if dice.randrange(3) == 0:
                dice.shuffle(parts)
            yield data[:8] + b"".join(parts)


def ours(data: bytes) -> Surface | FormatError:
    try:
        return parse_surface(data, limit=LIMIT)
    except FormatError as error:
        return error


def taken_module(data: bytes) -> wasmtime.Module | None:
    try:
        return wasmtime.Module(ENGINE, data)
    except wasmtime.WasmtimeError:
        return None


def taken_component(data: bytes) -> model.Component | None:
    try:
        return model.Component(COMPONENTS, data)
    except wasmtime.WasmtimeError:
        return None


def agree(module: wasmtime.Module, surface: ModuleSurface) -> None:
    assert runtime.runtime_view(module) == runtime.parser_view(surface)


def agree_component(made: model.Component, surface: ComponentSurface, data: bytes) -> None:
    assert components.runtime_view(COMPONENTS, made) == components.parser_view(surface)
    for part in surface.parts:
        inner = data[part.offset : part.offset + part.size]
        if isinstance(part.surface, ModuleSurface):
            module = taken_module(inner)
            assert module is not None
            agree(module, part.surface)


def compare(corpus: list[bytes], count: int, check: Callable[[bytes, Surface | FormatError], bool]) -> Counter[str]:
    """How often the runtime took a mutant, and why we refused those that it took."""
    seen: Counter[str] = Counter()
    for data in mutants(corpus, count, 1):
        surface = ours(data)
        if check(data, surface):
            seen["taken"] += 1
            if isinstance(surface, FormatError):
                seen[surface.code] += 1
    return seen


def check_module(data: bytes, surface: Surface | FormatError) -> bool:
    if (module := taken_module(data)) is None:
        return False
    if isinstance(surface, ModuleSurface):
        agree(module, surface)
    return True


def check_component(data: bytes, surface: Surface | FormatError) -> bool:
    if (made := taken_component(data)) is None:
        return False
    if isinstance(surface, ComponentSurface):
        agree_component(made, surface, data)
    return True


def test_no_mutant_of_a_module_that_the_runtime_takes_has_another_surface_than_ours() -> None:
    seen = compare(modules(), CASES, check_module)
    assert seen["taken"] > CASES / 20, seen
    assert seen.keys() - {"taken"} <= REFUSED_ALTHOUGH_TAKEN.keys(), seen
    assert sum(seen.values()) - seen["taken"] < seen["taken"] / 50, seen


def test_no_mutant_of_a_component_that_the_runtime_takes_has_another_surface_than_ours() -> None:
    seen = compare(whole_components(), COMPONENT_CASES, check_component)
    assert seen["taken"] > COMPONENT_CASES / 20, seen
    assert seen.keys() - {"taken"} <= REFUSED_ALTHOUGH_TAKEN.keys(), seen
    assert sum(seen.values()) - seen["taken"] < seen["taken"] / 50, seen


@settings(max_examples=1000)
@given(st.integers(0, 1 << 32), st.sampled_from([binary(RICH), ECHO]))
def test_a_random_mutant_of_a_rich_module_or_component_gets_one_answer(seed: int, data: bytes) -> None:
    for made in mutants([data], 1, seed):
        surface = ours(made)
        (check_module if data is not ECHO else check_component)(made, surface)


def test_a_reader_that_is_blind_for_an_import_would_be_caught() -> None:
    """The positive control: the comparison falls where one of the two sees less."""
    data = binary(RICH)
    surface = parse_module(data, limit=LIMIT)
    blind = ModuleSurface(surface.imports[1:], surface.exports, (), (), None, 0, 0, 0, 0, ())
    module = taken_module(data)
    assert module is not None
    with pytest.raises(AssertionError):
        agree(module, blind)
    made, seen = taken_component(ECHO), parse_component(ECHO, limit=LIMIT)
    assert made is not None
    with pytest.raises(AssertionError):
        agree_component(made, ComponentSurface((), (), seen.parts, 0, (), ()), ECHO)


@pytest.mark.parametrize(
    "data",
    [
        PREAMBLE + b"\x01\x06\x01\x60\x01\x63\x70\x00",
        PREAMBLE + b"\x04\x05\x01\x63\x70\x00\x01",
    ],
)
def test_types_in_a_longer_form_than_they_need_are_refused_although_the_runtime_takes_them(data: bytes) -> None:
    assert taken_module(data) is not None
    refusal = ours(data)
    assert isinstance(refusal, FormatError) and refusal.code in REFUSED_ALTHOUGH_TAKEN


# Operators


def leb(number: int) -> bytes:
    low = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return low + leb(number >> 7) if number > 0x7F else low


def with_operator(operator: bytes, callee: int, ends: int, *, imports: bool) -> bytes:
    """A module whose exported function is: unreachable, the operator, a call, and whatever closes it. With `imports`
    function 0 is an import, without it the exported one, and function 1 is not there."""
    code = b"\x00\x00" + operator + bytes([0x10, callee, 0x00]) + b"\x0b" * ends

    def section(kind: int, *items: bytes) -> bytes:
        body = bytes([len(items)]) + b"".join(items)
        return bytes([kind]) + leb(len(body)) + body

    imported = section(2, b"\x01h\x01x\x00\x00") if imports else b""
    return (
        PREAMBLE + section(1, b"\x60\x00\x00") + imported + section(3, b"\x00")
        + section(4, b"\x70\x00\x01") + section(5, b"\x00\x01") + section(6, b"\x7f\x01\x41\x00\x0b")
        + section(7, b"\x01a\x00" + bytes([imports])) + section(9, b"\x01\x00\x01\x00") + b"\x0c\x01\x01"
        + section(10, leb(len(code)) + code) + section(11, b"\x01\x01d")
    )  # fmt: skip


def operators() -> Iterator[bytes]:
    """Every opcode, those behind a prefix also padded."""
    for number in range(256):
        if number not in (0x10, 0xFC, 0xFD):
            yield bytes([number])
    for prefix, most in ((0xFC, 40), (0xFD, 300)):
        for number in range(most):
            yield bytes([prefix]) + leb(number)
            padded = leb(number)
            yield bytes([prefix]) + padded[:-1] + bytes([padded[-1] | 0x80]) + b"\x80\x00"


IMMEDIATES = (
    b"", b"\x00", b"\x70", b"\x40", b"\x7b", b"\x00\x00", b"\x01\x7f", b"\x02\x00\x00\x00", b"\x00\x00\x00",
    bytes(4), bytes(8), bytes(16), b"\x80\x00\x00", b"\x80\x80\x80\x80\x00", b"\xff\xff\xff\xff\x0f", b"\x80\x7f",
    b"\x80\x80\x80\x80\x70", b"\x80" * 9 + b"\x7f", b"\xff" * 4 + b"\x1f", b"\x01\xff\xff\xff\xff\x0f", b"\x81\x00\x7c",
    b"\x00\xff\xff\xff\xff\x0f", b"\x00\x80\x80\x80\x80\x10", b"\x40\x00", b"\x3f\x00",
)  # fmt: skip


def valid(data: bytes) -> bool:
    try:
        wasmtime.Module.validate(ENGINE, data)
    except wasmtime.WasmtimeError:
        return False
    return True


def test_every_operator_is_as_long_for_us_as_for_the_runtime() -> None:
    """Behind each operator stands a call. To the runtime it is one exactly if calling function 1, which is not there,
    makes the module invalid (a 1 is valid as an operator and a lane); to us if the export reaches the import."""
    compared = called = 0
    for operator in operators():
        for immediate in IMMEDIATES:
            for ends in (1, 2):
                data = with_operator(operator + immediate, 0, ends, imports=True)
                if not valid(data):
                    continue
                is_call = not valid(with_operator(operator + immediate, 1, ends, imports=False))
                surface = parse_module(data, limit=LIMIT)
                assert (surface.exports[0].reaches == (0,)) == is_call, (operator + immediate).hex()
                compared, called = compared + 1, called + is_call
    assert compared > 3000 and called > 3000, (compared, called)
