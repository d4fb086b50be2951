"""Let torch be imported in a process that draws with Mesa's software or AMD drivers.

Triton, which torch's CUDA packages bring along and import, holds its own LLVM; loaded after
Mesa's LLVM it crashes the process (seen with Triton 3 and LLVM 15). Nothing here compiles
kernels, so in such a process, and only there, torch is told that there is no Triton.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path


def shield_torch() -> None:
    """Make the import of torch safe; call it before the first one in a thread of the window."""
    if "triton" not in sys.modules and _llvm_is_loaded():
        # Torch would say in the terminal that it misses Triton for counting operations.
        logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
        sys.modules["triton"] = None  # type: ignore[assignment]  # `import triton` then fails


def _llvm_is_loaded() -> bool:
    """Whether this process has loaded an LLVM library; Triton is published for Linux only."""
    if sys.platform != "linux":
        return False
    return "libLLVM" in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
