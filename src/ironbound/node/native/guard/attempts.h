/* The guard's probes of its own walls: each forbidden thing is really tried and the kernel's answer recorded.
 *
 * A Landlock domain cannot be seen in /proc, and nothing inside gVisor or a virtual machine can be seen from outside:
 * these answers are the only evidence there. The first list is tried before the filter hides Landlock behind itself.
 *
 * Rule 1: REFUSED needs the error that the wall in question gives. An attempt that got past the wall and failed at
 *         something else has ESCAPED; one that never reached the wall is INCONCLUSIVE.
 * Rule 2: an attempt that succeeds harms nothing and undoes itself.
 * Rule 3: the filter answers EPERM before the kernel looks at anything else, on Linux as in gVisor (whose own kernel
 *         runs it); so behind it every other error is an escape. A kernel without the call changes nothing about that.
 *         One exception: the flags of clone3 lie in memory, where no filter can read them, so it may answer ENOSYS.
 *         The capabilities answer EPERM as well. Where they might be what refused the real attempt, the same call is
 *         made once more in a form that the kernel finds wrong before it looks at them: that answer is the filter's.
 * Rule 4: where another wall than the filter answers first, its errors count too: EROFS for the read-only root,
 *         EACCES for Landlock, EINVAL for an id that does not exist in the user namespace.
 */
#ifndef ATTEMPTS_H
#define ATTEMPTS_H

static word parent;

static word opened(word descriptor) {
    if (!failed(descriptor)) call(SYS_close, descriptor);
    return descriptor;
}

/* Before the filter: what Landlock alone refuses. */

static word tcp(boolean connecting) {
    struct { u16 family, port; u32 address; u64 zero; } place = {AF_INET, 0, 0, 0};
    word endpoint = call(SYS_socket, AF_INET, SOCK_STREAM | O_NONBLOCK | O_CLOEXEC, 0);
    if (failed(endpoint)) return endpoint;
    if (connecting) {
        place.port = 0x0900;
        place.address = 0x0100007F;
    }
    word result = call(connecting ? SYS_connect : SYS_bind, endpoint, &place, sizeof place);
    call(SYS_close, endpoint);
    return result;
}
static word landlock_bind(void) { return tcp(NO); }
static word landlock_connect(void) { return tcp(YES); }
static word landlock_write(void) {
    return opened(call(SYS_openat, AT_FDCWD, "/proc/self/comm", O_WRONLY | O_CLOEXEC, 0));
}
static word landlock_signal(void) { return call(SYS_kill, parent, 0); }
static word landlock_ioctl(void) {
    u8 settings[64];
    word device = call(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC, 0);
    if (failed(device)) return device;
    word result = call(SYS_ioctl, device, 0x5401, settings);
    call(SYS_close, device);
    return result;
}

/* Behind the filter. */

#define BAD_POINTER 1
#define BAD_FLAGS 0x7FFFFFFF
#define ELSE_BARE(real, bare)                                                                                 \
    word result = (real);                                                                                     \
    if (result == -EPERM) result = (bare)

static word mounts(void) {
    ELSE_BARE(call(SYS_mount, "none", "/tmp", "tmpfs", 0, 0), call(SYS_mount, 0, 0, BAD_POINTER, 0, 0));
    if (!result) call(SYS_umount2, "/tmp", MNT_DETACH);
    return result;
}
static word remounts(void) {
    ELSE_BARE(call(SYS_mount, 0, "/", 0, MS_REMOUNT | MS_BIND, 0), call(SYS_mount, BAD_POINTER, 0, 0, MS_REMOUNT, 0));
    return result;
}
static word unmounts(void) {
    ELSE_BARE(call(SYS_umount2, "/ironbound-no-such-folder", 0), call(SYS_umount2, 0, BAD_FLAGS));
    return result;
}
static word clones_tree(void) {
    ELSE_BARE(call(SYS_open_tree, AT_FDCWD, "/", 1), call(SYS_open_tree, -1, 0, BAD_FLAGS));
    return opened(result);
}
static word sets_mount(void) {
    u64 read_only_off[4] = {0, 1, 0, 0};
    ELSE_BARE(call(SYS_mount_setattr, AT_FDCWD, "/", 0, read_only_off, sizeof read_only_off),
              call(SYS_mount_setattr, -1, 0, BAD_FLAGS, 0, 0));
    return result;
}
static word changes_root(void) { return call(SYS_chroot, "/ironbound-no-such-folder"); }
static word unshares_user(void) { return call(SYS_unshare, CLONE_NEWUSER); }
static word enters_namespace(void) { return call(SYS_setns, -1, 0); }
static word clones_user(void) {
    word child = call(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) leave(0);
    if (!failed(child)) call(SYS_wait4, child, 0, 0, 0);
    return child;
}
static word clones_by_structure(void) { return call(SYS_clone3, 0, 0); }
static word socket_inet(void) { return opened(call(SYS_socket, AF_INET, SOCK_STREAM | O_CLOEXEC, 0)); }
static word socket_udp(void) { return opened(call(SYS_socket, AF_INET, SOCK_DGRAM | O_CLOEXEC, 0)); }
static word socket_unix(void) { return opened(call(SYS_socket, AF_UNIX, SOCK_STREAM | O_CLOEXEC, 0)); }
static word socket_netlink(void) { return opened(call(SYS_socket, AF_NETLINK, SOCK_RAW | O_CLOEXEC, 0)); }
static word socket_packet(void) {
    ELSE_BARE(call(SYS_socket, AF_PACKET, SOCK_RAW | O_CLOEXEC, 0), call(SYS_socket, AF_PACKET, 0xF, 0));
    return opened(result);
}
static word socket_vsock(void) { return opened(call(SYS_socket, AF_VSOCK, SOCK_STREAM | O_CLOEXEC, 0)); }
static word traces(void) { /* seizing stops nothing; Landlock guards the parent too, but not a process that is none */
    ELSE_BARE(call(SYS_ptrace, PTRACE_SEIZE, parent, 0, 0), call(SYS_ptrace, PTRACE_SEIZE, 0x3FFFFFFF, 0, 0));
    if (!result) call(SYS_ptrace, PTRACE_DETACH, parent, 0, 0);
    return result;
}
static word reads_memory(void) {
    ELSE_BARE(call(SYS_process_vm_readv, parent, 0, 0, 0, 0, 0), call(SYS_process_vm_readv, 0, 0, 0, 0, 0, 1));
    return result;
}
static word writes_memory(void) {
    ELSE_BARE(call(SYS_process_vm_writev, parent, 0, 0, 0, 0, 0), call(SYS_process_vm_writev, 0, 0, 0, 0, 0, 1));
    return result;
}
static word takes_descriptor(void) { return opened(call(SYS_pidfd_getfd, -1, 0, 0)); }
static word opens_by_handle(void) {
    u8 handle[16] = {0};
    ELSE_BARE(call(SYS_open_by_handle_at, AT_FDCWD, handle, 0), call(SYS_open_by_handle_at, -1, BAD_POINTER, 0));
    return opened(result);
}
static word writes_root(void) {
    word file = call(SYS_openat, AT_FDCWD, "/ironbound-probe", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (failed(file)) return file;
    call(SYS_close, file);
    call(SYS_unlink, "/ironbound-probe");
    return file;
}
static word becomes_root(void) { return call(SYS_setuid, 0); }
static word becomes_root_group(void) { return call(SYS_setgid, 0); }
static word raises_capability(void) {
    struct { u32 version; int pid; } header = {CAP_VERSION_3, 0};
    struct { u32 effective, permitted, inheritable; } held[2] = {{0, 0, 0}, {0, 0, 0}};
    word result = call(SYS_capget, &header, held);
    if (result) return result;
    held[0].effective |= 1 << CAP_NET_RAW;
    held[0].permitted |= 1 << CAP_NET_RAW;
    return call(SYS_capset, &header, held);
}
static word loads_bpf(void) {
    u8 attributes[128] = {0};
    ELSE_BARE(call(SYS_bpf, 0, attributes, sizeof attributes), call(SYS_bpf, 0xFFFF, BAD_POINTER, sizeof attributes));
    return opened(result);
}
static word opens_perf(void) {
    u8 attributes[128] = {0};
    ELSE_BARE(call(SYS_perf_event_open, attributes, 0, -1, -1, 0), call(SYS_perf_event_open, 0, 0, -1, -1, BAD_FLAGS));
    return opened(result);
}
static word uses_keyring(void) { return call(SYS_keyctl, 0, -3, 0); }
static word sets_up_uring(void) {
    u8 parameters[120] = {0};
    return opened(call(SYS_io_uring_setup, 1, parameters));
}
static word handles_faults(void) { return opened(call(SYS_userfaultfd, 1)); }

typedef struct { const char *name; word (*attempt)(void); int refusing[3], passing[3]; boolean else_escaped; } probe;

static const probe before_filter[] = {
    {"landlock-tcp-bind", landlock_bind, {EACCES}, {0}, NO},
    {"landlock-tcp-connect", landlock_connect, {EACCES}, {ECONNREFUSED, ENETUNREACH, EINPROGRESS}, NO},
    {"landlock-write", landlock_write, {EACCES}, {0}, NO},
    {"landlock-device-ioctl", landlock_ioctl, {EACCES}, {ENOTTY}, NO},
    {"landlock-signal-parent", landlock_signal, {EPERM}, {0}, NO},
};
/* The ABI that brought the right, and for the last one a parent inside this pid namespace; else it is left out. */
static const int abi_of[] = {4, 4, 1, 5, 6};

/* Whoever has left the user namespace may do less afterwards: the clone comes before it. */
static const probe behind_filter[] = {
    {"guard-mount", mounts, {EPERM}, {0}, YES},
    {"guard-remount", remounts, {EPERM}, {0}, YES},
    {"guard-umount", unmounts, {EPERM}, {0}, YES},
    {"guard-open-tree", clones_tree, {EPERM}, {0}, YES},
    {"guard-mount-setattr", sets_mount, {EPERM}, {0}, YES},
    {"guard-chroot", changes_root, {EPERM}, {0}, YES},
    {"guard-setns", enters_namespace, {EPERM}, {0}, YES},
    {"guard-clone-user", clones_user, {EPERM}, {0}, YES},
    {"guard-unshare-user", unshares_user, {EPERM}, {0}, YES},
    {"guard-clone3", clones_by_structure, {EPERM, ENOSYS}, {0}, YES},
    {"guard-socket-inet", socket_inet, {EPERM}, {0}, YES},
    {"guard-socket-udp", socket_udp, {EPERM}, {0}, YES},
    {"guard-socket-unix", socket_unix, {EPERM}, {0}, YES},
    {"guard-socket-netlink", socket_netlink, {EPERM}, {0}, YES},
    {"guard-socket-packet", socket_packet, {EPERM}, {0}, YES},
    {"guard-socket-vsock", socket_vsock, {EPERM}, {0}, YES},
    {"guard-ptrace-parent", traces, {EPERM}, {0}, YES},
    {"guard-process-vm-readv", reads_memory, {EPERM}, {0}, YES},
    {"guard-process-vm-writev", writes_memory, {EPERM}, {0}, YES},
    {"guard-pidfd-getfd", takes_descriptor, {EPERM}, {0}, YES},
    {"guard-open-by-handle", opens_by_handle, {EPERM}, {0}, YES},
    {"guard-open-rootfs-write", writes_root, {EPERM, EACCES, EROFS}, {0}, NO},
    {"guard-setuid-root", becomes_root, {EPERM, EINVAL}, {0}, NO},
    {"guard-setgid-root", becomes_root_group, {EPERM, EINVAL}, {0}, NO},
    {"guard-capability-raise", raises_capability, {EPERM}, {0}, NO},
    {"guard-bpf", loads_bpf, {EPERM}, {0}, YES},
    {"guard-perf-event", opens_perf, {EPERM}, {0}, YES},
    {"guard-keyctl", uses_keyring, {EPERM}, {0}, YES},
    {"guard-io-uring", sets_up_uring, {EPERM}, {0}, YES},
    {"guard-userfaultfd", handles_faults, {EPERM}, {0}, YES},
};

static boolean among(const int *codes, word result) {
    for (int i = 0; i < 3; i++)
        if (codes[i] && codes[i] == -result) return YES;
    return NO;
}

static text probes;  /* the members of the list in the first word, with commas */
static text escapes; /* what is not REFUSED, in words */
static char probes_room[MAX_LINE], escapes_room[MAX_TEXT];

static void run_probe(const probe *tried) {
    char said_room[128];
    text said = {said_room, 0, sizeof said_room - 1, NO};
    word result = tried->attempt();
    const char *verdict = !failed(result) || among(tried->passing, result) || tried->else_escaped ? "ESCAPED"
                                                                                                  : "INCONCLUSIVE";
    if (failed(result) && among(tried->refusing, result)) verdict = "REFUSED";
    if (failed(result)) put_error(&said, result);
    else put(&said, "it was allowed");
    said.data[said.size] = 0;
    if (probes.size) put_char(&probes, ',');
    put(&probes, "{\"name\":");
    put_string(&probes, tried->name);
    put(&probes, ",\"refusal\":");
    put_string(&probes, said.data);
    put(&probes, ",\"verdict\":");
    put_string(&probes, verdict);
    put_char(&probes, '}');
    if (same(verdict, "REFUSED")) return;
    if (escapes.size) put(&escapes, ", ");
    put(&escapes, tried->name);
    put(&escapes, " ");
    put(&escapes, verdict);
    put(&escapes, " (");
    put(&escapes, said.data);
    put(&escapes, ")");
}

static void probe_begin(void) {
    probes = (text){probes_room, 0, MAX_LINE, NO};
    escapes = (text){escapes_room, 0, MAX_TEXT - 1, NO};
    parent = call(SYS_getppid);
}

static void probe_landlock(word abi) {
    for (word i = 0; i < COUNT(before_filter); i++) {
        if (abi < abi_of[i] || (before_filter[i].attempt == landlock_signal && parent <= 0)) continue;
        run_probe(&before_filter[i]);
    }
}

static void probe_filter(void) {
    for (word i = 0; i < COUNT(behind_filter); i++) run_probe(&behind_filter[i]);
}

#endif
