"""Options of a run that are right by default: stain, resolution, stride, batch."""

from __future__ import annotations

from magicgui.widgets import ComboBox, Container, FloatSpinBox, SpinBox

from napari_histomil.inference.job import StainMethod
from napari_histomil.manifest import ModelManifest

_STAINS: dict[str, StainMethod | None] = {
    "as the model says": None,
    "none": "none",
    "Macenko": "macenko",
    "Reinhard": "reinhard",
}


class RunOptions(Container):
    """A form of what may differ from the model's own settings."""

    def __init__(self) -> None:
        self.stain_box = ComboBox(
            label="Stain",
            choices=list(_STAINS),
            tooltip="Bring the slide's colours to a common reference before the model sees them; "
            "fitted once on the slide's tissue",
        )
        self.mpp_spin = FloatSpinBox(
            label="µm/px",
            min=0.05,
            max=32,
            step=0.05,
            value=1.0,
            tooltip="What the model looks at; it was trained at its own resolution and is less "
            "sure of itself at another",
        )
        self.stride_spin = SpinBox(
            label="Stride, px",
            min=1,
            max=8192,
            value=1,
            tooltip="Distance between tiles, in pixels at that resolution: smaller gives a finer "
            "heatmap and takes longer",
        )
        self.batch_box = ComboBox(
            label="Batch",
            choices=["auto", *(str(2**n) for n in range(10))],
            tooltip="Tiles that the model looks at together; auto finds the fastest number",
        )
        super().__init__(labels=True)
        self.margins = (0, 0, 0, 0)
        # One by one: only then does magicgui give all labels one width.
        self.extend([self.stain_box, self.mpp_spin, self.stride_spin, self.batch_box])

    @property
    def stain(self) -> StainMethod | None:
        """Stain normalisation; None for the model's own."""
        return _STAINS[self.stain_box.value]

    @property
    def mpp(self) -> float:
        """Resolution of the tiles in µm/px."""
        return float(self.mpp_spin.value)

    @property
    def stride_px(self) -> int:
        """Distance between tiles in px at `mpp`."""
        return int(self.stride_spin.value)

    @property
    def batch(self) -> int | None:
        """Tiles in a batch; None for the engine's choice."""
        return None if self.batch_box.value == "auto" else int(self.batch_box.value)

    def take_from(self, model: ModelManifest) -> None:
        """Take a model's own settings."""
        with self.changed.blocked():
            self.stain_box.value = next(iter(_STAINS))
            self.mpp_spin.value = model.grid.mpp
            self.stride_spin.max = model.grid.tile_px
            self.stride_spin.value = model.grid.stride_px
