"""Tensors in files of torch: CLAM's ``pt_files``. The only place of this folder that knows torch.

torch is imported when such a file is read or written, and no sooner: all else here needs none.
A file is read as tensors and nothing else (``weights_only``), and mapped into memory, so that of
a large bag only what is asked for is read.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError, brief
from napari_histomil.files import whole_file


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file by name; a bare tensor has the name ``features``.

    Raises
    ------
    RunError
        If it is no file of torch, or holds more than tensors.
    """
    import torch

    try:
        try:
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # of before torch 1.6: cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"{path} holds more than tensors, which is not read because it could run code: save "
            f"the tensor of features alone."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise RunError(f"{path} is no file of torch that can be read: {brief(error)}.") from error
    if isinstance(content, torch.Tensor):
        content = {"features": content}
    if not isinstance(content, Mapping):
        raise RunError(f"{path} holds no tensor of features.")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
    bfloat = {k: v.float() if v.dtype == torch.bfloat16 else v for k, v in tensors.items()}
    return {name: tensor.detach().numpy() for name, tensor in bfloat.items()}


def write_tensor(path: Path, values: NDArray[np.float32]) -> None:
    """Write one bare tensor.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    import torch

    with whole_file(path) as part:
        torch.save(torch.from_numpy(values), part)
