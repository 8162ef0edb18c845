"""For each native probe the walls that have to be taken away before it gets out, and a sandbox without just these.

The sandbox is bubblewrap's with every wall of the product's runtime, but without the guard, which would refuse to go on
in a weakened one. So Landlock, which the guard puts up, never stands in here; where it is the wall that matters
(`landlock`), the probe is refused only in test_native_refused.py, behind the guard.

Each is safe for the host: everything happens in private namespaces, on files made for the purpose, with arguments that
the kernel refuses at a later check.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from native_channel import boundless, careless, open_table
from native_stand import DROP_ALL, ROOT, Guarded, filter_without, need_bubblewrap, start, unsealed

NONCE = "0123456789abcdef0123456789abcdef"

LIMITS = {"as": 64 << 20, "core": 0, "fsize": 512 << 10, "memlock": 0, "msgqueue": 0, "nofile": 64, "nproc": 64}
USERS = itertools.count(300_000 + os.getpid() % 100_000 * 1000)
"""A user for each start: the limit of processes counts all of a user's, and those that are just gone."""
ADDRESSES = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.2.1")
SHIMS = ("/containerd-shim/ironbound-probe.sock", "/tmp/.X11-unix/X0")
NETWORK = Path(__file__).with_name("network.py")


@dataclass(frozen=True)
class Without:
    """The walls that are taken away. What is not named stands."""

    calls: tuple[str, ...] = ()
    """Let through by the filter."""
    filter: bool = False
    """The filter itself."""
    root: bool = False
    """The other user and the empty capability sets: the probe is the host's root, in no user namespace."""
    landlock: bool = False
    """Landlock alone; see above."""
    read_only: bool = False
    """The read-only root."""
    present: tuple[str, ...] = ()
    """Files that the mount namespace would hide: made for the purpose. A name that ends in / is a folder."""
    limits: tuple[str, ...] = ()
    """Resource limits. That of computing time (`cpu`) never stands in here: agents are pinned before bubblewrap."""
    scratch: bool = False
    """The size of the scratch area."""
    network: bool = False
    """The empty network namespace: one with routes and listeners of its own instead."""
    descriptor: bool = False
    """The closed descriptors: one is left open."""
    seals: bool = False
    """The seals of configuration and module."""
    terminal: bool = False
    """The session without a terminal: a terminal made for the purpose."""
    bubblewrap: bool = False
    """The whole sandbox, where its parts come only together (no_new_privs)."""
    channel: Callable[..., None] | None = None
    """The gateway's closed table: another gateway."""
    size: str = ""
    """What a resource probe asks for, instead of going on to its own bound."""


def calls(*names: str) -> Without:
    return Without(calls=names)


def root(*names: str) -> Without:
    return Without(calls=names, root=True)


def present(*names: str) -> Without:
    return Without(present=names)


WALLS: Mapping[str, Without] = {
    "mount-tmpfs": root("mount", "umount2"),
    "mount-bind": root("mount", "umount2"),
    "mount-proc": root("mount", "umount2"),
    "mount-cgroup": root("mount", "umount2"),
    "mount-overlay": root("mount", "umount2"),
    "mount-propagation": root("mount"),
    "mount-remount": root("mount"),
    "mount-unmask": root("umount2"),
    "mount-pivot-root": root("pivot_root"),
    "mount-chroot": root("chroot"),
    "mount-fsopen": root("fsopen"),
    "mount-fspick": root("fspick"),
    "mount-open-tree": root("open_tree"),
    "mount-move": root("move_mount"),
    "mount-setattr": root("mount_setattr"),
    "capability-raise": root("capset"),
    "capability-inherit": root("capset"),
    "capability-ambient": root("capset", "prctl"),
    "capability-bounding": root("prctl"),
    "capability-securebits": root("prctl"),
    "capability-file": root("setxattr"),
    "prctl-set-mm": root("prctl"),
    "no-new-privs-off": Without(bubblewrap=True),
    "setuid-root": root("setuid", "setresuid"),
    "setgid-root": root("setgid", "setresgid"),
    "setgroups": root("setgroups"),
    "setfsuid-root": root("setfsuid"),
    "setuid-file": root("chown"),
    "personality": calls("personality"),
    "seccomp-off": Without(filter=True),
    "landlock-widen": calls("landlock_create_ruleset", "landlock_restrict_self"),
    "core-pattern": present("/proc/sys/kernel/core_pattern"),
    "modprobe-path": present("/proc/sys/kernel/modprobe"),
    "binfmt-misc": present("/proc/sys/fs/binfmt_misc/register"),
    "uevent-helper": present("/sys/kernel/uevent_helper"),
    "sysrq-trigger": present("/proc/sysrq-trigger"),
    "sysctl-write": present(
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/panic",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/net/ipv4/ip_forward",
    ),  # fmt: skip
    "kernel-memory": present("/proc/kcore", "/proc/kmem", "/dev/mem", "/dev/kmem", "/dev/port"),
    "kernel-log": Without(calls=("syslog",), root=True, present=("/dev/kmsg", "/proc/kmsg")),
    "kernel-addresses": root(),
    "sysfs-write": present(
        "/sys/power/state",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/module/kernel/parameters/panic",
        "/sys/firmware/efi/efivars/",
        "/sys/kernel/debug/",
        "/sys/fs/bpf/",
    ),  # fmt: skip
    "cgroup-release-agent": present(
        "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/rdma/release_agent"
    ),
    "cgroup-limits": present(
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/pids.max",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/pids/pids.max",
        "/sys/fs/cgroup/devices/devices.allow",
    ),  # fmt: skip
    "cgroup-create": present("/sys/fs/cgroup/", "/sys/fs/cgroup/memory/"),
    "device-char": root("mknod"),
    "device-block": root("mknod"),
    "device-raw-disk": present("/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/loop0", "/dev/mapper/control"),
    "device-host": Without(
        calls=("ioctl",),
        present=("/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/vhost-net", "/dev/uinput", "/dev/snapshot"),
    ),
    "device-tiocsti": Without(calls=("ioctl",), root=True, terminal=True),
    "namespace-unshare": root("unshare"),
    "namespace-user": calls("unshare"),
    "namespace-setns": root("setns"),
    "namespace-clone": root("clone"),
    "namespace-clone3": calls("clone3"),
    "process-ptrace-parent": root("ptrace"),
    "process-ptrace-sibling": calls("ptrace"),
    "process-read-memory": Without(calls=("process_vm_readv",), root=True, landlock=True),
    "process-write-memory": Without(calls=("process_vm_writev",), root=True, landlock=True),
    "process-own-memory": Without(landlock=True),
    "process-root": Without(root=True, landlock=True),
    "process-environment": Without(root=True, landlock=True),
    "process-descriptor": root("pidfd_open", "pidfd_getfd"),
    "process-kill": Without(landlock=True),
    "runtime-overwrite": Without(root=True, read_only=True, landlock=True),
    "descriptor-leak": Without(descriptor=True),
    "call-keyring": calls("keyctl", "add_key", "request_key"),
    "call-bpf": root("bpf"),
    "call-perf-event": root("perf_event_open"),
    "call-userfaultfd": root("userfaultfd"),
    "call-io-uring": calls("io_uring_setup"),
    "call-x32": Without(filter=True),
    "call-i386": Without(filter=True),
    "call-modify-ldt": calls("modify_ldt"),
    "call-iopl": root("iopl", "ioperm"),
    "call-init-module": root("init_module", "finit_module", "delete_module"),
    "call-kexec": root("kexec_load", "kexec_file_load"),
    "call-reboot": root("reboot"),
    "call-swapon": root("swapon", "swapoff"),
    "call-acct": root("acct"),
    "call-quotactl": calls("quotactl"),
    "call-clock": root("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
    "call-hostname": root("sethostname", "setdomainname"),
    "call-open-by-handle": root("name_to_handle_at", "open_by_handle_at"),
    "call-fanotify": root("fanotify_init"),
    "call-priority": root("setpriority", "sched_setscheduler", "ioprio_set"),
    "call-null-page": root(),
    "call-writable-code": calls("mmap", "mprotect"),
    "call-memory-program": calls("memfd_create", "execveat"),
    "call-shared-memory": Without(calls=("shmget", "shmctl", "mq_open"), limits=("msgqueue",)),
    "network-metadata": Without(calls=("socket", "connect"), network=True),
    "network-loopback": calls("socket", "connect"),
    "network-tcp": Without(calls=("socket", "connect"), network=True),
    "network-listen": calls("socket", "bind", "listen"),
    "network-udp": Without(calls=("socket",), network=True),
    "network-raw": root("socket"),
    "network-packet": root("socket"),
    "network-netlink": calls("socket"),
    "network-vsock": calls("socket"),
    "network-crypto": calls("socket"),
    "network-abstract": Without(calls=("socket", "connect"), network=True),
    "host-socket": Without(
        calls=("socket", "connect"),
        present=(
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/crio/crio.sock",
            "/run/podman/podman.sock",
            "/run/dbus/system_bus_socket",
            "/run/systemd/private",
        ),
    ),  # fmt: skip
    "ledger-socket": Without(
        calls=("socket", "connect"),
        present=(
            "/run/ironbound/ledger/socket",
            "/var/lib/ironbound/run/ledger/socket",
            "/run/ironbound/gateway/socket",
            "/run/ironbound/controller/socket",
        ),
    ),  # fmt: skip
    "file-outside-tmp": Without(read_only=True, root=True, landlock=True, present=("/etc/", "/proc/", "/dev/")),
    "file-symlink": Without(read_only=True, root=True),
    "file-replace-guard": Without(read_only=True, root=True),
    "file-chmod": Without(read_only=True, root=True),
    "file-sealed": Without(seals=True),
    "limit-processes": Without(limits=("nproc",), size="128"),
    "limit-memory": Without(limits=("as",), size="96"),
    "limit-descriptors": Without(limits=("nofile",), size="200"),
    "limit-scratch": Without(limits=("fsize",), scratch=True, size="4"),
    "limit-inodes": Without(scratch=True, size="2000"),
    "limit-locked-memory": Without(calls=("mlock",), root=True, limits=("memlock", "as")),
    "limit-cpu": Without(limits=("cpu",), size="10"),
    "limit-raise": Without(calls=("prlimit64",), limits=("core",)),
    "channel-operator": Without(channel=open_table),
    "channel-configuration": Without(channel=open_table),
    "channel-log": Without(channel=open_table),
    "channel-flood": Without(channel=boundless),
    "channel-rate": Without(channel=careless, size="20"),
}
"""The wall, or the walls one behind the other, that keep each probe in."""

NOT_ON_THIS_HOST: Mapping[str, tuple[str, str]] = {
    "prctl-set-mm": ("REFUSED", "it needs CAP_SYS_RESOURCE, which even root may lack in a virtual machine"),
    "call-x32": ("INCONCLUSIVE", "a kernel without CONFIG_X86_X32_ABI"),
    "call-iopl": ("INCONCLUSIVE", "a kernel without CONFIG_X86_IOPL_IOPERM"),
    "call-init-module": ("INCONCLUSIVE", "a kernel without CONFIG_MODULES"),
    "call-kexec": ("INCONCLUSIVE", "a kernel without CONFIG_KEXEC"),
}
"""Probes for which a host's kernel may lack something: what they end in without the wall there, and what it is. On a
kernel that has it they escape, as in the virtual machine of tests/node/test_microvm_controls.py, where all but those of
`ironbound.canary.probes.UNCONTROLLED` have their positive control."""


def needs_root(walls: Without) -> bool:
    return walls.root or walls.network or walls.terminal


def make_files(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Makes the files, for everyone to write; the options that lay them over the sandbox's own folders."""
    for name in names:
        place = folder / name.strip("/")
        (place if name.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            place.touch()
    for place in folder.rglob("*"):
        place.chmod(0o777)
    return [word for top in sorted(folder.iterdir()) for word in ("--bind", str(top), f"/{top.name}")]


def start_weakened(name: str, image: Path, folder: Path, walls: Without) -> Guarded:
    """Starts the probe in a sandbox without these walls. Its report comes on the control channel."""
    if walls.bubblewrap:
        return start(b"\n", before=[*(DROP_ALL if ROOT else ()), "env", f"IRONBOUND_NONCE={NONCE}"],
                     command=[str(image / "probe"), name], without=[5])  # fmt: skip
    replace, before = {}, []
    if walls.terminal:
        before += ["setsid", "--ctty"]
        _, replace[0] = os.openpty()
    if walls.network:
        before += ["unshare", "--net", "python3", "-I", str(NETWORK), *ADDRESSES, "--", *SHIMS, "--"]
    # Of the processes of an ordinary user there may be more than that already.
    limits = [limit for limit in LIMITS if limit not in walls.limits and (limit != "nproc" or ROOT)]
    before += ["prlimit", *(f"--{limit}={LIMITS[limit]}" for limit in limits)]
    if ROOT and not walls.root:
        user = str(next(USERS))
        before += ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
    options = ["--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    options += [] if walls.root else ["--unshare-cgroup-try"]
    options += [] if walls.network else ["--unshare-net"]
    options += ["--cap-add", "ALL"] if walls.root else ["--unshare-user", "--cap-drop", "ALL"]
    options += ["--bind" if walls.read_only else "--ro-bind", str(image), "/", "--proc", "/proc", "--dev", "/dev"]
    options += [] if walls.terminal else ["--remount-ro", "/dev"]
    options += [] if walls.scratch else ["--size", str(256 << 10)]
    options += ["--tmpfs", "/tmp", "--setenv", "IRONBOUND_NONCE", NONCE]
    options += make_files(folder, walls.present)
    if not walls.filter:
        replace[20] = unsealed(filter_without(walls.calls))
        os.lseek(replace[20], 0, os.SEEK_SET)
        options += ["--seccomp", "20"]
    if walls.descriptor:
        replace[9] = os.open("/", os.O_RDONLY)
    if walls.seals:
        replace |= {3: unsealed(b"{}"), 4: unsealed(b"{}")}
    need_bubblewrap()
    command = ["bwrap", *options, "--", "/probe", name, *([walls.size] if walls.size else [])]
    guarded = start(b"\n", before=before, command=command, replace=replace, without=[5])
    if walls.channel is not None:
        walls.channel(guarded.channel)
    return guarded


ORDER = sorted(WALLS, key="channel-flood".__eq__)
"""The probes one after the other on one channel: after that one nothing can be said on it."""
