/* Says far more in one message than any channel takes: a well-formed ping of two MiB. */
#include "canary.h"

enum { SIZE = 2 << 20 };

void ib_agent(const ib_event *event) {
    if (event->kind == IB_START) {
        if (!canary_begin(event)) return;
        char *filler = ib_new(SIZE);
        for (int i = 0; i < SIZE / 8; i++) ((ib_int *)filler)[i] = 0x6161616161616161;
        ib_buffer line = {0};
        ib_put(&line, IB("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{\"_meta\":{\"filler\":\""));
        ib_put(&line, (ib_text){filler, SIZE});
        ib_put(&line, IB("\"}}}"));
        ib_send(ib_built(&line));
    } else if (event->kind == IB_STRAY_ERROR) {
        canary_end(IB("output-flood"), IB("REFUSED"), event->text, 1, 1);
    } else {
        canary_escaped(IB("output-flood"), IB("a message of two MiB was taken and answered"));
    }
}
