/* Instead of the guard's start: starts each hostile agent with the guard's limits, filter and user, but without just its
 * wall. What has to be taken down for it in file systems and network, is so in namespaces of its own. Safe, since the
 * machine holds nothing else.
 *
 * ROWS, LIMITS, FILTER, ADDRESSES, SHIMS and NONCE are given by the test.
 */
enum {
    OF_ROOT = 1, NO_FILTER = 2, NEW_PRIVILEGES = 4, WRITABLE = 8, WIDE_SCRATCH = 16, NETWORK = 32, OPEN_DESCRIPTOR = 64,
    UNSEALED = 128, TERMINAL = 256, LOAD = 0x20, EQUAL = 0x15, RETURN = 0x06,
};

typedef struct { u16 code; u8 yes, no; u32 value; } instruction;
typedef struct { char *name, *bound; u32 without, limits; u32 calls[8]; const char *present[8]; } row;

static const row rows[] = {ROWS};
static const struct { int number; u64 value; } limits[] = {LIMITS};
static const instruction filter[] = {FILTER};
static const u32 addresses[] = {ADDRESSES};
static const char *const shims[] = {SHIMS};
static instruction own[COUNT(filter) + 32];

static void must(const char *what, word result) {
    if (failed(result)) refuse_error("lockdown", what, result);
}

static void write_words(const char *path, const char *words) {
    word file = call(SYS_openat, AT_FDCWD, path, O_WRONLY, 0);
    must(path, file);
    call(SYS_write, file, words, length(words));
    call(SYS_close, file);
}

/* A file with its folders, or a folder where the name ends in a slash. */
static void make_present(const char *path) {
    char part[128] = {0};
    word size = length(path);
    for (word i = 0; i < size && i < (word)sizeof part - 1; i++) {
        if (path[i] == '/' && i) call(SYS_mkdir, part, 0777);
        part[i] = path[i];
    }
    if (path[size - 1] == '/') return;
    word file = call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0777);
    must(path, file);
    call(SYS_close, file);
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

/* The listener stays open in the agent. */
static void listen_abstract(const char *name) {
    struct { u16 family; char path[108]; } place = {AF_UNIX, {0}};
    word size = length(name), listener = call(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    memcpy(place.path + 1, name, (u64)size);
    must("a socket", listener);
    must("bind", call(SYS_bind, listener, &place, 3 + size));
    must("listen", call(SYS_listen, listener, 1));
}

static void unsealed(int descriptor) {
    word memory = call(SYS_memfd_create, "open", 2 /* MFD_ALLOW_SEALING */);
    must("memfd_create", memory);
    call(SYS_write, memory, "{}", 2);
    must("dup2", call(SYS_dup2, memory, descriptor));
    if (memory != descriptor) call(SYS_close, memory);
}

/* A session with a terminal, which takes the channel's place. */
static void with_terminal(void) {
    call6(112, 0, 0, 0, 0, 0, 0); /* setsid */
    word terminal = call(SYS_openat, AT_FDCWD, "/dev/ttyS0", O_RDWR, 0);
    must("a terminal", terminal);
    must("a session's terminal", call(SYS_ioctl, terminal, 0x540E, 0));
    call(SYS_dup2, terminal, 0);
}

static void remount_root(boolean writable) {
    must("the root", call(SYS_mount, 0, "/", 0, MS_REMOUNT | MS_BIND | (writable ? 0 : MS_RDONLY), 0));
}

static void take_down(const row *of) {
    must("no more descriptors", call(SYS_close_range, 5, 0x7FFFFFFF, 0));
    must("namespaces", call(SYS_unshare, CLONE_NEWNS | (of->without & NETWORK ? CLONE_NEWNET : 0)));
    must("private mounts", call(SYS_mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0));
    if (of->present[0] || of->without & WRITABLE) remount_root(YES);
    if (of->present[0] && memcmp(of->present[0], "/proc/sys/", 10) == 0) mount_on("tmpfs", "/proc/sys", 0, 0);
    for (word i = 0; i < COUNT(of->present) && of->present[i]; i++) make_present(of->present[i]);
    if (of->present[0] && !(of->without & WRITABLE)) remount_root(NO);
    if (of->without & WIDE_SCRATCH) mount_on("tmpfs", "/tmp", 0, "mode=1777");
    if (of->without & NETWORK) {
        bring_loopback_up();
        for (word i = 0; i < COUNT(shims); i++) listen_abstract(shims[i]);
    }
    if (of->without & UNSEALED) unsealed(3), unsealed(4);
    if (of->without & TERMINAL) with_terminal();
    if (of->without & OPEN_DESCRIPTOR) call(SYS_openat, AT_FDCWD, "/proc/version", O_RDONLY, 0);
}

static void install_filter(const row *of) {
    u16 count = 0;
    if (of->calls[0]) own[count++] = (instruction){LOAD, 0, 0, 0};
    for (word i = 0; i < COUNT(of->calls) && of->calls[i]; i++) {
        own[count++] = (instruction){EQUAL, 0, 1, of->calls[i]};
        own[count++] = (instruction){RETURN, 0, 0, 0x7FFF0000};
    }
    memcpy(own + count, filter, sizeof filter);
    struct { u16 count; instruction *first; } program = {(u16)(count + COUNT(filter)), own};
    must("the filter", call(SYS_seccomp, 1, 0, &program));
}

__attribute__((noreturn)) static void start_one(const row *of, const vm_order *from) {
    static char *nonce[] = {"IRONBOUND_NONCE=" NONCE, 0};
    char *words[] = {"probe", of->name, of->bound, 0};
    take_down(of);
    for (word i = 0; i < COUNT(limits); i++) {
        u64 both[2] = {limits[i].value, limits[i].value};
        if (of->limits & 1u << i) must("a limit", call(SYS_prlimit64, 0, limits[i].number, both, 0));
    }
    if (!(of->without & OF_ROOT)) become_user(from);
    if (!(of->without & NEW_PRIVILEGES)) must("no_new_privs", call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    if (!(of->without & NO_FILTER)) install_filter(of);
    call(SYS_execve, "/probe", words, nonce);
    leave(1);
}

__attribute__((noreturn)) static void become_guard(const vm_order *from) {
    call(SYS_umask, 0);
    must("more of /dev", call(SYS_mount, "tmpfs", "/dev", "tmpfs", MS_REMOUNT, "size=64k,nr_inodes=64"));
    write_words("/proc/sys/kernel/kptr_restrict", "0");
    device("/dev/tty", 5, 0);
    device("/dev/ttyS0", 4, 64);
    for (word i = 0; i < COUNT(rows); i++) {
        word child = call(SYS_fork);
        if (!child) start_one(&rows[i], from);
        call(SYS_wait4, child, 0, 0, 0);
    }
    leave(0);
}
