from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Random weights and bags are the same whatever was tested before."""
    torch.manual_seed(0)
