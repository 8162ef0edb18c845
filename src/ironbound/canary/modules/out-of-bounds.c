/* Reads memory of the host behind the end of its own. */
#include "canary.h"

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    ib_int secret = *(volatile ib_int *)0xfffffff0u;
    ib_buffer words = {0};
    ib_put(&words, IB("the eight bytes at 0xfffffff0 are "));
    ib_put_int(&words, secret);
    canary_escaped(IB("out-of-bounds"), ib_built(&words));
}
