/* Imports a clock, by which side channels are measured and time bombs are set. */
#include "canary.h"

__attribute__((import_module("wasi_snapshot_preview1"), import_name("clock_time_get"))) int clock_time_get(int clock, ib_int precision, ib_int *time);

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    clock_time_get(1, 1, ib_new(sizeof(ib_int)));
    canary_escaped(IB("import-clock"), IB("the host answered to wasi_snapshot_preview1::clock_time_get"));
}
