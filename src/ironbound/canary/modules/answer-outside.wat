;; Answers with bytes that lie behind its memory, so that the host reads its own and sends them on.
;; Where there is memory after all, it puts its report there first.
;; The report is the start message without its last brace, and the words below.
(module
  (memory (export "memory") 2)
  (data (i32.const 16)
    ",\"probe\":\"answer-outside\",\"verdict\":\"ESCAPED\",\"refusal\":\"the host read behind the end of the memory\",\"tried\":1,\"refused\":0}")
  (func (export "alloc") (param $size i32) (result i32)
    (if (i32.gt_u (local.get $size) (i32.const 32768)) (then unreachable))
    (i32.const 1024))
  (func (export "handle") (param $at i32) (param $size i32) (result i64)
    (local $from i32) (local $to i32) (local $left i32)
    (if (i32.lt_u (memory.size) (i32.const 65535)) (then (return (i64.const 0x800001fffffe0000))))
    (local.set $to (i32.const 0xfffe0000))
    (local.set $from (local.get $at))
    (local.set $left (i32.sub (local.get $size) (i32.const 1)))
    (loop $start
      (i32.store8 (local.get $to) (i32.load8_u (local.get $from)))
      (local.set $from (i32.add (local.get $from) (i32.const 1)))
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (br_if $start (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (local.set $from (i32.const 16))
    (loop $copy
      (i32.store8 (local.get $to) (i32.load8_u (local.get $from)))
      (local.set $from (i32.add (local.get $from) (i32.const 1)))
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (br_if $copy (i32.load8_u (local.get $from))))
    (i64.or (i64.const 0x80000000fffe0000)
      (i64.shl (i64.extend_i32_u (i32.sub (local.get $to) (i32.const 0xfffe0000))) (i64.const 32)))))
