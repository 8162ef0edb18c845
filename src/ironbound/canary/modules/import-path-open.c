/* Imports WASI's path_open, the way to every file of a host that links WASI. */
#include "canary.h"

__attribute__((import_module("wasi_snapshot_preview1"), import_name("path_open"))) int path_open(int folder, int flags, const char *path, ib_size size, int how, ib_int rights, ib_int inheriting, int more,
    int *opened);

void ib_agent(const ib_event *event) {
    if (!canary_begin(event)) return;
    path_open(3, 0, "etc/shadow", 10, 0, -1, -1, 0, ib_new(sizeof(int)));
    canary_escaped(IB("import-path-open"), IB("the host answered to wasi_snapshot_preview1::path_open"));
}
