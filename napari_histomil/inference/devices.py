"""Which device computes, what it is called, and whether it works; no models here."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch

from napari_histomil.errors import RunError
from napari_histomil.slides.threads import core_count

DEVICES = ("auto", "cuda", "mps", "cpu")


def resolve_device(device: str = "auto") -> torch.device:
    """Return the device of that name; ``auto`` is the first that works of cuda, mps, cpu.

    Raises
    ------
    RunError
        If there is no such device, or this machine has none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise RunError(
            f"There is no device {device!r}: choose one of {', '.join(DEVICES)}."
        ) from error
    count = {"cpu": 1, "mps": int(_has_mps()), "cuda": torch.cuda.device_count()}
    if (resolved.index or 0) >= count.get(resolved.type, 0):
        raise RunError(
            f"The device {device!r} is not available on this machine: choose 'auto' or 'cpu'."
        )
    return resolved


def describe_device(device: str = "auto") -> str:
    """Return a device's name and memory, e.g. ``AMD EPYC, 2 cores (cpu)``."""
    resolved = resolve_device(device)
    if resolved.type == "cuda":
        facts = torch.cuda.get_device_properties(resolved)
        return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB ({resolved})"
    if resolved.type == "mps":
        return f"{platform.processor() or 'Apple GPU'} (mps)"
    cores = core_count()
    return f"{_cpu_name()}, {cores} core{'s' if cores > 1 else ''} (cpu)"


def test_device(device: str = "auto") -> str:  # noqa: PT028  no test of pytest
    """Compute a small convolution and return what came of it, as one sentence.

    Raises
    ------
    RunError
        If the device fails or its answer is wrong.
    """
    resolved = resolve_device(device)
    name = describe_device(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((16, 32, 64, 64), generator=generator)
    weight = torch.randn((32, 32, 3, 3), generator=generator)
    try:
        with torch.inference_mode():
            expected = torch.nn.functional.conv2d(images[:1], weight, padding=1)
            x, w = images.to(resolved), weight.to(resolved)
            answer = torch.nn.functional.conv2d(x, w, padding=1)[:1].cpu()
            rounds, start = 0, time.perf_counter()
            while time.perf_counter() - start < 0.3:
                torch.nn.functional.conv2d(x, w, padding=1)
                if resolved.type != "cpu":
                    getattr(torch, resolved.type).synchronize()
                rounds += 1
            seconds = (time.perf_counter() - start) / rounds
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"{name} does not work: {reason}; choose another device.") from error
    # Convolutions of GPUs may round to 10 bits of mantissa (TF32), over sums of 288 products.
    if not torch.allclose(answer, expected, atol=0.2):
        raise RunError(f"{name} computes wrong numbers: choose another device.")
    flops = 2 * images.numel() * 32 * 9
    return f"{name} works: {flops / seconds / 1e9:,.0f} GFLOP/s in a small convolution."


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 by itself; emulated it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()  # MPS and the CPU allocator raise a plain RuntimeError
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the platform module knows
    return platform.processor() or platform.machine()
