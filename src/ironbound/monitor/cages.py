"""What a started launch has to look like, and a sample of how it looks: for every runtime, one way.

Decides which kind of sample a launch takes, and derives its expected posture from the approved configuration and
manifest; the node's word gives only the host's facts. What a difference is worth, `watch` decides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ironbound.core.cage import expected_cage
from ironbound.core.canonical import Digest, FormatError, Value
from ironbound.core.jailed import limits_of_process
from ironbound.core.microvm import DESCRIPTORS, FIRECRACKER, qemu_limits
from ironbound.core.native import parse_manifest, variables
from ironbound.core.own_filters import READ
from ironbound.core.posture import NO_CAPABILITIES, Difference
from ironbound.core.profile import MICROVM, NATIVE, WASM, family_of, parse_configuration
from ironbound.core.tree import File
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.images import Images

from .container import Approved, limit_files, observe_container
from .enclosure import observe_enclosure
from .files import Files
from .observe import Baseline, observe


def own_bounding() -> str:
    """The bounding set that an ordinary user's processes share, 16 hexadecimal digits."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(line.split()[1] for line in file if line.startswith("CapBnd:"))


def zygote_of(host: Mapping[str, Any]) -> tuple[int, int] | None:
    """The node's zygote, by pid and start, as the node says it; None where it says none, so that all is stray."""
    try:
        measured = host["runtimes"]["wasmtime"]
        named = measured["zygote_pid"], measured["zygote_start"]
    except (KeyError, TypeError):
        return None
    return named if all(type(one) is int and one > 0 for one in named) else None


class Cages:
    """The sandboxes of one deployment. `host` is what the node said of its runtimes when it started."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._images = Images(deployment)
        self._baseline = Baseline.of_self()
        self.files = Files(self._images, self._baseline)
        self._configs: dict[str, dict[str, Any]] = {}
        self._approved: dict[tuple[Digest, Digest], Approved] = {}
        self.host: Mapping[str, Any] = {}

    def _config(self, digest: str) -> dict[str, Any]:
        if digest not in self._configs:
            config: dict[str, Any] = parse_configuration(self._deployment.artifact(digest))
            self._configs[digest] = config
        return self._configs[digest]

    def expected(self, said: Mapping[str, Any], nonce: str | None) -> Value:
        """The posture that the approved configuration demands of a started launch on this host; `nonce`: a canary's.

        Raises DeploymentError, FormatError, and what a malformed statement of the node gives (KeyError, TypeError).
        """
        config = self._config(said["config_sha256"])
        separated = self._deployment.separated
        facts: dict[str, Any] = {
            "uid": said["uid"],
            "gid": said["uid"] if separated else os.getgid(),
            "module_sha256": said["module_sha256"],
            "config_sha256": said["config_sha256"],
            "filters_visible": separated,
            "groups": [] if separated else list(os.getgroups()),
        }
        runtime = self.host["runtimes"][config["runtime"]["type"]]
        if family_of(config) == NATIVE:
            return expected_cage(config, facts | self._container_facts(said, nonce, runtime))
        if family_of(config) == MICROVM:
            return expected_cage(config, facts | self._machine_facts(said, runtime))
        mapped = runtime["namespaces"]["user"] == "private"  # in a user namespace the set can be emptied
        bounding = NO_CAPABILITIES if separated or mapped else own_bounding()
        measured = {name: runtime[name] for name in ("exe", "mappings", "namespaces")}
        return expected_cage(config, facts | measured | {"bounding": bounding})

    def _container_facts(
        self, said: Mapping[str, Any], nonce: str | None, runtime: Mapping[str, Any]
    ) -> dict[str, Any]:
        approved = self._approval(said)
        manifest = parse_manifest(self._deployment.artifact(said["module_sha256"]))
        group = self._deployment.trust.control_group
        return {
            "guard": runtime["guard_sha256"],
            "runtime_sha256": runtime["sha256"],
            "rootfs_sha256": approved.rootfs,
            "cgroup": "" if approved.runtime == "bubblewrap" else f"{group}/{said['launch']}",
            "masks": runtime["masks"],
            "variables": [*variables(manifest, nonce)],
        }

    def _machine_facts(self, said: Mapping[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
        """The RAM disk's digest is the node's word, as it holds this launch's files; what the guard in it consumed,
        the guard tells."""
        group = self._deployment.trust.control_group
        if said["runtime"] == FIRECRACKER:
            return {"runtime_sha256": runtime["sha256"], "cgroup": f"{group}/{said['launch']}"}
        return {
            "runtime_sha256": runtime["sha256"],
            "accelerator": runtime["accelerator"],
            "libraries": runtime["libraries"],
            "system": runtime["system"],
            "kernel": runtime["kernel_sha256"],
            "firmware": runtime["firmware_sha256"],
            "initrd": said["envelope"]["fds"][str(DESCRIPTORS["initrd"])],
            "cgroup": f"{group}/{said['launch']}" if runtime["grouped"] else "",
            "separated": self._deployment.separated,
        }

    def _approval(self, said: Mapping[str, Any]) -> Approved:
        key = (said["config_sha256"], said["module_sha256"])
        if key not in self._approved:
            config = self._config(key[0])
            rootfs = parse_manifest(self._deployment.artifact(key[1])).rootfs
            listing = self._images.entries(rootfs)
            files = frozenset(one.sha256 for one in listing if isinstance(one, File))
            self._approved[key] = Approved(config, rootfs, self._images.path(rootfs), files)
        return self._approved[key]

    def may_be_native(self, config: str) -> bool:
        """The same of a launch that may have no configuration that can be read: then it has no sandbox either."""
        try:
            return family_of(self._config(config)) == NATIVE
        except (DeploymentError, FormatError):
            return False

    def is_native(self, said: Mapping[str, Any]) -> bool:
        """Whether a launch may have more than one process. Raises DeploymentError, FormatError."""
        return family_of(self._config(said["config_sha256"])) == NATIVE

    def limit_files(self, said: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Where the limits of a container's control group stand, or a hypervisor's; None for a Wasm worker. Raises as
        `is_native`."""
        family = family_of(self._config(said["config_sha256"]))
        if family not in (NATIVE, MICROVM):
            return None
        if family == MICROVM and not self.host["runtimes"][said["runtime"]]["grouped"]:
            return ()
        if said["runtime"] == "bubblewrap":
            return ()
        return limit_files(f"{self._deployment.trust.control_group}/{said['launch']}".removeprefix("/"))

    def use_files(self, launch: int, said: Mapping[str, Any], sample: Value) -> list[Difference]:
        """Name the files that a started launch runs from; the differences are those that changed already."""
        if not isinstance(sample, dict):
            return []
        family = family_of(self._config(said["config_sha256"]))
        if family in (NATIVE, MICROVM):
            runtime = self.host["runtimes"][said["runtime"]]
            self.files.use(launch, runtime["binary"], runtime["sha256"])
        if family == NATIVE:  # a virtual machine's image is in a sealed memory file
            for path, digest in runtime["libraries"].items():
                self.files.use(launch, path, digest)
            self.files.use_image(launch, self._approval(said).rootfs)
        mapped = sample.get("mappings")
        if family != WASM or not isinstance(mapped, list):
            return []
        return self.files.use_mapped(launch, said["pid"], frozenset(str(one) for one in mapped))

    def sample(self, said: Mapping[str, Any], *, running: bool, filters: bool) -> Value:
        """How the launch's process looks now; `filters`: the installed ones too, for which each thread is stopped.

        Raises ProcessGone, and as `expected` does.
        """
        config = self._config(said["config_sha256"])
        if family_of(config) == MICROVM:
            limits = limits_of_process() if said["runtime"] == FIRECRACKER else qemu_limits(config)
            read = filters and said["runtime"] in READ
            return observe_enclosure(said["pid"], said["pid_start"], self._baseline, tuple(limits), filters=read)
        if not self.is_native(said):
            return observe(said["pid"], said["pid_start"], self._baseline, filters=filters)
        return observe_container(
            said["pid"],
            said["pid_start"],
            self._baseline,
            self._approval(said),
            self.host["runtimes"][said["runtime"]]["sha256"],
            filters=filters,
            running=running,
        )
