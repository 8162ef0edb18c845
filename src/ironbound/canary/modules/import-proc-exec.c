/* Imports WASIX's proc_exec: becomes another program, by a host that links more than WASI. */
#include "canary.h"

__attribute__((import_module("wasix_32v1"), import_name("proc_exec"))) int proc_exec(const char *name, ib_size name_size, const char *words, ib_size words_size);

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    proc_exec("/bin/sh", 7, "-c\nid", 5);
    canary_escaped(IB("import-proc-exec"), IB("the host answered to wasix_32v1::proc_exec"));
}
