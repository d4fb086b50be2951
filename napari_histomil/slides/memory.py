"""How much memory decoded pixels may take: a share of what the machine has."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

SHARE = 4
"""A quarter of the machine's memory ..."""

MOST_BYTES = 2 << 30
"""... but never more than this: a screen's tiles are a hundredth of it."""

LEAST_BYTES = 64 << 20
"""Less than this would not hold the tiles of one large screen and its neighbourhood."""

ASSUMED_BYTES = 4 << 30
"""What a machine is taken to have that does not say."""

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where a container's limit stands, in the second and the first version of cgroups."""


def automatic_budget_bytes() -> int:
    """Return the bytes that decoded pixels may take where nobody has said otherwise."""
    return max(min(machine_memory_bytes() // SHARE, MOST_BYTES), LEAST_BYTES)


def machine_memory_bytes() -> int:
    """Return the memory of this machine, or of the container that the program runs in."""
    physical = _physical_bytes()
    limits = [physical] if physical > 0 else [ASSUMED_BYTES]
    for file in _CGROUP_LIMITS:
        try:
            limits.append(int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no container, or one without a limit ("max")
            continue
    return min(limit for limit in limits if limit > 0)


def _physical_bytes() -> int:
    """Return the physical memory; 0 where the system does not say."""
    if sys.platform == "win32":
        return _windows_bytes()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _windows_bytes() -> int:
    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", *"abcde")),
        )

    status = Status()
    status.length = ctypes.sizeof(Status)
    kernel: object = getattr(ctypes, "windll", None)  # exists on Windows only
    call = getattr(getattr(kernel, "kernel32", None), "GlobalMemoryStatusEx", None)
    if call is None or not call(ctypes.byref(status)):
        return 0
    return int(status.total)
