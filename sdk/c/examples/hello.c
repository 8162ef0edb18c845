/* The smallest useful agent: shakes hands, counts the tools that its grants give it, and ends. */
#include "../ironbound.h"

enum { LIST = 1 };

void ib_agent(const ib_event *event) {
    if (event->kind == IB_START) ib_connect("hello", "1");
    if (event->kind == IB_READY) ib_list_tools(LIST);
    if (event->kind == IB_TOOLS) {
        int count = 0;
        for (ib_walk walk = {0}; ib_json_next(event->json, &walk);) count++;
        ib_buffer report = {0};
        ib_put(&report, IB("{\"hello\":\"from an agent without imports\",\"tools\":"));
        ib_put_int(&report, count);
        ib_put_char(&report, '}');
        ib_finish(ib_built(&report));
    }
    if (event->kind == IB_REFUSED) ib_finish(event->text);
}
