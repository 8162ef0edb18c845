/* Asks for almost four GiB of memory before its first instruction (see build.py for the flag). */
#include "canary.h"

void ib_agent(const ib_event *event) {
    if (canary_begin(event)) canary_escaped(IB("initial-memory"), IB("a module with four GiB of memory runs"));
}
