"""Which disk may be erased, judged by what `lsblk --json --bytes` says of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def card_refusal(device: dict[str, Any], *, size: int, allow_fixed_disk: bool = False) -> str:
    """Why `device`, one of lsblk's blockdevices, must not be overwritten with `size` bytes; nothing if it may be."""
    refusals = _refusals(device, size=size, allow_fixed_disk=allow_fixed_disk)
    return next((f"{device['path']} {refusal}" for refusal in refusals), "")


def _refusals(device: dict[str, Any], *, size: int, allow_fixed_disk: bool) -> Iterator[str]:
    if device["type"] != "disk":
        yield f"is no whole disk but of the type {device['type']}: give the disk"
    for node in _tree(device):
        if mounts := [mount for mount in node["mountpoints"] if mount]:
            yield f"is in use, {node['path']} as {', '.join(mounts)}: unmount it, or give another disk"
        if node is not device and node["type"] != "part":
            yield f"is in use, {node['path']} ({node['type']}) is on it: close that, or give another disk"
    if device["ro"]:
        yield "is write-protected: move the lock on the card or its adapter"
    if not device["size"]:
        yield "has no medium: put the card in"
    if device["size"] < size:
        yield f"holds {device['size']} bytes, the image has {size}: take a larger card"
    if not (device["rm"] or device["hotplug"] or device["tran"] in {"usb", "mmc"} or allow_fixed_disk):
        yield "is neither removable nor on USB or MMC: give a card, or flash_allow_fixed_disk=true if it is meant"


def _tree(device: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The device and all that is on it: partitions, and what is open in them (LUKS, LVM, RAID)."""
    yield device
    for child in device.get("children", []):
        yield from _tree(child)


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"card_refusal": card_refusal}
