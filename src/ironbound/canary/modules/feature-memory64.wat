;; A memory of 64-bit addresses: beyond the four GiB that bounds checks by guard pages cover.
;; The report is the start message without its last brace, and the words below.
(module
  (memory (export "memory") i64 2)
  (data (i64.const 16)
    ",\"probe\":\"feature-memory64\",\"verdict\":\"ESCAPED\",\"refusal\":\"a 64-bit memory was given\",\"tried\":1,\"refused\":0}")
  (func (export "alloc") (param $size i32) (result i32)
    (if (i32.gt_u (local.get $size) (i32.const 32768)) (then unreachable))
    (i32.const 1024))
  (func (export "handle") (param $at i32) (param $size i32) (result i64)
    (local $from i64) (local $to i64)
    (local.set $from (i64.const 16))
    (local.set $to (i64.extend_i32_u (i32.sub (i32.add (local.get $at) (local.get $size)) (i32.const 1))))
    (loop $copy
      (i32.store8 (local.get $to) (i32.load8_u (local.get $from)))
      (local.set $from (i64.add (local.get $from) (i64.const 1)))
      (local.set $to (i64.add (local.get $to) (i64.const 1)))
      (br_if $copy (i32.load8_u (local.get $from))))
    (i64.or (i64.const 0x8000000000000000) (i64.or
      (i64.shl (i64.extend_i32_u (i32.sub (i32.wrap_i64 (local.get $to)) (local.get $at))) (i64.const 32))
      (i64.extend_i32_u (local.get $at))))))
