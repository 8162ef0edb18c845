/* The first process of a container with every wall down: what stands in it is taken down, and each probe started as root.
 * The test puts OPEN_WALLS.H, the text of open_walls.h with its tables, beside it. */
#include "kernel.h"

#include "open.h"

/* Mounts of its own, since what a probe mounts or moves would stand in the others' way; and for one of them a terminal. */
static void by_itself(const char *probe) {
    static char path[] = "/dev/pts/0";
    int none = 0, number = 0;
    call(SYS_unshare, CLONE_NEWNS);
    if (!same(probe, "device-tiocsti")) return;
    call6(112, 0, 0, 0, 0, 0, 0); /* setsid */
    word master = call(SYS_openat, AT_FDCWD, "/dev/ptmx", O_RDWR, 0);
    must("a terminal", master);
    must("an open terminal", call(SYS_ioctl, master, 0x40045431, &none));
    must("a terminal's number", call(SYS_ioctl, master, 0x80045430, &number));
    path[9] = (char)('0' + number);
    word terminal = call(SYS_openat, AT_FDCWD, path, O_RDWR, 0);
    must(path, terminal);
    call(SYS_ioctl, terminal, 0x540E, 0);
    call(33 /* dup2 */, terminal, 0);
}

int program(long argc, char **argv, char **envp) {
    (void)argc, (void)argv, (void)envp;
    call(SYS_umask, 0);
    must("another /proc/sys", call(SYS_mount, "tmpfs", "/proc/sys", "tmpfs", 0, 0));
    for (word i = 0; i < COUNT(present); i++) make_present(present[i]);
    bring_loopback_up();
    for (word i = 0; i < COUNT(shims); i++) listen_abstract(shims[i]);
    unsealed(3);
    unsealed(4);
    for (word i = 0; i < 8; i++) call(SYS_openat, AT_FDCWD, "/proc/version", O_RDONLY, 0); /* that nobody closes */
    start_each(by_itself);
}
