"""The most memory that this process has had."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_bytes() -> int:
    """Return the most memory that this process has had, in bytes."""
    if sys.platform == "win32":
        import psutil  # comes with napari

        return int(psutil.Process().memory_info().peak_wset)
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` counts what the parent had before it became this process
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
