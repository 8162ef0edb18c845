/* The first process of a container: starts hostile agents one after the other, each with limits and a filter of its own,
 * as the guard would set them, but without the guard, which would refuse to go on in a weakened container.
 *
 * Its arguments are words: `make PATH`, `listen NAME`, `private` and `terminal` for all; `limit NUMBER VALUE` and `filter HEX` for
 * the next agent; `probe NAME BOUND` starts it, with no bound where that is empty.
 */
#include "kernel.h"

typedef struct { u64 now, most; } bound;

static struct { int number; bound value; } limits[16];
static u8 instructions[1 << 15];

__attribute__((noreturn)) static void must_fail(const char *what) {
    write_all(2, what, length(what));
    write_all(2, "\n", 1);
    leave(1);
}

static void must(const char *what, word result) {
    if (failed(result)) must_fail(what);
}

static u64 number(const char *digits) {
    u64 value = 0;
    for (; *digits; digits++) value = value * 10 + (u64)(*digits - '0');
    return value;
}

static u8 half(char digit) { return (u8)(digit <= '9' ? digit - '0' : digit - 'a' + 10); }

static void install(const char *hex) {
    word size = length(hex) / 2;
    if (size > (word)sizeof instructions) must_fail("a filter too long");
    for (word i = 0; i < size; i++) instructions[i] = (u8)(half(hex[2 * i]) << 4 | half(hex[2 * i + 1]));
    struct { u16 count; u8 *first; } program = {(u16)(size / 8), instructions};
    must("seccomp", call(SYS_seccomp, 1, 0, &program));
}

/* A file with its folders, in an empty /proc/sys of its own where it is the kernel's. */
static void make(const char *path) {
    static boolean fresh = YES;
    char part[128] = {0};
    word size = length(path);
    if (fresh && memcmp(path, "/proc/sys/", 10) == 0) {
        must("another /proc/sys", call(SYS_mount, "tmpfs", "/proc/sys", "tmpfs", 0, 0));
        fresh = NO;
    }
    for (word i = 0; i < size && i < (word)sizeof part - 1; i++) {
        if (path[i] == '/' && i) call(SYS_mkdir, part, 0777);
        part[i] = path[i];
    }
    must(path, call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0777));
}

static void listen_abstract(const char *name) {
    struct { u16 family; char path[108]; } place = {AF_UNIX, {0}};
    word size = length(name), listener = call(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    memcpy(place.path + 1, name, (u64)size);
    must("a socket", listener);
    must(name, call(SYS_bind, listener, &place, 3 + size));
    must("listen", call(SYS_listen, listener, 1));
}

/* A session with a terminal, which takes the channel's place. */
static void with_terminal(void) {
    static char path[] = "/dev/pts/0";
    int none = 0, which = 0;
    call6(112, 0, 0, 0, 0, 0, 0); /* setsid */
    word master = call(SYS_openat, AT_FDCWD, "/dev/ptmx", O_RDWR, 0);
    must("/dev/ptmx", master);
    must("an open terminal", call(SYS_ioctl, master, 0x40045431, &none));
    must("a terminal's number", call(SYS_ioctl, master, 0x80045430, &which));
    path[9] = (char)('0' + which);
    word terminal = call(SYS_openat, AT_FDCWD, path, O_RDWR, 0);
    must(path, terminal);
    call(SYS_ioctl, terminal, 0x540E, 0);
    must("dup2", call(33 /* dup2 */, terminal, 0));
    call(SYS_close, terminal);
}

int program(long argc, char **argv, char **envp) {
    const char *filter = 0;
    boolean private = NO, terminal = NO;
    word count = 0;
    call(SYS_umask, 0);
    for (long i = 1; i < argc; i++) {
        if (same(argv[i], "make")) make(argv[++i]);
        else if (same(argv[i], "listen")) listen_abstract(argv[++i]);
        else if (same(argv[i], "private")) private = YES;
        else if (same(argv[i], "terminal")) terminal = YES;
        else if (same(argv[i], "filter")) filter = argv[++i];
        else if (same(argv[i], "limit")) {
            u64 value = number(argv[i + 2]);
            limits[count].number = (int)number(argv[i + 1]);
            limits[count++].value = (bound){value, value};
            i += 2;
        } else if (same(argv[i], "probe")) {
            char *words[] = {"probe", argv[i + 1], *argv[i + 2] ? argv[i + 2] : 0, 0};
            word child = call(SYS_fork);
            if (!child) {
                if (private) call(SYS_unshare, CLONE_NEWNS);
                if (terminal) with_terminal();
                while (count--) call(SYS_prlimit64, 0, limits[count].number, &limits[count].value, 0);
                if (filter) install(filter);
                call(SYS_execve, "/probe", words, envp);
                must_fail("no /probe");
            }
            call(SYS_wait4, child, 0, 0, 0);
            filter = 0;
            count = 0;
            i += 2;
        } else must_fail(argv[i]);
    }
    leave(0);
}
