"""Values of tiles become pictures and numbers; pure arrays: nothing here reads files or pixels."""

from napari_histomil.heatmaps.cells import CellPicture, picture_of_cells
from napari_histomil.heatmaps.contributions import merge, signed_limit
from napari_histomil.heatmaps.scales import (
    OF_THIS_SLIDE,
    SCALES,
    AttentionRow,
    Span,
    rank_percentile,
    reference_percentile,
    rescale,
    scales_of,
    span_of,
)
from napari_histomil.heatmaps.scores import (
    NORMALISATIONS,
    ThresholdStats,
    hottest,
    normalise,
    score_image,
    threshold_stats,
)

__all__ = [
    "NORMALISATIONS",
    "OF_THIS_SLIDE",
    "SCALES",
    "AttentionRow",
    "CellPicture",
    "Span",
    "ThresholdStats",
    "hottest",
    "merge",
    "normalise",
    "picture_of_cells",
    "rank_percentile",
    "reference_percentile",
    "rescale",
    "scales_of",
    "score_image",
    "signed_limit",
    "span_of",
    "threshold_stats",
]
