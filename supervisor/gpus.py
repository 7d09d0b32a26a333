"""Which GPUs of the host are whose. The books are pure; `host_gpus` looks once, at the start."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Mapping

GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
_TIMEOUT_S = 30.0
"""The driver may have to wake every device first."""
_LISTED = re.compile(r"^\s*(?P<kind>GPU|MIG).*\(UUID: (?P<uuid>[^)]+)\)\s*$")


class NoGpusError(OSError):
    """Fewer are free than are needed."""

    def __init__(self, wanted: int, free: int, total: int) -> None:
        super().__init__(f"needs {wanted} GPUs; {free} of this host's {total} are free")


class Gpus:
    """The books: every device belongs to one owner or to nobody.

    A device comes back only by `free`, which is called when the exit of its owner's process is
    confirmed: until then its memory is not free, whatever the owner was told.
    """

    def __init__(self, devices: tuple[str, ...] = ()) -> None:
        """`devices`: as CUDA_VISIBLE_DEVICES names them, each once."""
        self.devices = devices
        self._owners: dict[str, str] = {}
        """By device."""
        self._last: dict[str, str] = {}
        """By device: who had it last, and gets it again if it is free."""

    def grant(self, owner: str, count: int) -> tuple[str, ...]:
        """Give an owner that has none `count` devices, in the host's order; those it had before
        first, as what it has compiled or cached may be tied to them.

        Raises NoGpusError; then it has none.
        """
        assert owner not in self._owners.values(), f"{owner} has its GPUs already"
        free = [device for device in self.devices if device not in self._owners]
        if len(free) < count:
            raise NoGpusError(count, len(free), len(self.devices))

        def rank(device: str) -> int:
            last = self._last.get(device)
            return 0 if last == owner else 1 if last is None else 2

        chosen = set(sorted(free, key=rank)[:count])
        granted = tuple(device for device in self.devices if device in chosen)
        self._owners |= dict.fromkeys(granted, owner)
        self._last |= dict.fromkeys(granted, owner)
        return granted

    def keep(self, owner: str, devices: Collection[str]) -> None:
        """An owner that was taken over has these already; those not of this host are no matter."""
        kept = [device for device in self.devices if device in devices]
        assert not self._owners.keys() & kept, "no device has two owners"
        self._owners |= dict.fromkeys(kept, owner)
        self._last |= dict.fromkeys(kept, owner)

    def hand_over(self, owner: str, to: str) -> None:
        """What an owner has goes on with another, which has none: with its process, that is."""
        assert to not in self._owners.values(), f"{to} has its GPUs already"
        taken = self.of(owner)
        self._owners |= dict.fromkeys(taken, to)
        self._last |= dict.fromkeys(taken, to)

    def free(self, owner: str) -> None:
        """Take back all that an owner has; none is fine."""
        self._owners = {device: who for device, who in self._owners.items() if who != owner}

    def of(self, owner: str) -> tuple[str, ...]:
        """What an owner has."""
        return tuple(device for device in self.devices if self._owners.get(device) == owner)


def host_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What this supervisor may give away: what CUDA_VISIBLE_DEVICES leaves it, else what
    `nvidia-smi -L` lists; nothing where there is neither."""
    own = environ.get(GPU_VARIABLE)
    if own is not None:
        return parse_visible(own)
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_listing(done.stdout)


def parse_visible(text: str) -> tuple[str, ...]:
    """The devices that CUDA_VISIBLE_DEVICES names. As in CUDA, the list ends at a negative one."""
    devices: list[str] = []
    for part in text.split(","):
        device = part.strip()
        if not device or device.startswith("-") or device in devices:
            break
        devices.append(device)
    return tuple(devices)


def parse_listing(text: str) -> tuple[str, ...]:
    """The UUIDs in what `nvidia-smi -L` prints: an index means another device to CUDA than to
    the driver's tools. A GPU that is divided (MIG) stands for its parts."""
    devices: list[str] = []
    divided: set[str] = set()
    gpu = ""
    for line in text.splitlines():
        matched = _LISTED.match(line)
        if matched is None:
            continue
        if matched["kind"] == "GPU":
            gpu = matched["uuid"]
        else:
            divided.add(gpu)
        devices.append(matched["uuid"])
    return tuple(device for device in devices if device not in divided)
