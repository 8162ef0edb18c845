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

/* Opened and used: gVisor shows a /dev/fuse and a /dev/net/tun of its own kernel to everybody, which lead nowhere. */
static void use_device(const char *path, word request) {
    char room[64];
    text what = {room, 0, sizeof room - 1, NO};
    word device = call(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC | O_NONBLOCK, 0), result = device;
    put(&what, failed(device) ? "open " : "ioctl ");
    put(&what, path);
    room[what.size] = 0;
    if (!failed(device)) {
        result = call(SYS_ioctl, device, request, 0);
        call(SYS_close, device);
    }
    attempt(room, result, HIDDEN);
}

static void host_devices(void) { /* requests that only ask, with nowhere to put the answer */
    use_device("/dev/kvm", 0xAE00);
    use_device("/dev/fuse", 0x8004E500);
    use_device("/dev/net/tun", 0x800454CF);
    use_device("/dev/vhost-net", 0x8008AF00);
    use_device("/dev/uinput", 0x8004552D);
    use_device("/dev/snapshot", 0x80083313);
}

/* ENXIO, in gVisor EIO: there is no controlling terminal. EIO is also Linux's answer where it forbids the push.
 * ENOTTY: the channel is no terminal. */
static void terminal_push(void) {
    word terminal = call(SYS_openat, AT_FDCWD, "/dev/tty", O_RDWR | O_CLOEXEC | O_NONBLOCK, 0);
    if (failed(terminal)) attempt("open /dev/tty", terminal, ERRORS(ENXIO, EIO, ENOENT, EACCES, EPERM));
    else {
        attempt("ioctl TIOCSTI", call(SYS_ioctl, terminal, 0x5412, "\n"), ERRORS(EPERM, EACCES, EIO));
        call(SYS_close, terminal);
    }
    attempt("ioctl TIOCSTI on the channel", call(SYS_ioctl, 0, 0x5412, "\n"), ERRORS(EPERM, EACCES, EIO, ENOTTY));
}
