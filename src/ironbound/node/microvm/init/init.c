/* The first process of a microVM: it makes the guard's surroundings and waits for the guard's end.
 *
 * It decides how a virtual machine of ours looks inside: which modules the kernel has, which devices there are, what
 * is writable, who the agent is. It judges nothing of the launch; the guard does. `node/microvm` puts it into the
 * first archive of the initial RAM disk, with its order and its files in one folder that is gone before the guard runs.
 *
 * Descriptors for the guard: 0 and 1 the agent channel, 2 the control channel, 3 the configuration, 4 the module,
 * 5 the plan, as in every sandbox. The status channel is this program's own.
 *
 * Rule 1: what does not work is told in one line on the control channel, and the machine ends. Nothing is skipped.
 * Rule 2: the guard begins as an ordinary user without a capability, on a read-only root with a handful of devices.
 * Rule 3: the end of the guard is the end of the machine, whatever else still runs in it.
 * Rule 4: the one line on the status channel is said after the guard's end, by this program, which no agent can reach.
 *
 * The order is text, in this form:
 *
 *     ironbound-vm/v1
 *     ports virtio | ports vsock
 *     user UID GID
 *     tmp BYTES FILES
 */
#include "kernel.h"

#include "../../native/guard/words.h"

#include "../../native/guard/plan.h"

#include "place.h"

#include "ports.h"

typedef struct { boolean vsock; u64 uid, gid, bytes, files; } vm_order;

static boolean two_numbers(char *rest, u64 *one, u64 *two) {
    return rest && plan_number(&rest, one) && *rest++ == ' ' && plan_number(&rest, two) && !*rest;
}

/* The order, or what was expected instead. */
static const char *read_order(vm_order *into) {
    static char room[256];
    word file = call(SYS_openat, AT_FDCWD, FOLDER "/order", O_RDONLY | O_CLOEXEC, 0);
    if (failed(file)) return "an order";
    word size = call(SYS_read, file, room, sizeof room - 1);
    call(SYS_close, file);
    if (size < 1 || room[size - 1] != '\n') return "an order that ends its last line";
    char *lines[4], *at = room;
    for (int i = 0; i < 4; i++) {
        lines[i] = at;
        while (*at && *at != '\n') at++;
        if (!*at) return "an order of four lines";
        *at++ = 0;
    }
    if (*at || at != room + size) return "an order of four lines";
    if (!same(lines[0], "ironbound-vm/v1")) return "ironbound-vm/v1";
    into->vsock = same(lines[1], "ports vsock");
    if (!into->vsock && !same(lines[1], "ports virtio")) return "ports virtio or ports vsock";
    if (!two_numbers(plan_after(lines[2], "user "), &into->uid, &into->gid) || !into->uid || !into->gid)
        return "user and the ids of no root";
    if (!two_numbers(plan_after(lines[3], "tmp "), &into->bytes, &into->files) || !into->bytes || !into->files)
        return "tmp and its limits";
    return 0;
}

/* Loads FOLDER/module-1, module-2, … as long as there are some. */
static void load_modules(void) {
    char path[] = FOLDER "/module-1";
    for (; path[sizeof path - 2] <= '9'; path[sizeof path - 2]++) {
        word file = call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
        if (file == -ENOENT) return;
        word result = failed(file) ? file : call(SYS_finit_module, file, "", 0);
        if (result) refuse_error("lockdown", "a kernel module", result);
        call(SYS_close, file);
    }
}

/* Everything that a user without capabilities could get back is gone after this. */
static void become_user(const vm_order *from) {
    word result = 0;
    for (word capability = 0; !result && call(SYS_prctl, PR_CAPBSET_READ, capability) >= 0; capability++)
        result = call(SYS_prctl, PR_CAPBSET_DROP, capability);
    if (!result) result = call(SYS_setgroups, 0, 0);
    if (!result) result = call(SYS_setresgid, from->gid, from->gid, from->gid);
    if (!result) result = call(SYS_setresuid, from->uid, from->uid, from->uid);
    if (result) refuse_error("lockdown", "the agent's user", result);
}

__attribute__((noreturn)) static void become_guard(const vm_order *from) {
    static char *arguments[] = {"guard", 0}, *variables[] = {0};
    become_user(from);
    refuse_error("lockdown", "the guard", call(SYS_execve, "/.ironbound/guard", arguments, variables));
}

/* How often the kernel took memory back by killing. */
static word kills_for_memory(void) {
    static char room[16384];
    word file = call(SYS_openat, AT_FDCWD, "/proc/vmstat", O_RDONLY | O_CLOEXEC, 0), size = 0, got;
    while ((got = call(SYS_read, file, room + size, sizeof room - 1 - (u64)size)) > 0) size += got;
    call(SYS_close, file);
    for (char *at = room; *at; at++) {
        char *rest = plan_after(at, "\noom_kill ");
        u64 number;
        if (rest && plan_number(&rest, &number)) return (word)number;
    }
    return -1;
}

/* "ended STATUS CPU-MILLISECONDS MAXRSS-KIB OOM-KILLS": the exit code or minus the signal. */
static void say_end(int status_channel, int status, const word *usage) {
    static char room[128];
    text line = {room, 0, sizeof room, NO};
    put(&line, "ended ");
    put_number(&line, status & 0x7F ? -(status & 0x7F) : status >> 8 & 0xFF);
    put_char(&line, ' ');
    put_number(&line, usage[0] * 1000 + usage[1] / 1000 + usage[2] * 1000 + usage[3] / 1000);
    put_char(&line, ' ');
    put_number(&line, usage[4]);
    put_char(&line, ' ');
    put_number(&line, kills_for_memory());
    put_char(&line, '\n');
    write_all(status_channel, line.data, line.size);
}

int program(long argc, char **argv, char **envp) {
    static vm_order order;
    static word usage[18]; /* struct rusage: two times, then maxrss */
    (void)argc, (void)argv, (void)envp;
    mount_kernels_own();                                                  /* (1) */
    const char *expected = read_order(&order);
    load_modules();                                                       /* (2) */
    int status_channel = open_ports(order.vsock);                         /* (3) from here a refusal can be heard */
    if (expected) {
        text reason = reason_begin("the order of the virtual machine: expected ");
        put(&reason, expected);
        refuse_for("lockdown", &reason);
    }
    seal(FOLDER "/config", 3);                                            /* (4) */
    seal(FOLDER "/module", 4);
    seal(FOLDER "/plan", 5);
    make_place(order.uid, order.gid, order.bytes, order.files);           /* (5) */
    word guard = call(SYS_fork);                                          /* (6) */
    if (failed(guard)) refuse_error("lockdown", "fork", guard);
    if (guard == 0) become_guard(&order);
    for (int i = 0; i <= 5; i++) call(SYS_close, i);
    int status = 0;
    for (word ended = 0; ended != guard;) {
        ended = call(SYS_wait4, -1, &status, 0, usage);
        if (failed(ended) && ended != -EINTR) break;
    }
    say_end(status_channel, status, usage);                               /* (7) */
    call(SYS_reboot, 0xFEE1DEAD, 672274793, 0x01234567, 0);
    return 0;
}
