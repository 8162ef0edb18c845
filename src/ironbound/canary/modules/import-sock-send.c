/* Imports WASI's sock_send: a network without a grant. */
#include "canary.h"

__attribute__((import_module("wasi_snapshot_preview1"), import_name("sock_send"))) int sock_send(int socket, const void *parts, ib_size count, int flags, ib_size *sent);

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    sock_send(3, ib_new(8), 1, 0, ib_new(sizeof(ib_size)));
    canary_escaped(IB("import-sock-send"), IB("the host answered to wasi_snapshot_preview1::sock_send"));
}
