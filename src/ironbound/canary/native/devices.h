/* Devices: making nodes, opening the host's, and pushing input into a terminal. */

static const char own_node[] = "/tmp/ironbound-node";

static void make_node(const char *what, word mode, word device) {
    if (attempt(what, call(SYS_mknod, own_node, mode | 0600, device), ERRORS(EPERM, EACCES))) call(SYS_unlink, own_node);
}

static void make_character_device(void) { make_node("mknod c 1 1", S_IFCHR, 1 << 8 | 1); }
static void make_block_device(void) {
    make_node("mknod b 8 0", S_IFBLK, 8 << 8);
    make_node("mknod b 254 0", S_IFBLK, 254 << 8);
}

static void raw_disk(void) {
    try_open("/dev/sda", O_RDONLY);
    try_open("/dev/vda", O_RDONLY);
    try_open("/dev/nvme0n1", O_RDONLY);
    try_open("/dev/loop0", O_RDONLY);
    try_open("/dev/mapper/control", O_RDWR);
}

static void host_devices(void) {
    try_open("/dev/kvm", O_RDWR);
    try_open("/dev/fuse", O_RDWR);
    try_open("/dev/net/tun", O_RDWR);
    try_open("/dev/vhost-net", O_RDWR);
    try_open("/dev/uinput", O_RDWR);
    try_open("/dev/snapshot", O_RDWR);
}

/* ENXIO: there is no controlling terminal. EIO: the kernel forbids the push. ENOTTY: the channel is no terminal. */
static void terminal_push(void) {
    word terminal = call(SYS_openat, AT_FDCWD, "/dev/tty", O_RDWR | O_CLOEXEC | O_NONBLOCK, 0);
    if (failed(terminal)) attempt("open /dev/tty", terminal, ERRORS(ENXIO, ENOENT, EACCES, EPERM));
    else {
        attempt("ioctl TIOCSTI", call(SYS_ioctl, terminal, 0x5412, "\n"), ERRORS(EPERM, EACCES, EIO));
        call(SYS_close, terminal);
    }
    attempt("ioctl TIOCSTI on the channel", call(SYS_ioctl, 0, 0x5412, "\n"), ERRORS(EPERM, EACCES, EIO, ENOTTY));
}
