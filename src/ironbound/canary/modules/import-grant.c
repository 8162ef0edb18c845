/* Imports a grant from the host itself: the agent widening its own powers. */
#include "canary.h"

__attribute__((import_module("ironbound"), import_name("grant"))) int ironbound_grant(const char *grant, ib_size size);

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    ironbound_grant("{\"action\":\"*\"}", 14);
    canary_escaped(IB("import-grant"), IB("the host answered to ironbound::grant"));
}
