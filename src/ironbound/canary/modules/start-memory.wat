;; Takes memory in its start function, before anybody called it: 3.5 GiB.
;; The report is the start message without its last brace, and the words below.
(module
  (memory (export "memory") 2)
  (global $grown (mut i32) (i32.const 0))
  (start $start)
  (data (i32.const 16)
    ",\"probe\":\"start-memory\",\"verdict\":\"REFUSED\",\"refusal\":\"memory.grow returned -1 in the start function\",\"tried\":1,\"refused\":1}")
  (data (i32.const 256)
    ",\"probe\":\"start-memory\",\"verdict\":\"ESCAPED\",\"refusal\":\"3.5 GiB of memory were given to a start function\",\"tried\":1,\"refused\":0}")
  (func $start (global.set $grown (memory.grow (i32.const 57344))))
  (func (export "alloc") (param $size i32) (result i32)
    (if (i32.gt_u (local.get $size) (i32.const 32768)) (then unreachable))
    (i32.const 1024))
  (func (export "handle") (param $at i32) (param $size i32) (result i64)
    (local $from i32) (local $to i32)
    (local.set $from (select (i32.const 16) (i32.const 256)
      (i32.eq (global.get $grown) (i32.const -1))))
    (local.set $to (i32.sub (i32.add (local.get $at) (local.get $size)) (i32.const 1)))
    (loop $copy
      (i32.store8 (local.get $to) (i32.load8_u (local.get $from)))
      (local.set $from (i32.add (local.get $from) (i32.const 1)))
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (br_if $copy (i32.load8_u (local.get $from))))
    (i64.or (i64.const 0x8000000000000000) (i64.or
      (i64.shl (i64.extend_i32_u (i32.sub (local.get $to) (local.get $at))) (i64.const 32))
      (i64.extend_i32_u (local.get $at))))))
