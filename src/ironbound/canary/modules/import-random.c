/* Imports randomness, with which what an agent does can no longer be run again. */
#include "canary.h"

__attribute__((import_module("wasi_snapshot_preview1"), import_name("random_get"))) int random_get(void *at, ib_size size);

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    random_get(ib_new(32), 32);
    canary_escaped(IB("import-random"), IB("the host answered to wasi_snapshot_preview1::random_get"));
}
