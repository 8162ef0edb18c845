/* Calls itself 300,000 deep, to run over the end of the host's stack. */
#include "canary.h"

enum { DEPTH = 300000 };

static __attribute__((noinline)) ib_int dig(ib_int depth, ib_int a, ib_int b, ib_int c, ib_int d) {
    if (depth == 0) return a ^ b ^ c ^ d;
    ib_int below = dig(depth - 1, b + depth, c ^ a, d - b, a * 3);
    return below * a + (below ^ b) * c + d * depth;   /* all of them stay alive across the call */
}

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    ib_int result = dig(DEPTH, event->text.size, 2, 3, 4);
    ib_buffer words = {0};
    ib_put(&words, IB("300,000 calls within each other returned "));
    ib_put_int(&words, result);
    canary_escaped(IB("stack-recursion"), ib_built(&words));
}
