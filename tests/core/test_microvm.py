"""What hypervisors are told: no network, no disk, everything by descriptor, whatever the profile says."""

from __future__ import annotations

import configparser
from typing import Any

import pytest

from ironbound.core import microvm
from ironbound.core.canonical import FormatError
from ironbound.core.microvm import DESCRIPTORS, PORTS


def config(runtime: str = "qemu-microvm", **limits: int) -> dict[str, Any]:
    values = {"max_memory": 128, "max_cpu": 100, "max_processes": 8, "max_open_files": 64, "max_wall_clock": 10}
    return {
        "runtime": {"type": runtime, **values, **limits},
        "scratch": {"max_bytes": 4096, "max_files": 3},
    }


def settings(data: bytes) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(data.decode())
    return {title: {key: value.strip('"') for key, value in parser[title].items()} for title in parser.sections()}


def test_a_machine_has_memory_processors_and_its_ports_and_no_other_device() -> None:
    found = settings(microvm.qemu_settings(config(max_memory=200, max_cpu=250), "tcg"))
    drivers = [value["driver"] for title, value in found.items() if title.startswith("device")]
    assert drivers == ["virtio-serial-device", *["virtserialport"] * 3]
    assert found["memory"] == {"size": "200M"} and found["smp-opts"] == {"cpus": "3"}
    assert not {title.split()[0] for title in found} - {"machine", "memory", "smp-opts", "chardev", "device"}
    assert {"-nodefaults", "-no-user-config"} < set(microvm.qemu_argv("tcg"))


def test_all_that_qemu_reads_and_speaks_on_is_a_descriptor() -> None:
    found = settings(microvm.qemu_settings(config(), "kvm"))
    machine = found["machine"]
    for name in ("kernel", "initrd", "firmware"):
        assert machine[name] == f"/proc/self/fd/{DESCRIPTORS[name]}"
    for name in (*PORTS, "console"):
        assert found[f'chardev "{name}"'] == {"backend": "socket", "fd": str(DESCRIPTORS[name])}
    argv = microvm.qemu_argv("kvm")
    assert argv[argv.index("-readconfig") + 1] == f"/proc/self/fd/{DESCRIPTORS['settings']}"
    assert sorted(DESCRIPTORS.values()) == list(range(3, 11))


def test_qemu_may_not_start_programs_gain_privilege_or_manage_resources() -> None:
    for accelerator in microvm.ACCELERATORS:
        argv = microvm.qemu_argv(accelerator)
        said = argv[argv.index("-sandbox") + 1]
        assert said == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def test_an_accelerator_that_is_none_is_refused() -> None:
    with pytest.raises(FormatError, match="accelerator"):
        microvm.qemu_settings(config(), "hax")


def test_the_profile_reaches_the_kernels_arguments_nowhere() -> None:
    assert microvm.kernel_arguments("qemu-microvm") == (
        "console=ttyS0 reboot=t panic=-1 quiet no_timer_check lpj=5200000 tsc_early_khz=2600000 "
        "rdinit=/.ironbound-vm/init"
    )
    assert microvm.kernel_arguments("firecracker") == "console=ttyS0 reboot=t panic=-1 quiet rdinit=/.ironbound-vm/init"


def test_the_guests_order_names_its_ports_an_ordinary_user_and_the_scratch_limits() -> None:
    assert microvm.order(config()) == b"ironbound-vm/v1\nports virtio\nuser 65534 65534\ntmp 4096 3\n"
    assert b"\nports vsock\n" in microvm.order(config("firecracker"))


@pytest.mark.parametrize(("image", "least"), [(0, 96), (1, 98), (10 << 20, 116)])
def test_less_memory_than_kernel_and_image_need_is_refused_by_name(image: int, least: int) -> None:
    assert microvm.unenforced(config(max_memory=least), image) is None
    refusal = microvm.unenforced(config(max_memory=least - 1), image)
    assert refusal is not None and refusal.startswith("runtime.max_memory: ") and str(least) in refusal


def test_the_hypervisor_itself_is_held_to_the_profiles_limits_and_a_fixed_share_for_itself() -> None:
    one = microvm.group_limits(config(max_memory=128, max_cpu=150))
    assert one == {"memory": (128 + 256) << 20, "cpu": 150, "pids": 18}
    limits = microvm.qemu_limits(config(max_cpu=150))
    assert limits["fsize"] == limits["core"] == limits["memlock"] == limits["msgqueue"] == 0 and limits["nproc"] == 18


def test_our_own_files_are_readable_by_the_first_process_alone_and_in_the_order_of_loading() -> None:
    files = microvm.own_files(
        config(), encoded=b"{}", module=b"m", plan=b"p", init=b"i", modules=(b"1", b"2", b"3", b"4")
    )
    assert [name for name, _, _ in files] == [
        "init", "order", "config", "module", "plan", "module-1", "module-2", "module-3", "module-4",
    ]  # fmt: skip
    assert all(mode & 0o077 == 0 for _, mode, _ in files)


def test_another_number_of_modules_than_the_machine_needs_is_refused() -> None:
    with pytest.raises(FormatError, match="modules"):
        microvm.own_files(config(), encoded=b"{}", module=b"m", plan=b"p", init=b"i", modules=(b"1",))
