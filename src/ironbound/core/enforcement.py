"""What holds an agent to each setting, in each runtime, and how anybody would know: the table of docs/runtimes.md.

Decides nothing and enforces nothing. It names, for every setting of a runtime and for what is always on, the
enforcer, the fields of the expected posture in which the monitor sees it, the probes inside that try it before the
release, and the canaries that try it in production. The tests hold each name against the code that it names, so that
the document can't say more than there is.

Rule 1: every key of `keys_of(runtime)` and everything in ALWAYS has a row in every runtime.
Rule 2: a row has at least one kind of evidence: a posture field, a probe inside, a canary, or a sentence that says
        whose word there is instead.
Rule 3: names of probes and canaries are exact, or end in `-*` and mean all that begin so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ironbound.core import firecracker, microvm
from ironbound.core.container import DEVICES
from ironbound.core.limits import WORKER_FDS
from ironbound.core.profile import MEMORY_SHARE, MICROVM, NATIVE, RUNTIMES, keys_of

ALWAYS: Final = (
    "the configuration consumed",
    "no network",
    "no capabilities",
    "no new privileges",
    "a user of its own",
    "the system call filter",
    "Landlock",
    "files of the host",
    "namespaces",
    "kernel interfaces and devices",
    "the code that runs",
    "the environment",
    "descriptors",
    "other processes",
    "powers of operators",
)
"""What every sandbox has and no setting changes."""


@dataclass(frozen=True, slots=True)
class Wall:
    """One row: what is held, by whom, and the evidence. `seen` are dotted paths of the expected posture."""

    name: str
    enforcer: str
    seen: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    canaries: tuple[str, ...] = ()
    otherwise: str = ""


ABOUT: Final[Mapping[str, str]] = {
    "wasmtime": "a Wasm module or component without imports, in a worker process of ours",
    "bubblewrap": "processes on the host's kernel, by `bwrap`; needs neither root nor cgroups",
    "runc": "processes on the host's kernel, by `runc`, in a cgroup",
    "crun": "processes on the host's kernel, by `crun`, in a cgroup",
    "gvisor": "processes on a kernel in user space, by `runsc` (systrap), in a cgroup",
    "qemu-microvm": "a kernel of its own, in QEMU's `microvm` machine, KVM or emulated",
    "firecracker": "a kernel of its own, in Firecracker behind its jailer, KVM only",
}
"""What each runtime is."""

REFUSALS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "wasmtime": (),
    "bubblewrap": (
        ("runtime.max_cpu", "anything but whole cores"),
        ("runtime.max_memory", f"less than {MEMORY_SHARE} MiB for each of `max_processes`, which share it equally"),
    ),
    "runc": (("runtime.max_memory", "any value, on a node that is not root: there is no cgroup"),),
    "crun": (("runtime.max_memory", "any value, on a node that is not root: there is no cgroup"),),
    "gvisor": (("runtime.max_memory", "any value, on a node that is not root: there is no cgroup"),),
    "qemu-microvm": (
        ("runtime.max_memory", f"less than {microvm.MIN_MEMORY} MiB and twice the image"),
        ("runtime.max_cpu", "more than the host has; without a cgroup, anything but whole cores"),
    ),
    "firecracker": (
        ("runtime.max_memory", f"less than {microvm.MIN_MEMORY} MiB and twice the image"),
        ("runtime.max_cpu", f"more than the host has, or than {firecracker.MAX_PROCESSORS} processors"),
    ),
}
"""What a runtime can't hold an agent to, and so refuses, naming the setting."""

_GATEWAY: Final = "the gateway reads the approved bytes itself; its word in the log"
_EXITED: Final = "the node's word in `exited`"
_CAPABILITIES: Final = ("caps.inh", "caps.prm", "caps.eff", "caps.bnd", "caps.amb")
_IDS: Final = ("uid", "gid", "groups")
_SPACES: Final = tuple(f"namespaces.{kind}" for kind in ("net", "ipc", "uts", "user", "pid", "mnt", "cgroup"))

_WASM: Final = (
    Wall("runtime.type", "the node, which has one worker for Wasm", ("exe", "mappings")),
    Wall("runtime.strict_security", "the profile's parser, which takes no other value", ("config_sha256",)),
    Wall("runtime.disallowed_imports", "Wasmtime's linker, in which nothing is defined; before it our own reader",
         ("module_sha256",), (), ("import-*", "component-random")),
    Wall("runtime.max_memory", "Wasmtime's limiter of the store", ("config_sha256",), (),
         ("initial-memory", "memory-grow", "start-memory")),
    Wall("runtime.max_fuel", "Wasmtime's fuel", ("config_sha256",), (), ("fuel-loop", "start-loop")),
    Wall("runtime.max_wall_clock", "Wasmtime's epoch, moved by the worker's second thread; behind it the node",
         ("config_sha256",), otherwise=_EXITED),
    Wall("runtime.max_stack", "Wasmtime's limit of the stack; behind it the kernel's, the same for every worker",
         ("config_sha256",), (), ("stack-recursion",)),
    Wall("runtime.max_instances", "Wasmtime's limiter of the store", ("config_sha256",), (), ("many-instances",)),
    Wall("runtime.max_tables", "Wasmtime's limiter of the store", ("config_sha256",), (), ("many-tables",)),
    Wall("runtime.max_table_elements", "Wasmtime's limiter of the store", ("config_sha256",), (),
         ("initial-table", "table-grow")),
    Wall("runtime.max_module_size", "the worker, before it compiles", ("config_sha256", "module_sha256")),
    Wall("channel.max_message", "the gateway; before it the worker", canaries=("output-flood", "malformed-messages"),
         otherwise=_GATEWAY),
    Wall("channel.max_messages_per_second", "the gateway", otherwise=_GATEWAY),
    Wall("scratch.max_bytes", "the gateway's scratch tools; the agent has no file", otherwise=_GATEWAY),
    Wall("scratch.max_files", "the gateway's scratch tools; the agent has no file", otherwise=_GATEWAY),
    Wall("the configuration consumed", "sealed memory files, hashed by the worker", ("config_sha256", "module_sha256"),
         (), ("own-configuration",)),
    Wall("no network", "nothing to import; filter, Landlock, network namespace", ("namespaces.net", "filters"),
         ("seccomp-socket-*", "landlock-tcp-*"), ("import-sock-send", "network-reach")),
    Wall("no capabilities", "the worker's capset", _CAPABILITIES, ("capability-raise", "seccomp-capset")),
    Wall("no new privileges", "prctl in the worker", ("no_new_privs",)),
    Wall("a user of its own", "setresuid in the worker, where the node is root", _IDS,
         ("setuid-root", "seccomp-setuid-root")),
    Wall("the system call filter", "seccomp, on every thread", ("seccomp", "filters", "threads"),
         ("seccomp-*",)),
    Wall("Landlock", "the kernel: no file, no TCP, no signal out", (), ("landlock-*",)),
    Wall("files of the host", "nothing to import; filter and Landlock", ("filters",),
         ("landlock-open-read", "landlock-create-file", "seccomp-open", "seccomp-create-file"),
         ("import-path-open", "path-traversal")),
    Wall("namespaces", "unshare in the worker, where the kernel lets it", _SPACES, ("seccomp-unshare-user",)),
    Wall("kernel interfaces and devices", "nothing to import; the filter", ("filters",),
         ("seccomp-bpf", "seccomp-io-uring", "seccomp-perf-event", "seccomp-keyctl", "seccomp-userfaultfd",
          "seccomp-ioctl"), ("import-clock", "import-random", "import-poll")),
    Wall("the code that runs", "two readers of every module; no page is writable and executable",
         ("exe", "mappings", "writable_executable", "module_sha256"),
         ("seccomp-map-executable", "seccomp-make-executable", "seccomp-execve"),
         ("text-module", "feature-*", "out-of-bounds", "answer-outside")),
    Wall("the environment", "the worker is forked from a process that was started with none", ("environment",)),
    Wall("descriptors", f"the worker has {WORKER_FDS}, and the limit is {WORKER_FDS}", ("fds", "rlimits.nofile"),
         ("seccomp-read-other-descriptor", "seccomp-pass-descriptors")),
    Wall("other processes", "no process can be made; the filter", ("rlimits.nproc", "threads", "tracer"),
         ("seccomp-fork", "seccomp-clone", "seccomp-clone3", "seccomp-ptrace-parent", "seccomp-signal-parent"),
         ("import-exec", "import-proc-exec")),
    Wall("powers of operators", "the gateway: the agent's channel knows no such method; the kernel of authority",
         canaries=("operator-verbs", "verb-spellings", "sandbox-switch", "import-grant", "forged-*",
                   "borrowed-identity", "own-configuration", "wider-child", "log-tampering", "talked-round",
                   "session-games", "credential-theft", "resource-reach", "name-tricks", "doubled-keys"),
         otherwise=_GATEWAY),
)  # fmt: skip

_NETWORK: Final = ("network-*", "host-socket", "ledger-socket")
_PRIVILEGES: Final = ("setuid-*", "setgid-root", "setgroups", "setfsuid-root")
_KERNEL: Final = (
    "core-pattern", "modprobe-path", "binfmt-misc", "uevent-helper", "sysrq-trigger", "sysctl-write", "kernel-*",
    "sysfs-write", "cgroup-*", "device-*", "call-*",
)  # fmt: skip
_PROBED_KERNEL: Final = ("guard-bpf", "guard-perf-event", "guard-keyctl", "guard-io-uring", "guard-userfaultfd")
_PROBED_SPACES: Final = ("guard-setns", "guard-clone-user", "guard-unshare-user", "guard-clone3", "guard-chroot")
_PROBED_FILES: Final = (
    "guard-open-rootfs-write", "guard-open-by-handle", "guard-mount", "guard-remount", "guard-umount",
    "guard-open-tree", "guard-mount-setattr",
)  # fmt: skip
_PROBED_OTHERS: Final = ("guard-ptrace-parent", "guard-process-vm-*", "guard-pidfd-getfd")
_IN_GVISOR: Final = "inside gVisor: the guard sets it and reads it back before the release"
_CONSUMED: Final = "inside the guest: the guard tells the digests before the release"
_IN_GUEST: Final = "inside the guest: the guard sets it and reads it back before the release"


def _gateway_rows() -> tuple[Wall, ...]:
    """What no runtime enforces, since it is on the other side of the channel."""
    return (
        Wall("channel.max_message", "the gateway", canaries=("channel-flood",), otherwise=_GATEWAY),
        Wall("channel.max_messages_per_second", "the gateway", canaries=("channel-rate",), otherwise=_GATEWAY),
        Wall("powers of operators", "the gateway: the agent's channel knows no such method; the kernel of authority",
             canaries=("channel-operator", "channel-configuration", "channel-log"), otherwise=_GATEWAY),
    )  # fmt: skip


def _container(runtime: str) -> tuple[Wall, ...]:
    """The rows of a container. In gVisor only its own kernel's process is seen, not the agent's."""
    nested, bare = runtime == "gvisor", runtime == "bubblewrap"
    program = {"bubblewrap": "bwrap", "gvisor": "runsc"}.get(runtime, runtime)
    group = f"the cgroup that {program} makes"
    full = not nested and not bare  # with a writable /tmp
    hidden = "; /proc's dangerous parts are hidden" if full else "; gVisor's kernel has none" if nested else ""

    def limit(name: str) -> tuple[str, ...]:
        return () if nested else (f"rlimits.{name}",)

    def unseen(text: str) -> str:
        return text if nested else ""

    return (
        Wall("runtime.type", f"the node, which measured {program}'s binary", ("exe",) if nested else (),
             otherwise="" if nested else "the launch envelope in `started`, which the verifier makes again"),
        Wall("runtime.strict_security", "the profile's parser, which takes no other value", ("config_sha256",)),
        Wall("runtime.max_memory", "the kernel's limit of address space, an equal share for each process"
             if bare else group, limit("as") if bare else ("cgroup.memory",), (), ("limit-memory", "limit-raise")),
        Wall("runtime.max_cpu", "the kernel: pinned to so many processors" if bare else group,
             ("cpus",) if bare else ("cgroup.cpu",), (), ("limit-cpu",)),
        Wall("runtime.max_processes", "the kernel's limit, set by the guard" + ("" if bare else f"; {group}"),
             (*limit("nproc"), *(("processes.most",) if not nested else ()), *(("cgroup.pids",) if full else ())),
             (), ("limit-processes", "limit-raise"), unseen(_IN_GVISOR)),
        Wall("runtime.max_wall_clock", "the node, which kills the first process", otherwise=_EXITED),
        Wall("runtime.max_open_files", "the kernel's limit, set by the guard", limit("nofile"), (),
             ("limit-descriptors", "limit-raise"), unseen(_IN_GVISOR)),
        Wall("scratch.max_bytes", "the gateway's scratch tools; "
             + ("the size of /tmp, and of any file" if full else "nothing in the container is writable"),
             ("mounts", *limit("fsize")), (), ("limit-scratch",), _GATEWAY),
        Wall("scratch.max_files", "the gateway's scratch tools; "
             + ("the inodes of /tmp" if full else "nothing in the container is writable"),
             ("mounts",), (), ("limit-inodes",), _GATEWAY),
        *_gateway_rows(),
        Wall("the configuration consumed", "sealed memory files, hashed by the guard", ("config_sha256",
             "module_sha256"), (), ("file-sealed",)),
        Wall("no network", f"{program}: a network namespace without a way out; the filter: no socket",
             ("namespaces.net", *(() if nested else ("filters",))), ("guard-socket-*",), _NETWORK),
        Wall("no capabilities", f"{program}; the guard makes sure", _CAPABILITIES, ("guard-capability-raise",),
             ("capability-*", "prctl-set-mm", "call-priority", "limit-locked-memory")),
        Wall("no new privileges", f"{program}; the guard sets it again", ("no_new_privs",), (),
             ("no-new-privs-off", "setuid-file", "file-chmod")),
        Wall("a user of its own", "setpriv, where the node is root" if bare else f"{program}", _IDS,
             ("guard-setuid-root", "guard-setgid-root"), _PRIVILEGES),
        Wall("the system call filter", "seccomp, installed by the guard"
             + ("; outside it gVisor's own, read and held against the first look" if nested else ""),
             ("seccomp",) if nested else ("seccomp", "filters", "threads"), ("guard-*",),
             ("seccomp-off", "personality", "call-*")),
        Wall("Landlock", "gVisor's kernel has none" if nested else "the kernel, at the guard's request", (),
             () if nested else ("landlock-*",), ("landlock-widen",),
             "nothing to see: the guard refuses to run without it wherever the kernel has it" if nested else ""),
        Wall("files of the host", f"{program}: the approved image, read-only, is the root",
             ("mounts", *(() if nested else ("rootfs_sha256",))), _PROBED_FILES,
             ("file-outside-tmp", "file-symlink", "file-replace-guard", "mount-*")),
        Wall("namespaces", f"{program}; the filter: no new ones", _SPACES, _PROBED_SPACES, ("namespace-*",)),
        Wall("kernel interfaces and devices", f"{program}: {len(DEVICES)} devices without state; the filter{hidden}",
             ("mounts", *(("masks",) if full else ())), _PROBED_KERNEL, _KERNEL),
        Wall("the code that runs", "the image's digest; no page is writable and executable",
             ("exe", "foreign", "writable_executable"), (), ("runtime-overwrite", "call-writable-code",
             "call-memory-program", "call-null-page", "process-own-memory")),
        Wall("the environment", "the guard hands on the approved variables", ("environment",), (), (),
             unseen("inside gVisor: the plan, whose digest the envelope holds; outside gVisor's own alone is seen")),
        Wall("descriptors", "the guard: six, and closes what the agent doesn't need", () if nested else ("fds",), (),
             ("descriptor-leak", "process-descriptor"),
             unseen("inside gVisor: the guard refuses any other before the release")),
        Wall("other processes", f"{program}: a pid namespace; the filter", ("tracer", "namespaces.pid"
             if not nested else "processes.most"), _PROBED_OTHERS, ("process-*",)),
    )  # fmt: skip


def _machine(runtime: str) -> tuple[Wall, ...]:
    """The rows of a virtual machine: what holds the guest from outside, and what the guard holds inside."""
    qemu = runtime == "qemu-microvm"
    program = "QEMU" if qemu else "Firecracker"
    wall = "the wall in front of QEMU" if qemu else "Firecracker's jailer"
    told = ("files.settings",) if qemu else ()
    asked = "" if qemu else "the requests in the launch envelope, which the verifier makes again"
    ram = ("files.initrd",) if qemu else ()
    return (
        Wall("runtime.type", f"the node, which measured {program}'s binary", ("exe",)),
        Wall("runtime.strict_security", "the profile's parser, which takes no other value", ram, otherwise=_CONSUMED),
        Wall("runtime.max_memory", f"the machine's memory; {program}'s cgroup", (*told, "cgroup.memory"), (),
             ("limit-memory", "limit-raise"), asked),
        Wall("runtime.max_cpu", f"the machine's processors; {program}'s cgroup"
             + (", or for an ordinary user pinned to processors" if qemu else ""),
             (*told, "cgroup.cpu", *(("cpus",) if qemu else ())), (), ("limit-cpu",), asked),
        Wall("runtime.max_processes", "the guest kernel's limit, set by the guard", (), (),
             ("limit-processes", "limit-raise"), _IN_GUEST),
        Wall("runtime.max_wall_clock", "the node, which kills the machine", otherwise=_EXITED),
        Wall("runtime.max_open_files", "the guest kernel's limit, set by the guard", (), (),
             ("limit-descriptors", "limit-raise"), _IN_GUEST),
        Wall("scratch.max_bytes", "the gateway's scratch tools; the size of /tmp in the guest", ram, (),
             ("limit-scratch",), _GATEWAY),
        Wall("scratch.max_files", "the gateway's scratch tools; the inodes of /tmp in the guest", ram, (),
             ("limit-inodes",), _GATEWAY),
        *_gateway_rows(),
        Wall("the configuration consumed", "files of the measured RAM disk, hashed by the guard",
             ram, (), ("file-sealed",), _CONSUMED),
        Wall("no network", f"the machine has no such device; {program} is in a network namespace of its own",
             ("namespaces.net", *told), ("guard-socket-*",), _NETWORK, asked),
        Wall("no capabilities", f"{wall}, for {program}; the guard, for the agent", ("caps.eff", "caps.prm"),
             ("guard-capability-raise",), ("capability-*", "prctl-set-mm", "call-priority", "limit-locked-memory")),
        Wall("no new privileges", f"{wall}, for {program}; the guard, for the agent" if qemu else
             "Firecracker's own filter sets it; the guard, for the agent", ("no_new_privs",), (),
             ("no-new-privs-off", "setuid-file", "file-chmod")),
        Wall("a user of its own", f"{wall}; in the guest another", ("uid", "gid", *(("groups",) if qemu else ())),
             ("guard-setuid-root", "guard-setgid-root"), _PRIVILEGES),
        Wall("the system call filter", f"{program}'s own, for {program}"
             + (", read and held against the first look" if qemu else "") + "; ours, for the agent",
             ("seccomp", "threads"), ("guard-*",), ("seccomp-off", "personality", "call-*")),
        Wall("Landlock", "the guest's kernel" + ("; for QEMU the host's" if qemu else ""), (), ("landlock-*",),
             ("landlock-widen",)),
        Wall("files of the host", f"the machine has no disk; {wall} gives {program} a root of its own",
             ("mounts", *ram) if qemu else (), _PROBED_FILES,
             ("file-outside-tmp", "file-symlink", "file-replace-guard", "mount-*"), asked),
        Wall("namespaces", f"{wall}, for {program}; the filter in the guest", _SPACES, _PROBED_SPACES,
             ("namespace-*",)),
        Wall("kernel interfaces and devices", "the guest's own kernel; the filter", ("files.kernel",) if qemu else (),
             _PROBED_KERNEL, _KERNEL),
        Wall("the code that runs", f"the image's digest in the RAM disk; {program}'s measured binary",
             ("exe", "mappings", *ram), (), ("runtime-overwrite", "call-writable-code", "call-memory-program",
             "call-null-page", "process-own-memory")),
        Wall("the environment", f"{f'{program} has none' if qemu else wall}; the guard hands on the approved variables",
             ("environment",) if qemu else (), (), (), "inside the guest: the plan, whose digest the envelope holds"),
        Wall("descriptors", "the node" if qemu else wall, ("fds",) if qemu else ("rlimits.nofile",), (),
             ("descriptor-leak", "process-descriptor")),
        Wall("other processes", f"a kernel of its own; {program} is one process", ("tracer", "processes.count"),
             _PROBED_OTHERS, ("process-*",)),
    )  # fmt: skip


_CALLED: Final = ("core/container.py", "node/native/container.py")
_GUARD: Final = ("node/native/guard/guard.c", "node/native/guard/walls.h")
_STORE: Final = ("node/sandbox/engine.py",)
_LOCKDOWN: Final = ("node/sandbox/lockdown.py", "node/sandbox/worker.py")
_MACHINE: Final = ("node/microvm/VMM.py",)
_SCRATCH: Final = ("gateway/providers/scratch.py",)
_CODE: Final[Mapping[str, tuple[str, ...]]] = {
    "runtime.type": ("core/profile.py", "node/runtime.py"),
    "runtime.strict_security": ("core/profile.py",),
    "channel.max_message": ("gateway/mcp.py",),
    "channel.max_messages_per_second": ("gateway/mcp.py",),
    "scratch.max_bytes": _SCRATCH,
    "scratch.max_files": _SCRATCH,
    "powers of operators": ("gateway/mcp.py", "core/authority.py", "core/giving.py", "core/using.py"),
}
"""What enforces a row in every runtime, unless it is said below what does so in a family."""

_CODE_WASM: Final[Mapping[str, tuple[str, ...]]] = {
    "runtime.disallowed_imports": (*_STORE, "core/wasm.py"),
    "runtime.max_module_size": _STORE,
    "runtime.max_wall_clock": (*_STORE, "node/sandbox/launcher.py"),
    "runtime.max_stack": (*_STORE, "core/limits.py", "node/sandbox/lockdown.py"),
    **dict.fromkeys(
        (f"runtime.max_{name}" for name in ("memory", "fuel", "instances", "tables", "table_elements")), _STORE
    ),
    "the configuration consumed": ("node/sandbox/memfd.py", "node/sandbox/worker.py"),
    "the system call filter": ("core/seccomp.py", *_LOCKDOWN),
    "the code that runs": ("core/wasm.py", *_LOCKDOWN),
    "the environment": ("node/sandbox/launcher.py",),
    **dict.fromkeys(
        ("no network", "no capabilities", "no new privileges", "a user of its own", "Landlock", "files of the host",
         "namespaces", "kernel interfaces and devices", "descriptors", "other processes"), _LOCKDOWN
    ),
}  # fmt: skip
_CODE_NATIVE: Final[Mapping[str, tuple[str, ...]]] = {
    "runtime.max_wall_clock": ("node/native/cell.py",),
    **dict.fromkeys(("scratch.max_bytes", "scratch.max_files"), (*_SCRATCH, *_CALLED, *_GUARD)),
    "the configuration consumed": ("node/sandbox/memfd.py", *_GUARD),
    "the system call filter": ("core/seccomp.py", *_GUARD),
    "the code that runs": ("wire/images.py", *_GUARD),
    "the environment": ("core/native.py", *_GUARD),
    **dict.fromkeys(
        ("no new privileges", "no capabilities", "descriptors", "runtime.max_processes", "runtime.max_open_files",
         "a user of its own"), (*_CALLED, *_GUARD)
    ),
    "Landlock": _GUARD,
    "runtime.max_memory": (*_CALLED, *_GUARD),
    **dict.fromkeys(("runtime.max_cpu", "files of the host"), _CALLED),
    **dict.fromkeys(
        ("no network", "namespaces", "kernel interfaces and devices", "other processes"),
        (*_CALLED, "core/seccomp.py", *_GUARD)
    ),
}  # fmt: skip
_CODE_MICROVM: Final[Mapping[str, tuple[str, ...]]] = {
    "runtime.max_wall_clock": ("node/microvm/machine.py",),
    **dict.fromkeys(("scratch.max_bytes", "scratch.max_files"), (*_SCRATCH, "node/microvm/init/place.h", *_GUARD)),
    "the configuration consumed": ("core/initrd.py", *_GUARD),
    "the system call filter": ("core/seccomp.py", *_GUARD),
    "the code that runs": ("core/initrd.py", *_GUARD),
    "the environment": ("node/processes.py", "core/native.py", *_GUARD),
    **dict.fromkeys(("runtime.max_processes", "runtime.max_open_files"), _GUARD),
    **dict.fromkeys(
        ("no new privileges", "no capabilities", "a user of its own", "Landlock", "descriptors"), (*_MACHINE, *_GUARD)
    ),
    **dict.fromkeys(("runtime.max_memory", "runtime.max_cpu", "files of the host"), _MACHINE),
    **dict.fromkeys(
        ("no network", "namespaces", "kernel interfaces and devices", "other processes"),
        (*_MACHINE, "core/seccomp.py", *_GUARD)
    ),
}  # fmt: skip


_SECCOMP: Final = "seccomp(2)"
_LANDLOCK: Final = "landlock(7)"
_CAPS: Final = "capabilities(7)"
_NNP: Final = "PR_SET_NO_NEW_PRIVS, prctl(2)"
_SEALS: Final = "sealed memory files, memfd_create(2)"
_NAMESPACES: Final = "namespaces(7)"
_MOUNTS: Final = "mount_namespaces(7), pivot_root(2)"
_CHANNEL: Final = "nothing behind it: the agent's one way out is a socket, unix(7)"
_USER_SPACE: Final = "none: it holds in user space"
_FEATURES: Final[Mapping[str, str]] = {
    "runtime.type": _USER_SPACE,
    "runtime.strict_security": _USER_SPACE,
    "channel.max_message": _CHANNEL,
    "channel.max_messages_per_second": _CHANNEL,
    "powers of operators": _CHANNEL,
}
"""The kernel's feature behind a row in every runtime, and below it in a family: its page in the manual."""

_FEATURES_WASM: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("runtime.disallowed_imports", "runtime.max_memory", "runtime.max_fuel", "runtime.max_instances",
         "runtime.max_tables", "runtime.max_table_elements", "runtime.max_module_size", "scratch.max_bytes",
         "scratch.max_files"), _USER_SPACE
    ),
    "runtime.max_wall_clock": "SIGKILL through a pidfd, pidfd_open(2), some seconds behind it",
    "runtime.max_stack": "RLIMIT_STACK, setrlimit(2), behind it",
    "the configuration consumed": _SEALS,
    "no network": f"{_SECCOMP}, {_LANDLOCK}, network_namespaces(7)",
    "no capabilities": _CAPS,
    "no new privileges": _NNP,
    "a user of its own": "setresuid(2), setgroups(2)",
    "the system call filter": _SECCOMP,
    "Landlock": _LANDLOCK,
    "files of the host": f"{_SECCOMP}, {_LANDLOCK}",
    "namespaces": _NAMESPACES,
    "kernel interfaces and devices": _SECCOMP,
    "the code that runs": f"{_SECCOMP}: no page is made executable",
    "the environment": "execve(2) with no variables",
    "descriptors": "close_range(2); RLIMIT_NOFILE, setrlimit(2)",
    "other processes": f"{_SECCOMP}; RLIMIT_NPROC, setrlimit(2)",
}  # fmt: skip
_FEATURES_NATIVE: Final[Mapping[str, str]] = {
    "runtime.max_memory": "memory controller, cgroups(7)",
    "runtime.max_cpu": "cpu controller, cgroups(7)",
    "runtime.max_processes": "RLIMIT_NPROC, prlimit(2); pids controller, cgroups(7)",
    "runtime.max_wall_clock": "SIGKILL through a pidfd, pidfd_open(2)",
    "runtime.max_open_files": "RLIMIT_NOFILE, prlimit(2)",
    "scratch.max_bytes": "size= of tmpfs(5); RLIMIT_FSIZE, prlimit(2)",
    "scratch.max_files": "nr_inodes= of tmpfs(5)",
    "the configuration consumed": _SEALS,
    "no network": f"network_namespaces(7), {_SECCOMP}",
    "no capabilities": _CAPS,
    "no new privileges": _NNP,
    "a user of its own": "setresuid(2), setgroups(2)",
    "the system call filter": _SECCOMP,
    "Landlock": _LANDLOCK,
    "files of the host": _MOUNTS,
    "namespaces": f"{_NAMESPACES}, {_SECCOMP}",
    "kernel interfaces and devices": f"{_SECCOMP}, mount_namespaces(7)",
    "the code that runs": f"read-only mounts; {_SECCOMP}: no page is writable and executable",
    "the environment": "execve(2) with the approved variables",
    "descriptors": "close_range(2)",
    "other processes": f"pid_namespaces(7), {_SECCOMP}",
}
_FEATURES_OF: Final[Mapping[str, Mapping[str, str]]] = {
    "bubblewrap": {
        "runtime.max_memory": "RLIMIT_AS, prlimit(2)",
        "runtime.max_cpu": "sched_setaffinity(2)",
        "runtime.max_processes": "RLIMIT_NPROC, prlimit(2)",
        "scratch.max_bytes": "read-only mounts, mount_namespaces(7)",
        "scratch.max_files": "read-only mounts, mount_namespaces(7)",
    },
    "gvisor": {
        "runtime.max_processes": "gVisor's: RLIMIT_NPROC, prlimit(2); the host's: pids controller, cgroups(7)",
        "runtime.max_open_files": "gVisor's: RLIMIT_NOFILE, prlimit(2)",
        "the code that runs": "gVisor's: read-only mounts; seccomp(2): no page is writable and executable",
        "the environment": "gVisor's: execve(2) with the approved variables",
        "descriptors": "gVisor's: close_range(2)",
        "scratch.max_bytes": "read-only mounts of gVisor's kernel",
        "scratch.max_files": "read-only mounts of gVisor's kernel",
        "Landlock": "none: gVisor's kernel has no Landlock",
    },
}
"""Where a runtime's differs from its family's."""


def kernel(runtime: str, name: str) -> str:
    """The feature of a kernel that holds an agent to one row, as Linux's manual names it. KeyError for no such row.

    In gVisor what is set inside, and in a virtual machine all but the machine's own, is that of the kernel in there.
    """
    family = RUNTIMES[runtime]
    found = _FEATURES.get(name) or _FEATURES_OF.get(runtime, {}).get(name)
    if found is None:
        found = (_FEATURES_WASM if family not in (NATIVE, MICROVM) else _FEATURES_NATIVE)[name]
    if name in _FEATURES or family not in (NATIVE, MICROVM):
        return found
    if family == MICROVM:
        return _FEATURES_MICROVM.get(name, f"the guest's: {found}")
    return f"gVisor's, and behind it the host's: {found}" if runtime == "gvisor" and name in _TWICE else found


_TWICE: Final = frozenset(
    ("no new privileges", "no capabilities", "a user of its own", "the system call filter", "files of the host",
     "namespaces", "kernel interfaces and devices", "other processes", "no network")
)  # fmt: skip
"""What holds gVisor's own process on the host as it holds the agent inside."""
_FEATURES_MICROVM: Final[Mapping[str, str]] = {
    "runtime.max_memory": "the machine's memory; memory controller, cgroups(7)",
    "runtime.max_cpu": "the machine's processors; cpu controller, cgroups(7)",
    "runtime.max_processes": "the guest's: RLIMIT_NPROC, prlimit(2)",
    "runtime.max_wall_clock": "SIGKILL through a pidfd, pidfd_open(2)",
    "the configuration consumed": "the machine's RAM disk, measured",
    "no network": f"no such device in the machine; network_namespaces(7); the guest's: {_SECCOMP}",
    "files of the host": f"no disk in the machine; {_MOUNTS}",
    "namespaces": f"{_NAMESPACES}; the guest's: {_SECCOMP}",
    "other processes": f"a kernel of its own, by KVM or emulated; the guest's: {_SECCOMP}",
}

_SERVED: Final[Mapping[str, tuple[str, ...]]] = {
    "runtime.type": ("CM-6", "SC-39"),
    "runtime.strict_security": ("CM-6", "SC-39"),
    "runtime.max_wall_clock": ("CM-7(6)", "SC-24"),
    "runtime.max_module_size": ("SC-39", "SI-10"),
    "channel.max_messages_per_second": ("SI-10",),
    "scratch.max_bytes": ("CM-7(6)",),
    "scratch.max_files": ("CM-7(6)",),
    "no capabilities": ("AC-6(8)", "CM-7(6)"),
    "no new privileges": ("AC-6(8)", "CM-7(6)"),
    "a user of its own": ("AC-6(8)", "SC-39"),
    "the system call filter": ("CM-7(6)", "SC-39"),
    "Landlock": ("CM-7(6)", "SC-39"),
    "namespaces": ("CM-7(6)", "SC-39"),
    "the environment": ("CM-7(6)", "SC-39"),
    "descriptors": ("CM-7(6)", "SC-39"),
}
"""What a row serves of NIST SP 800-53 rev 5 where no canary says it."""


def served(wall: Wall) -> tuple[str, ...]:
    """The controls that a row without canaries serves: by posture, probes inside or a word, so with less evidence."""
    return () if wall.canaries else _SERVED[wall.name]


def walls(runtime: str) -> tuple[Wall, ...]:
    """The rows of a runtime: its settings in the profile's order, then what is always on. KeyError for no runtime."""
    rows = {NATIVE: _container, MICROVM: _machine}.get(RUNTIMES[runtime], lambda _: _WASM)(runtime)
    by_name = {one.name: one for one in rows}
    return tuple(by_name[name] for name in (*keys_of(runtime), *ALWAYS))


def code(runtime: str, name: str) -> tuple[str, ...]:
    """The source files, below the package, that hold an agent to one row. KeyError if there is no such row."""
    family = {NATIVE: _CODE_NATIVE, MICROVM: _CODE_MICROVM}.get(RUNTIMES[runtime], _CODE_WASM)
    files = family[name] if name in family else _CODE[name]
    wall = ("node/microvm/wall.py",) if runtime == "qemu-microvm" and files[:1] == _MACHINE else ()
    return (*(file.replace("VMM", runtime.removesuffix("-microvm")) for file in files), *wall)


def matches(pattern: str, name: str) -> bool:
    """Whether a row's name of a probe or canary means this one (Rule 3)."""
    return name.startswith(pattern[:-1]) if pattern.endswith("-*") else name == pattern
