"""How much memory a device has."""

from __future__ import annotations

import math
import os

import torch


def total_memory(device: torch.device) -> float:
    """Bytes of memory in a device, on the CPU of the whole machine; infinite where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu" and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return math.inf
