/* Says when its first instruction ran: nanoseconds of the host's clock since 1970, on descriptor 2. */
#include "kernel.h"

int program(long argc, char **argv, char **envp) {
    (void)argc, (void)argv, (void)envp;
    u64 now[2] = {0, 0};
    call(SYS_clock_gettime, 0, now);
    u64 whole = now[0] * 1000000000 + now[1];
    char line[21];
    word at = sizeof line;
    line[--at] = '\n';
    for (; whole && at; whole /= 10) line[--at] = (char)('0' + whole % 10);
    return write_all(2, line + at, (word)sizeof line - at) ? 0 : 1;
}
