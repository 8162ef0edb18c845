/* Instead of the guard's start: takes down what stands in a virtual machine, and starts each probe as root.
 *
 * PROBES, PRESENT, ADDRESSES and SHIMS are given by the test: names with their bounds, files that a host would have,
 * addresses of the loopback device, and names of abstract sockets. Safe, since the machine holds nothing else.
 */
static char *const probes[][2] = {PROBES};
static const char *const present[] = {PRESENT};
static const u32 addresses[] = {ADDRESSES};
static const char *const shims[] = {SHIMS};

static void must(const char *what, word result) {
    if (failed(result)) refuse_error("lockdown", what, result);
}

/* A file with its folders, or a folder where the name ends in a slash. */
static void make_present(const char *path) {
    char part[128] = {0};
    word size = length(path);
    for (word i = 0; i < size && i < (word)sizeof part - 1; i++) {
        if (path[i] == '/' && i) call(SYS_mkdir, part, 0777);
        part[i] = path[i];
    }
    if (path[size - 1] != '/') must(path, call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0777));
}

static void bring_loopback_up(void) {
    word control = call(SYS_socket, AF_INET, SOCK_DGRAM, 0);
    struct { char name[16]; u16 family, port; u32 address; u8 rest[16]; } place = {"lo", AF_INET, 0, 0, {0}};
    struct { char name[16]; short flags; u8 rest[22]; } flags = {"lo", 0x41, {0}};
    must("a socket", control);
    must("loopback", call(SYS_ioctl, control, 0x8914, &flags));
    for (word i = 0; i < COUNT(addresses); i++) {
        place.name[2] = ':';
        place.name[3] = (char)('0' + i);
        place.address = addresses[i];
        must("an address", call(SYS_ioctl, control, 0x8916, &place));
    }
    call(SYS_close, control);
}

static void listen_abstract(const char *name) {
    struct { u16 family; char path[108]; } place = {AF_UNIX, {0}};
    word size = length(name), listener = call(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    memcpy(place.path + 1, name, (u64)size);
    must("a socket", listener);
    must("bind", call(SYS_bind, listener, &place, 3 + size));
    must("listen", call(SYS_listen, listener, 1));
}

static void unsealed(int descriptor) {
    word memory = call(SYS_memfd_create, "open", MFD_ALLOW_SEALING);
    must("memfd_create", memory);
    call(SYS_write, memory, "{}", 2);
    must("dup2", call(SYS_dup2, memory, descriptor));
    if (memory != descriptor) call(SYS_close, memory);
}

static void write_words(const char *path, const char *words) {
    word file = call(SYS_openat, AT_FDCWD, path, O_WRONLY, 0);
    must(path, file);
    call(SYS_write, file, words, length(words));
    call(SYS_close, file);
}

static void take_down(void) {
    must("a writable root", call(SYS_mount, 0, "/", 0, MS_REMOUNT | MS_BIND, 0));
    must("a writable /dev", call(SYS_mount, "tmpfs", "/dev", "tmpfs", MS_REMOUNT, "size=64k,nr_inodes=64"));
    mount_on("tmpfs", "/proc/sys/fs", 0, 0);
    for (word i = 0; i < COUNT(present); i++) make_present(present[i]);
    bring_loopback_up();
    for (word i = 0; i < COUNT(shims); i++) listen_abstract(shims[i]);
    unsealed(3);
    unsealed(4);
    write_words("/proc/sys/kernel/kptr_restrict", "0");
    device("/dev/tty", 5, 0);
    device("/dev/ttyS0", 4, 64);
    call(SYS_openat, AT_FDCWD, "/proc/version", O_RDONLY, 0); /* a descriptor that nobody closes */
}

/* A session with a terminal, which takes the channel's place. */
static void with_terminal(void) {
    call6(112, 0, 0, 0, 0, 0, 0); /* setsid */
    word terminal = call(SYS_openat, AT_FDCWD, "/dev/ttyS0", O_RDWR, 0);
    must("a terminal", terminal);
    must("a session's terminal", call(SYS_ioctl, terminal, 0x540E, 0));
    call(SYS_dup2, terminal, 0);
}

__attribute__((noreturn)) static void become_guard(const vm_order *from) {
    static char *nonce[] = {"IRONBOUND_NONCE=" NONCE, 0};
    (void)from, (void)become_user;
    take_down();
    for (word i = 0; i < COUNT(probes); i++) {
        char *words[] = {"probe", probes[i][0], probes[i][1], 0};
        word child = call(SYS_fork);
        if (!child) {
            if (same(probes[i][0], "device-tiocsti")) with_terminal();
            call(SYS_execve, "/probe", words, nonce);
            leave(1);
        }
        call(SYS_wait4, child, 0, 0, 0);
    }
    leave(0);
}
