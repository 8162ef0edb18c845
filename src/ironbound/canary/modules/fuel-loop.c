/* Computes without end, as far as any sensible limit goes: 10^12 instructions, in a second where nobody counts. */
#include "canary.h"

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    for (unsigned i = 0; i < 1u << 30; i++) __asm__ volatile(".rept 1024\n i32.const 0\n drop\n .endr\n");
    canary_escaped(IB("fuel-loop"), IB("10^12 instructions were executed for one message"));
}
