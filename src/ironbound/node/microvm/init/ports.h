/* The three ways out of a microVM: ports of a virtio console (QEMU), or connections of a vsock (Firecracker).
 *
 * Follows drivers/char/virtio_console.c (a port can be open once) and vsock(7).
 */
#ifndef PORTS_H
#define PORTS_H

enum {
    CHANNEL_PORT = 1, CONTROL_PORT = 2, STATUS_PORT = 3, HOST = 2, PAUSE = 1000 * 1000, PAUSES = 120 * 1000,
    STATUS_DESCRIPTOR = 9,
};

static word open_port(int number) {
    char path[] = "/dev/vport0p0";
    path[sizeof path - 2] = (char)('0' + number);
    return call(SYS_openat, AT_FDCWD, path, O_RDWR, 0);
}

static word connect_host(int number) {
    struct { u16 family, zero; u32 port, context; u8 rest[4]; } host = {AF_VSOCK, 0, (u32)number, HOST, {0}};
    word endpoint = call(SYS_socket, AF_VSOCK, SOCK_STREAM, 0);
    if (failed(endpoint)) return endpoint;
    word result = call(SYS_connect, endpoint, &host, sizeof host);
    if (!result) return endpoint;
    call(SYS_close, endpoint);
    return result;
}

/* As this descriptor. The devices come up when they like, on a busy host late: the node gives up before this does. */
static void open_as(boolean vsock, int number, int descriptor) {
    u64 pause[2] = {0, PAUSE};
    word port = -ENOENT;
    for (int i = 0; i < PAUSES; i++) {
        port = vsock ? connect_host(number) : open_port(number);
        if (!failed(port)) break;
        call(SYS_nanosleep, pause, 0);
    }
    if (failed(port)) refuse_number("lockdown", "the virtual machine has no port ", number);
    if (port == descriptor) return;
    call(SYS_dup2, port, descriptor);
    call(SYS_close, port);
}

/* Descriptors 0, 1 and 2; returns the status channel, which closes when the guard begins. */
static int open_ports(boolean vsock) {
    for (int i = 0; i <= STATUS_DESCRIPTOR; i++) call(SYS_close, i); /* the kernel's console */
    open_as(vsock, CHANNEL_PORT, 10);
    open_as(vsock, CONTROL_PORT, CONTROL);
    open_as(vsock, STATUS_PORT, STATUS_DESCRIPTOR);
    call(SYS_fcntl, STATUS_DESCRIPTOR, F_SETFD, 1);
    call(SYS_dup2, 10, 0);
    call(SYS_dup2, 10, 1);
    call(SYS_close, 10);
    return STATUS_DESCRIPTOR;
}

#endif
