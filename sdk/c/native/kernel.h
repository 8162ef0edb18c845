/* A freestanding program's whole contact with Linux on x86-64: its start, its system calls and their errors.
 *
 * No C library stands between a program and the kernel, so that what is measured is the kernel's own answer. A call
 * returns what the kernel returned: from -4095 to -1 it is an error. Numbers are those of
 * arch/x86/entry/syscalls/syscall_64.tbl, constants those of the kernel's uapi headers.
 *
 * Include it in exactly one source of a program; define `int program(long argc, char **argv, char **envp)`.
 */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long word;
typedef _Bool boolean;
#define YES ((boolean)1)
#define NO ((boolean)0)
#define COUNT(array) ((word)(sizeof(array) / sizeof *(array)))

enum {
    SYS_read = 0, SYS_write = 1, SYS_open = 2, SYS_close = 3, SYS_stat = 4, SYS_fstat = 5, SYS_poll = 7, SYS_lseek = 8,
    SYS_mmap = 9, SYS_mprotect = 10, SYS_munmap = 11, SYS_rt_sigaction = 13, SYS_rt_sigprocmask = 14, SYS_ioctl = 16,
    SYS_pread64 = 17, SYS_pwrite64 = 18, SYS_access = 21, SYS_pipe = 22, SYS_shmget = 29, SYS_dup = 32,
    SYS_nanosleep = 35, SYS_getpid = 39, SYS_socket = 41, SYS_connect = 42, SYS_sendto = 44, SYS_recvfrom = 45,
    SYS_bind = 49, SYS_listen = 50, SYS_socketpair = 53, SYS_clone = 56, SYS_fork = 57, SYS_vfork = 58,
    SYS_execve = 59, SYS_exit = 60, SYS_wait4 = 61, SYS_kill = 62, SYS_uname = 63, SYS_fcntl = 72, SYS_ftruncate = 77,
    SYS_getdents = 78, SYS_getcwd = 79, SYS_chdir = 80, SYS_rename = 82, SYS_mkdir = 83, SYS_rmdir = 84,
    SYS_creat = 85, SYS_link = 86, SYS_unlink = 87, SYS_symlink = 88, SYS_readlink = 89, SYS_chmod = 90,
    SYS_chown = 92, SYS_umask = 95, SYS_getrlimit = 97, SYS_ptrace = 101, SYS_getuid = 102, SYS_syslog = 103,
    SYS_getgid = 104, SYS_setuid = 105, SYS_setgid = 106, SYS_geteuid = 107, SYS_getppid = 110, SYS_setgroups = 116,
    SYS_setresuid = 117, SYS_setresgid = 119, SYS_setfsuid = 122, SYS_capget = 125, SYS_capset = 126,
    SYS_mknod = 133, SYS_personality = 135, SYS_fstatfs = 138, SYS_getpriority = 140, SYS_setpriority = 141,
    SYS_sched_setscheduler = 144, SYS_mlockall = 151, SYS_munlockall = 152, SYS_mlock = 149, SYS_vhangup = 153,
    SYS_modify_ldt = 154, SYS_pivot_root = 155, SYS_prctl = 157, SYS_arch_prctl = 158, SYS_adjtimex = 159,
    SYS_chroot = 161, SYS_acct = 163, SYS_settimeofday = 164, SYS_mount = 165, SYS_umount2 = 166, SYS_swapon = 167,
    SYS_swapoff = 168, SYS_reboot = 169, SYS_sethostname = 170, SYS_setdomainname = 171, SYS_iopl = 172,
    SYS_ioperm = 173, SYS_init_module = 175, SYS_delete_module = 176, SYS_quotactl = 179, SYS_gettid = 186,
    SYS_setxattr = 188, SYS_futex = 202, SYS_sched_setaffinity = 203, SYS_sched_getaffinity = 204,
    SYS_getdents64 = 217, SYS_clock_settime = 227, SYS_clock_gettime = 228, SYS_exit_group = 231, SYS_mq_open = 240,
    SYS_kexec_load = 246, SYS_add_key = 248, SYS_request_key = 249, SYS_keyctl = 250, SYS_ioprio_set = 251,
    SYS_openat = 257, SYS_mkdirat = 258, SYS_mknodat = 259, SYS_unlinkat = 263, SYS_symlinkat = 266, SYS_unshare = 272,
    SYS_set_robust_list = 273, SYS_splice = 275, SYS_move_pages = 279, SYS_fallocate = 285, SYS_perf_event_open = 298,
    SYS_fanotify_init = 300, SYS_prlimit64 = 302, SYS_name_to_handle_at = 303, SYS_open_by_handle_at = 304,
    SYS_clock_adjtime = 305, SYS_setns = 308, SYS_process_vm_readv = 310, SYS_process_vm_writev = 311,
    SYS_kcmp = 312, SYS_finit_module = 313, SYS_seccomp = 317, SYS_memfd_create = 319, SYS_kexec_file_load = 320,
    SYS_bpf = 321, SYS_execveat = 322, SYS_userfaultfd = 323, SYS_pidfd_send_signal = 424, SYS_io_uring_setup = 425,
    SYS_open_tree = 428, SYS_move_mount = 429, SYS_fsopen = 430, SYS_fsmount = 432, SYS_fspick = 433,
    SYS_pidfd_open = 434, SYS_clone3 = 435, SYS_close_range = 436, SYS_pidfd_getfd = 438, SYS_process_madvise = 440,
    SYS_mount_setattr = 442, SYS_landlock_create_ruleset = 444, SYS_landlock_add_rule = 445,
    SYS_landlock_restrict_self = 446, SYS_memfd_secret = 447,
};

enum {
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, ENOEXEC = 8, EBADF = 9, ECHILD = 10,
    EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20,
    EISDIR = 21, EINVAL = 22, ENFILE = 23, EMFILE = 24, ENOTTY = 25, ETXTBSY = 26, EFBIG = 27, ENOSPC = 28,
    ESPIPE = 29, EROFS = 30, EMLINK = 31, EPIPE = 32, ENAMETOOLONG = 36, ENOSYS = 38, ENOTEMPTY = 39, ELOOP = 40,
    ENOKEY = 126, EKEYREJECTED = 129, EOVERFLOW = 75, EBADFD = 77, EUSERS = 87, ENOTSOCK = 88, EPROTONOSUPPORT = 93,
    ESOCKTNOSUPPORT = 94, EOPNOTSUPP = 95, EAFNOSUPPORT = 97, EADDRINUSE = 98, EADDRNOTAVAIL = 99, ENETDOWN = 100,
    ENETUNREACH = 101, ECONNRESET = 104, ECONNREFUSED = 111, EHOSTUNREACH = 113, EINPROGRESS = 115, EDQUOT = 122, ETIMEDOUT = 110,
    ENODATA = 61,
};

enum {
    O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0x40, O_EXCL = 0x80, O_TRUNC = 0x200, O_NONBLOCK = 0x800,
    O_DIRECTORY = 0x10000, O_NOFOLLOW = 0x20000, O_CLOEXEC = 0x80000, O_PATH = 0x200000, AT_FDCWD = -100,
    PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20,
    S_IFMT = 0xF000, S_IFSOCK = 0xC000, S_IFREG = 0x8000, S_IFCHR = 0x2000, S_IFBLK = 0x6000,
    F_GETFD = 1, F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, F_GET_SEALS = 1034, SIGKILL = 9, SIGCHLD = 17,
    AF_UNIX = 1, AF_INET = 2, AF_NETLINK = 16, AF_PACKET = 17, AF_ALG = 38, AF_VSOCK = 40, SOCK_STREAM = 1,
    SOCK_DGRAM = 2, SOCK_RAW = 3, PTRACE_DETACH = 17, PTRACE_ATTACH = 16, PTRACE_SEIZE = 0x4206,
    CLONE_NEWTIME = 0x80, CLONE_NEWNS = 0x20000, CLONE_NEWCGROUP = 0x2000000, CLONE_NEWUTS = 0x4000000,
    CLONE_NEWIPC = 0x8000000, CLONE_NEWUSER = 0x10000000, CLONE_NEWPID = 0x20000000, CLONE_NEWNET = 0x40000000,
    MS_RDONLY = 1, MS_REMOUNT = 32, MS_BIND = 4096, MS_REC = 0x4000, MS_PRIVATE = 1 << 18, MNT_DETACH = 2,
    PR_SET_PDEATHSIG = 1, PR_GET_DUMPABLE = 3, PR_SET_DUMPABLE = 4, PR_GET_SECCOMP = 21, PR_CAPBSET_READ = 23,
    PR_CAPBSET_DROP = 24, PR_SET_SECUREBITS = 28, PR_SET_MM = 35, PR_SET_NO_NEW_PRIVS = 38, PR_GET_NO_NEW_PRIVS = 39,
    PR_CAP_AMBIENT = 47, PR_CAP_AMBIENT_IS_SET = 1, PR_CAP_AMBIENT_RAISE = 2, PR_CAP_AMBIENT_CLEAR_ALL = 4,
    CAP_CHOWN = 0, CAP_NET_RAW = 13, CAP_SYS_ADMIN = 21, CAP_VERSION_3 = 0x20080522,
};

static inline word call6(word number, word a, word b, word c, word d, word e, word f) {
    word result;
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    register word r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* call(SYS_x, up to six words or pointers): what is left out is 0. */
#define call(...) CALL_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(n, a, b, c, d, e, f, ...)                                                                       \
    call6((word)(n), (word)(a), (word)(b), (word)(c), (word)(d), (word)(e), (word)(f))

static inline boolean failed(word result) { return result < 0 && result >= -4095; }

__attribute__((noreturn)) static inline void leave(int status) {
    for (;;) call(SYS_exit_group, status);
}

/* The compiler may call these four by itself. */
void *memcpy(void *to, const void *from, u64 size) {
    u8 *t = to;
    const u8 *f = from;
    while (size--) *t++ = *f++;
    return to;
}

void *memset(void *to, int value, u64 size) {
    u8 *t = to;
    while (size--) *t++ = (u8)value;
    return to;
}

void *memmove(void *to, const void *from, u64 size) {
    u8 *t = to;
    const u8 *f = from;
    if (t < f) return memcpy(to, from, size);
    while (size--) t[size] = f[size];
    return to;
}

int memcmp(const void *one, const void *two, u64 size) {
    const u8 *a = one, *b = two;
    for (; size; size--, a++, b++)
        if (*a != *b) return *a < *b ? -1 : 1;
    return 0;
}

static inline word length(const char *text) {
    word size = 0;
    while (text[size]) size++;
    return size;
}

static inline boolean same(const char *one, const char *two) {
    word size = length(one);
    return size == length(two) && memcmp(one, two, (u64)size) == 0;
}

/* Writes all of it, or says NO. */
static inline boolean write_all(int descriptor, const char *data, word size) {
    while (size > 0) {
        word done = call(SYS_write, descriptor, data, size);
        if (done == -EINTR) continue;
        if (done <= 0) return NO;
        data += done;
        size -= done;
    }
    return YES;
}

/* Text that is put together in a bounded place; what does not fit is marked, never written past the end. */
typedef struct { char *data; word size, limit; boolean full; } text;

static inline void put_char(text *to, char one) {
    if (to->size < to->limit) to->data[to->size++] = one;
    else to->full = YES;
}

static inline void put(text *to, const char *from) {
    while (*from) put_char(to, *from++);
}

static inline void put_number(text *to, word value) {
    char digits[20];
    int count = 0;
    u64 rest = value < 0 ? 0 - (u64)value : (u64)value;
    if (value < 0) put_char(to, '-');
    do digits[count++] = (char)('0' + rest % 10);
    while (rest /= 10);
    while (count) put_char(to, digits[--count]);
}

/* A JSON string in its canonical form (RFC 8785); a byte beyond ASCII is shown as '?'. */
static inline void put_string(text *to, const char *from) {
    static const char hex[] = "0123456789abcdef";
    put_char(to, '"');
    for (; *from; from++) {
        u8 one = (u8)*from;
        if (one == '"' || one == '\\') {
            put_char(to, '\\');
            put_char(to, *from);
        } else if (one < 0x20) {
            put(to, "\\u00");
            put_char(to, hex[one >> 4]);
            put_char(to, hex[one & 15]);
        } else {
            put_char(to, one < 0x7F ? *from : '?');
        }
    }
    put_char(to, '"');
}

/* An error in the words of the C library: "EPERM: Operation not permitted". */
static inline void put_error(text *to, word result) {
    static const struct { int code; const char *name; } names[] = {
        {EPERM, "EPERM: Operation not permitted"}, {ENOENT, "ENOENT: No such file or directory"},
        {ESRCH, "ESRCH: No such process"}, {EINTR, "EINTR: Interrupted system call"},
        {EIO, "EIO: Input/output error"}, {ENXIO, "ENXIO: No such device or address"},
        {E2BIG, "E2BIG: Argument list too long"}, {ENOEXEC, "ENOEXEC: Exec format error"},
        {EBADF, "EBADF: Bad file descriptor"}, {ECHILD, "ECHILD: No child processes"},
        {EAGAIN, "EAGAIN: Resource temporarily unavailable"}, {ENOMEM, "ENOMEM: Cannot allocate memory"},
        {EACCES, "EACCES: Permission denied"}, {EFAULT, "EFAULT: Bad address"},
        {EBUSY, "EBUSY: Device or resource busy"}, {EEXIST, "EEXIST: File exists"},
        {EXDEV, "EXDEV: Invalid cross-device link"}, {ENODEV, "ENODEV: No such device"},
        {ENOTDIR, "ENOTDIR: Not a directory"}, {EISDIR, "EISDIR: Is a directory"},
        {EINVAL, "EINVAL: Invalid argument"}, {ENFILE, "ENFILE: Too many open files in system"},
        {EMFILE, "EMFILE: Too many open files"}, {ENOTTY, "ENOTTY: Inappropriate ioctl for device"},
        {ETXTBSY, "ETXTBSY: Text file busy"}, {EFBIG, "EFBIG: File too large"},
        {ENOSPC, "ENOSPC: No space left on device"}, {ESPIPE, "ESPIPE: Illegal seek"},
        {EROFS, "EROFS: Read-only file system"}, {EMLINK, "EMLINK: Too many links"}, {EPIPE, "EPIPE: Broken pipe"},
        {ENAMETOOLONG, "ENAMETOOLONG: File name too long"}, {ENOSYS, "ENOSYS: Function not implemented"},
        {ENOTEMPTY, "ENOTEMPTY: Directory not empty"}, {ELOOP, "ELOOP: Too many levels of symbolic links"},
        {ENODATA, "ENODATA: No data available"}, {EOVERFLOW, "EOVERFLOW: Value too large for defined data type"},
        {EBADFD, "EBADFD: File descriptor in bad state"}, {EUSERS, "EUSERS: Too many users"},
        {ENOTSOCK, "ENOTSOCK: Socket operation on non-socket"},
        {EPROTONOSUPPORT, "EPROTONOSUPPORT: Protocol not supported"},
        {ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT: Socket type not supported"},
        {EOPNOTSUPP, "EOPNOTSUPP: Operation not supported"},
        {EAFNOSUPPORT, "EAFNOSUPPORT: Address family not supported by protocol"},
        {EADDRINUSE, "EADDRINUSE: Address already in use"},
        {EADDRNOTAVAIL, "EADDRNOTAVAIL: Cannot assign requested address"}, {ENETDOWN, "ENETDOWN: Network is down"},
        {ENETUNREACH, "ENETUNREACH: Network is unreachable"}, {ECONNRESET, "ECONNRESET: Connection reset by peer"}, {ETIMEDOUT, "ETIMEDOUT: Connection timed out"},
        {ECONNREFUSED, "ECONNREFUSED: Connection refused"}, {EHOSTUNREACH, "EHOSTUNREACH: No route to host"},
        {EINPROGRESS, "EINPROGRESS: Operation now in progress"}, {EDQUOT, "EDQUOT: Disk quota exceeded"},
        {ENOKEY, "ENOKEY: Required key not available"}, {EKEYREJECTED, "EKEYREJECTED: Key was rejected by service"},
    };
    for (word i = 0; i < COUNT(names); i++)
        if (names[i].code == -result) {
            put(to, names[i].name);
            return;
        }
    put(to, "E");
    put_number(to, -result);
    put(to, ": error ");
    put_number(to, -result);
}

int program(long argc, char **argv, char **envp);

__attribute__((noreturn, used)) void begin(long *stack) {
    leave(program(stack[0], (char **)(stack + 1), (char **)(stack + stack[0] + 2)));
}

/* The kernel leaves argc at the stack's top; C wants it as an argument and the stack aligned. */
__asm__(".globl _start\n_start:\n\txorl %ebp, %ebp\n\tmovq %rsp, %rdi\n\tandq $-16, %rsp\n\tcall begin\n");

#endif
