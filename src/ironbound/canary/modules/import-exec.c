/* Imports a function that no host should have: run a program. */
#include "canary.h"

__attribute__((import_module("agent"), import_name("exec"))) int agent_exec(const char *command, ib_size size);

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    agent_exec("/bin/sh", 7);
    canary_escaped(IB("import-exec"), IB("the host answered to agent::exec"));
}
