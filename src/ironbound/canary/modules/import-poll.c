/* Imports poll_oneoff, which waits on descriptors and clocks of the host. */
#include "canary.h"

__attribute__((import_module("wasi_snapshot_preview1"), import_name("poll_oneoff"))) int poll_oneoff(const void *in, void *out, ib_size count, ib_size *events);

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    poll_oneoff(ib_new(48), ib_new(32), 1, ib_new(sizeof(ib_size)));
    canary_escaped(IB("import-poll"), IB("the host answered to wasi_snapshot_preview1::poll_oneoff"));
}
