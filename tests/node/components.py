"""Small agents as components, in the text format."""

from __future__ import annotations

import wasmtime

ANSWER = '(variant (case "silence") (case "send" string) (case "report" string))'
INTERFACE = "ironbound:agent/messages@1.0.0"


def component(handle: str, *, code: str = "", more: str = "", name: str = INTERFACE, answer: str = ANSWER) -> bytes:
    """A component whose `handle` has this body, with $at and $size of the message; it returns the place of an answer:
    a byte 0 (silence), 1 (send) or 2 (report), and at +4 and +8 the text's place and size. `code` stands in the core
    module, `more` in the component."""
    return bytes(
        wasmtime.wat2wasm(
            f"""(component {more}
            (core module $code (memory (export "memory") 1) {code}
              (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
              (func (export "handle") (param $at i32) (param $size i32) (result i32) {handle}))
            (core instance $it (instantiate $code))
            (type $answer {answer})
            (func $handle (param "message" string) (result $answer) (canon lift (core func $it "handle")
              (memory (core memory $it "memory")) (realloc (core func $it "realloc"))))
            (instance $messages (export "answer" (type $answer)) (export "handle" (func $handle)))
            (export "{name}" (instance $messages)))"""
        )
    )


def answers(case: int, at: str = "(local.get $at)", size: str = "(local.get $size)") -> str:
    """The body that answers with this case and this text."""
    return f"""(i32.store8 (i32.const 16) (i32.const {case})) (i32.store (i32.const 20) {at})
        (i32.store (i32.const 24) {size}) (i32.const 16)"""


ECHO = component(answers(1))
