"""An agent whose every line is written by the test: it says the next line when the one before was answered.

`WAIT` in the script holds it until the gateway notifies it (its grants changed). After the last line it ends with the
latest answer as its report.
"""

from __future__ import annotations

import json
from typing import Any

import wasmtime

WAIT = b""
_TABLE, _TEXT, _LAST, _INBOX = 64, 4096, 1 << 20, 2 << 20


def call(number: int, tool: str, /, **arguments: Any) -> bytes:
    """A tools/call line."""
    return request(number, "tools/call", {"name": tool, "arguments": arguments})


def request(number: int, method: str, params: Any) -> bytes:
    """A JSON-RPC request line."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


_HELLO = (
    request(
        0,
        "initialize",
        {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "puppet", "version": "1"}},
    )
    + json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
    + b"\n"
)


def _data(at: int, data: bytes) -> str:
    return f'(data (i32.const {at}) "{"".join(f"{chr(92)}{byte:02x}" for byte in data)}")' if data else ""


def puppet(*script: bytes) -> bytes:
    """The module that plays this script."""
    table, text = b"", _HELLO
    for line in script:
        table += (_TEXT + len(text)).to_bytes(4, "little") + len(line).to_bytes(4, "little")
        text += line
    assert len(table) < _TEXT - _TABLE and len(text) < _LAST - _TEXT
    return bytes(
        wasmtime.wat2wasm(
            f"""(module (memory (export "memory") 64) (global $n (mut i32) (i32.const 0))
            (global $kept (mut i32) (i32.const 0))
            {_data(_TABLE, table)} {_data(_TEXT, text)}
            (func $length (result i32)
              (i32.load (i32.add (i32.const {_TABLE + 4}) (i32.mul (global.get $n) (i32.const 8)))))
            (func $next (result i64) (local $at i32) (local $size i32)
              (if (i32.ge_u (global.get $n) (i32.const {len(script)}))
                (then (return (i64.or (i64.const {(_LAST | 1 << 63) - (1 << 64)})
                  (i64.shl (i64.extend_i32_u (global.get $kept)) (i64.const 32))))))
              (local.set $at (i32.load (i32.add (i32.const {_TABLE}) (i32.mul (global.get $n) (i32.const 8)))))
              (local.set $size (call $length))
              (global.set $n (i32.add (global.get $n) (i32.const 1)))
              (i64.or (i64.extend_i32_u (local.get $at))
                (i64.shl (i64.extend_i32_u (local.get $size)) (i64.const 32))))
            (func $waits (result i32)
              (if (i32.ge_u (global.get $n) (i32.const {len(script)})) (then (return (i32.const 0))))
              (i32.eqz (call $length)))
            (func (export "alloc") (param i32) (result i32) (i32.const {_INBOX}))
            (func (export "handle") (param $at i32) (param $size i32) (result i64)
              (if (i32.eqz (local.get $size)) (then (return (i64.const {_TEXT | len(_HELLO) << 32}))))
              (if (i32.eq (i32.load8_u (i32.add (local.get $at) (i32.const 18))) (i32.const 109))
                (then
                  (if (i32.eqz (call $waits)) (then (return (i64.const 0))))
                  (global.set $n (i32.add (global.get $n) (i32.const 1)))
                  (if (call $waits) (then (return (i64.const 0))))
                  (return (call $next))))
              (global.set $kept (select (i32.const 4000) (local.get $size)
                (i32.gt_u (local.get $size) (i32.const 4000))))
              (memory.copy (i32.const {_LAST}) (local.get $at) (global.get $kept))
              (if (call $waits) (then (return (i64.const 0))))
              (call $next)))"""
        )
    )
