/* Takes memory in steps of 64 MiB, to starve the host. */
#include "canary.h"

enum { STEP = 1024, ENOUGH = 57344 };   /* pages of 64 KiB: 64 MiB and 3.5 GiB */

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    while (__builtin_wasm_memory_size(0) < ENOUGH) {
        if (__builtin_wasm_memory_grow(0, STEP) != (unsigned long)-1) continue;
        ib_buffer words = {0};
        ib_put(&words, IB("memory.grow returned -1 at "));
        ib_put_int(&words, (ib_int)__builtin_wasm_memory_size(0));
        ib_put(&words, IB(" pages"));
        canary_end(IB("memory-grow"), IB("REFUSED"), ib_built(&words), 1, 1);
        return;
    }
    canary_escaped(IB("memory-grow"), IB("3.5 GiB of memory were given"));
}
