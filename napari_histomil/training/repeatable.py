"""What makes the steps of a training the same whenever they are computed again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from napari_histomil.slides.threads import core_count


def thread_count() -> int:
    """Return how many threads torch gets: ``OMP_NUM_THREADS``, or one a core."""
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(said) if said.isdecimal() and int(said) else core_count()


def settle_threads() -> None:
    """Give torch its threads, whatever this process did before; called before every step.

    More threads add up in another order, which ends in other bits. The number is the process's
    and not ours alone: numba sets it when it first loads a parallel function, which napari has,
    and inference sets it to 1 for its workers.
    """
    count = thread_count()
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


@contextmanager
def seeded(seed: int, device: str) -> Iterator[torch.Generator]:
    """Seed what torch draws on a device inside, and leave the rest of the program's numbers alone.

    `torch.random.fork_rng` and `torch.manual_seed` do the same, and take longer than the step of
    a small net.

    Yields
    ------
    torch.Generator
        For what is drawn on the CPU whatever the device.
    """
    own = torch.Generator().manual_seed(seed)
    main = torch.default_generator
    before = main.get_state()
    devices = [torch.device(device)] if device.startswith("cuda") else []
    try:
        if devices:
            with torch.random.fork_rng(devices=devices), torch.cuda.device(devices[0]):
                torch.cuda.manual_seed(seed)
                yield own
        else:
            main.manual_seed(seed)
            yield own
    finally:
        main.set_state(before)
