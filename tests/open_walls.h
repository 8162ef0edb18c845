/* What takes walls down in a virtual machine and starts each probe. `must` is open_machine.h's: what to do where the
 * kernel does not.
 *
 * PROBES, PRESENT, ADDRESSES and SHIMS are given by the test: names with their bounds, files that a host would have,
 * addresses of the loopback device, and names of abstract sockets.
 */
static char *const probes[][2] = {PROBES};
static const char *const present[] = {PRESENT};
static const u32 addresses[] = {ADDRESSES};
static const char *const shims[] = {SHIMS};

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
    word memory = call(SYS_memfd_create, "open", 2 /* MFD_ALLOW_SEALING */);
    must("memfd_create", memory);
    call(SYS_write, memory, "{}", 2);
    must("dup2", call(33 /* dup2 */, memory, descriptor));
    if (memory != descriptor) call(SYS_close, memory);
}

/* In a child each; `before` is called in it with the probe's name. */
__attribute__((noreturn)) static void start_each(void (*before)(const char *)) {
    static char *nonce[] = {"IRONBOUND_NONCE=" NONCE, 0};
    for (word i = 0; i < COUNT(probes); i++) {
        char *words[] = {"probe", probes[i][0], probes[i][1], 0};
        word child = call(SYS_fork);
        if (!child) {
            before(probes[i][0]);
            call(SYS_execve, "/probe", words, nonce);
            leave(1);
        }
        call(SYS_wait4, child, 0, 0, 0);
    }
    leave(0);
}
