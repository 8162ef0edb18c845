;; Imports a table of functions, to call by number what it could not import by name.
;; The report is the start message without its last brace, and the words below.
(module
  (import "env" "__indirect_function_table" (table 1 funcref))
  (memory (export "memory") 2)
  (data (i32.const 16)
    ",\"probe\":\"import-table\",\"verdict\":\"ESCAPED\",\"refusal\":\"the host lent its table of functions\",\"tried\":1,\"refused\":0}")
  (func (export "alloc") (param $size i32) (result i32)
    (if (i32.gt_u (local.get $size) (i32.const 32768)) (then unreachable))
    (i32.const 1024))
  (func (export "handle") (param $at i32) (param $size i32) (result i64)
    (local $from i32) (local $to i32)
    (drop (table.size 0))
    (local.set $from (i32.const 16))
    (local.set $to (i32.sub (i32.add (local.get $at) (local.get $size)) (i32.const 1)))
    (loop $copy
      (i32.store8 (local.get $to) (i32.load8_u (local.get $from)))
      (local.set $from (i32.add (local.get $from) (i32.const 1)))
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (br_if $copy (i32.load8_u (local.get $from))))
    (i64.or (i64.const 0x8000000000000000) (i64.or
      (i64.shl (i64.extend_i32_u (i32.sub (local.get $to) (local.get $at))) (i64.const 32))
      (i64.extend_i32_u (local.get $at))))))
