"""A sheet of patches: where each one is, what is written, and bad places to write to."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_histomil.errors import OutputError
from napari_histomil.exchange.contact_sheet import (
    GAP_PX,
    LINE_PX,
    MARGIN_PX,
    PATCH_PX,
    SheetPatch,
    write_contact_sheet,
)

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200)]


def patches(count: int) -> list[SheetPatch]:
    return [
        SheetPatch(np.full((PATCH_PX, PATCH_PX, 3), COLOURS[n], np.uint8), (f"{n}", "x 1 µm"))
        for n in range(count)
    ]


def test_patches_lie_in_rows_of_five_in_their_order(tmp_path):
    path = tmp_path / "sheet ü.png"
    size = write_contact_sheet(path, patches(6), ["a slide", "a model"])
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (size[1], size[0], 3)
    assert size[0] == 5 * PATCH_PX + 4 * GAP_PX + 2 * MARGIN_PX
    top = MARGIN_PX + 2 * LINE_PX + GAP_PX
    for n in range(6):
        x = MARGIN_PX + n % 5 * (PATCH_PX + GAP_PX) + PATCH_PX // 2
        y = top + n // 5 * (PATCH_PX + 2 * LINE_PX + GAP_PX) + PATCH_PX // 2
        assert tuple(sheet[y, x]) == COLOURS[n]
    below = sheet[top + PATCH_PX : top + PATCH_PX + 2 * LINE_PX, MARGIN_PX : MARGIN_PX + PATCH_PX]
    assert below.min() < 60, "something is written below a patch"
    assert sheet[:MARGIN_PX].min() == 255, "nothing is cut off at the edge"


def test_a_patch_that_is_not_square_keeps_its_shape(tmp_path):
    path = tmp_path / "sheet.png"
    write_contact_sheet(path, [SheetPatch(np.zeros((100, 400, 3), np.uint8), ())], [])
    sheet = np.asarray(Image.open(path))
    assert (sheet.min(axis=2) < 255).any(axis=1).sum() == PATCH_PX // 4


def test_a_folder_that_is_not_there_leaves_nothing(tmp_path):
    with pytest.raises(OutputError):
        write_contact_sheet(tmp_path / "none" / "sheet.png", patches(1), ["a slide"])
    assert list(tmp_path.iterdir()) == []
