"""A run as a layer over its slide, kept as the person has chosen to see it.

Which run is shown, and the keys, are in `overlays.py`.
"""

from __future__ import annotations

from typing import Any

from napari.layers import Image

from napari_histomil.results import MilRun, RunStore, SegmentationStore
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.attention_view import AttentionView
from napari_histomil.ui.colours import colour_map
from napari_histomil.ui.heatmap_view import HeatmapView
from napari_histomil.ui.layers import METADATA_KEY, heatmap_layer, heatmap_place, picture_layer
from napari_histomil.ui.run_facts import AnyStore
from napari_histomil.ui.segmentation_painter import SegmentationPainter
from napari_histomil.ui.segmentation_view import SegmentationView
from napari_histomil.ui.session import RunView, SlideSession

DEFAULT_OPACITY = 0.5
"""Tissue and colour are then seen equally well."""


def laid_over(viewer: Any, store: AnyStore, slide: SlideSession) -> RunView:
    """Return a run with its layer, which is not yet in the viewer."""
    if isinstance(store, MilRun):
        return _attention(store, slide)
    if isinstance(store, SegmentationStore):
        return _segmentation(viewer, store, slide)
    return _heatmap(store, slide)


def _segmentation(viewer: Any, store: SegmentationStore, slide: SlideSession) -> RunView:
    view = SegmentationView(store)
    data, attributes, _ = picture_layer(
        slide.info,
        name=f"Segmentation ({store.model['name']})",
        metadata={"run": store.path},
        opacity=DEFAULT_OPACITY,
    )
    layer = Image(data, **attributes)
    painter = SegmentationPainter(viewer, slide.info, view, layer)
    return RunView(store, slide, layer, segmentation=view, painter=painter)


def _heatmap(store: RunStore, slide: SlideSession) -> RunView:
    heatmap = HeatmapView(
        store.grid,
        store.class_names,
        store.scores,
        first_class=store.model.get("positive_class"),
    )
    cell_um = store.grid.spec.cell_um
    data, attributes, _ = heatmap_layer(
        heatmap.image,
        pixel_um=(cell_um, cell_um),
        name=_heatmap_name(store, heatmap),
        metadata={"run": store.path, "class": heatmap.class_name},
        colormap=colour_map(heatmap.colours),
        opacity=DEFAULT_OPACITY,
    )
    layer = Image(data, **attributes)

    def repaint() -> None:
        # The array is the layer's own, changed in place: only its pixels are new.
        layer.refresh(extent=False, highlight=False)

    def follow_choice() -> None:
        _set_colours(layer, heatmap.colours)
        if layer.metadata[METADATA_KEY]["class"] != heatmap.class_name:
            layer.metadata[METADATA_KEY]["class"] = heatmap.class_name
            layer.name = _heatmap_name(store, heatmap)
        repaint()

    heatmap.changed.connect(follow_choice)
    heatmap.filled.connect(repaint)
    return RunView(store, slide, layer, heatmap)


def _attention(store: MilRun, slide: SlideSession) -> RunView:
    info = slide.info
    view = AttentionView(store, (info.width_px0, info.height_px0), info.mpp_xy)
    data, attributes, _ = heatmap_layer(
        view.image,
        **_place_of(view, info),
        name=_attention_name(view),
        metadata={"run": store.path},
        colormap=colour_map(view.colours),
        opacity=DEFAULT_OPACITY,
    )
    layer = Image(data, **attributes)

    def follow_map() -> None:
        layer.data = view.image
        place = heatmap_place(**_place_of(view, info))
        layer.scale, layer.translate = place["scale"], place["translate"]

    def follow_choice() -> None:
        _set_colours(layer, view.colours)
        layer.name = _attention_name(view)
        layer.refresh(extent=False, highlight=False)

    view.replaced.connect(follow_map)
    view.changed.connect(follow_choice)
    return RunView(store, slide, layer, view, attention=view)


def _set_colours(layer: Image, name: str) -> None:
    colours = colour_map(name)
    if layer.colormap.name != colours.name:
        layer.colormap = colours


def _place_of(view: AttentionView, info: SlideInfo) -> dict[str, tuple[float, float]]:
    """Return where a MIL run's picture lies, as `heatmap_layer` has it."""
    picture = view.shown.picture
    (x, y), (width, height), (mpp_x, mpp_y) = picture.corner_px0, picture.pixel_px0, info.mpp_xy
    return {"pixel_um": (height * mpp_y, width * mpp_x), "corner_um": (y * mpp_y, x * mpp_x)}


def _heatmap_name(store: RunStore, heatmap: HeatmapView) -> str:
    return f"{heatmap.class_name} ({store.model['name']})"


def _attention_name(view: AttentionView) -> str:
    return f"{view.title} ({view.run.model['name']})"
