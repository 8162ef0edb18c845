/* The network: no socket at all but the pipe. Refused by the filter; behind it an empty network namespace. */

typedef struct { u16 family, port; u32 address; u64 zero; } inet_address;

#define PORT(number) ((u16)((number) >> 8 | ((number) & 0xFF) << 8))
#define ADDRESS(a, b, c, d) ((u32)(a) | (u32)(b) << 8 | (u32)(c) << 16 | (u32)(d) << 24)
#define NO_SOCKET ERRORS(EPERM, EACCES)
#define NO_ROUTE ERRORS(EPERM, EACCES, ENETUNREACH)

static word connects(u32 address, u16 port) {
    inet_address place = {AF_INET, port, address, 0};
    word endpoint = call(SYS_socket, AF_INET, SOCK_STREAM | O_NONBLOCK | O_CLOEXEC, 0);
    if (failed(endpoint)) return endpoint;
    word result = call(SYS_connect, endpoint, &place, sizeof place);
    call(SYS_close, endpoint);
    return result;
}

static void metadata_address(void) {
    attempt("connect 169.254.169.254:80", connects(ADDRESS(169, 254, 169, 254), PORT(80)), NO_ROUTE);
    attempt("connect 169.254.170.2:80", connects(ADDRESS(169, 254, 170, 2), PORT(80)), NO_ROUTE);
    attempt("connect 100.100.100.200:80", connects(ADDRESS(100, 100, 100, 200), PORT(80)), NO_ROUTE);
}

static void loopback(void) {
    attempt("connect 127.0.0.1:2375", connects(ADDRESS(127, 0, 0, 1), PORT(2375)), NO_ROUTE);
    attempt("connect 127.0.0.1:10250", connects(ADDRESS(127, 0, 0, 1), PORT(10250)), NO_ROUTE);
}

static void outside_tcp(void) {
    attempt("connect 192.0.2.1:443", connects(ADDRESS(192, 0, 2, 1), PORT(443)), NO_ROUTE);
}

static void listen_tcp(void) {
    inet_address place = {AF_INET, 0, 0, 0};
    word endpoint = call(SYS_socket, AF_INET, SOCK_STREAM | O_CLOEXEC, 0), result = endpoint;
    if (!failed(endpoint)) {
        result = call(SYS_bind, endpoint, &place, sizeof place);
        if (!result) result = call(SYS_listen, endpoint, 1);
        call(SYS_close, endpoint);
    }
    attempt("listen on tcp", result, NO_SOCKET);
}

static void outside_udp(void) {
    inet_address place = {AF_INET, PORT(53), ADDRESS(192, 0, 2, 1), 0};
    word endpoint = call(SYS_socket, AF_INET, SOCK_DGRAM | O_NONBLOCK | O_CLOEXEC, 0), result = endpoint;
    if (!failed(endpoint)) {
        result = call(SYS_sendto, endpoint, "x", 1, 0, &place, sizeof place);
        call(SYS_close, endpoint);
    }
    attempt("sendto 192.0.2.1:53", result, NO_ROUTE);
}

static void try_socket(const char *what, word family, word kind, word protocol) {
    attempt(what, opened(call(SYS_socket, family, kind | O_CLOEXEC, protocol)), NO_SOCKET);
}

static void raw_socket(void) { try_socket("socket raw", AF_INET, SOCK_RAW, 1); }
static void packet_socket(void) { try_socket("socket packet", AF_PACKET, SOCK_RAW, 0x0300); }
static void netlink_socket(void) {
    try_socket("socket netlink route", AF_NETLINK, SOCK_RAW, 0);
    try_socket("socket netlink audit", AF_NETLINK, SOCK_RAW, 9);
    try_socket("socket netlink uevent", AF_NETLINK, SOCK_RAW, 15);
}
static void vsock_socket(void) { try_socket("socket vsock", AF_VSOCK, SOCK_STREAM, 0); }
static void crypto_socket(void) { try_socket("socket alg", AF_ALG, 5, 0); }

typedef struct { u16 family; char path[108]; } unix_address;

/* `name` with its size, so that it may begin with a zero: an abstract one. */
static word connects_unix(const char *name, word size) {
    unix_address place = {AF_UNIX, {0}};
    memcpy(place.path, name, (u64)size);
    word endpoint = call(SYS_socket, AF_UNIX, SOCK_STREAM | O_NONBLOCK | O_CLOEXEC, 0);
    if (failed(endpoint)) return endpoint;
    word result = call(SYS_connect, endpoint, &place, 2 + size);
    call(SYS_close, endpoint);
    return result;
}

/* ECONNREFUSED: nobody listens by that name in this network namespace. */
static void abstract_socket(void) {
    static const char shim[] = "\0/containerd-shim/ironbound-probe.sock", display[] = "\0/tmp/.X11-unix/X0";
    attempt("connect @/containerd-shim", connects_unix(shim, sizeof shim - 1), ERRORS(EPERM, EACCES, ECONNREFUSED));
    attempt("connect @/tmp/.X11-unix/X0", connects_unix(display, sizeof display - 1), ERRORS(EPERM, EACCES, ECONNREFUSED));
}

static void host_socket(void) {
    static const char *const sockets[] = {"/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock",
                                          "/run/crio/crio.sock", "/run/podman/podman.sock",
                                          "/run/dbus/system_bus_socket", "/run/systemd/private"};
    for (word i = 0; i < COUNT(sockets); i++) attempt(sockets[i], connects_unix(sockets[i], length(sockets[i])), HIDDEN);
}

static void ledger_socket(void) { /* where a deployment's services listen, by the usual places of one */
    static const char *const sockets[] = {"/run/ironbound/ledger/socket", "/var/lib/ironbound/run/ledger/socket",
                                          "/run/ironbound/gateway/socket", "/run/ironbound/controller/socket"};
    for (word i = 0; i < COUNT(sockets); i++) attempt(sockets[i], connects_unix(sockets[i], length(sockets[i])), HIDDEN);
}
