/* Instead of the guard's start: takes down what stands in a virtual machine, and starts each probe as root. Safe, since
 * the machine holds nothing else. After open_walls.h. */
static void write_words(const char *path, const char *words) {
    word file = call(SYS_openat, AT_FDCWD, path, O_WRONLY, 0);
    must(path, file);
    call(SYS_write, file, words, length(words));
    call(SYS_close, file);
}

static void take_down(void) {
    must("a writable root", call(SYS_mount, 0, "/", 0, MS_REMOUNT | MS_BIND, 0));
    must("a writable /dev", call(SYS_mount, "tmpfs", "/dev", "tmpfs", MS_REMOUNT, "size=64k,nr_inodes=64"));
    write_words("/proc/sys/kernel/kptr_restrict", "0");
    mount_on("tmpfs", "/proc/sys", 0, 0);
    for (word i = 0; i < COUNT(present); i++) make_present(present[i]);
    bring_loopback_up();
    for (word i = 0; i < COUNT(shims); i++) listen_abstract(shims[i]);
    unsealed(3);
    unsealed(4);
    device("/dev/tty", 5, 0);
    device("/dev/ttyS0", 4, 64);
    call(SYS_openat, AT_FDCWD, "/proc/version", O_RDONLY, 0); /* a descriptor that nobody closes */
}

/* A session with a terminal, which takes the channel's place. */
static void with_terminal(const char *probe) {
    if (!same(probe, "device-tiocsti")) return;
    call6(112, 0, 0, 0, 0, 0, 0); /* setsid */
    word terminal = call(SYS_openat, AT_FDCWD, "/dev/ttyS0", O_RDWR, 0);
    must("a terminal", terminal);
    must("a session's terminal", call(SYS_ioctl, terminal, 0x540E, 0));
    call(SYS_dup2, terminal, 0);
}

__attribute__((noreturn)) static void become_guard(const vm_order *from) {
    (void)from, (void)become_user;
    take_down();
    start_each(with_terminal);
}
