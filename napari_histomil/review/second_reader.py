"""One slide, two readers, all at once: differences, figures, the map, and what was decided before.

The pieces are in `settling.py`, `agreement.py`, `difference_picture.py` and `decisions.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from napari_histomil.annotations.masks import LabelImage
from napari_histomil.annotations.model import Region
from napari_histomil.errors import AnnotationError
from napari_histomil.review.agreement import Agreement, judge, pair_bands, prepare_comparison
from napari_histomil.review.decisions import Decided, pair_key, recall_decisions
from napari_histomil.review.difference_picture import DifferencePicture, PictureMaker
from napari_histomil.review.settling import Disagreement, disagreements
from napari_histomil.slides.slide import SlideInfo

SAME_PLACE_UM = 5.0
"""Lines and points of two readers answer each other if they lie no farther apart."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison has found."""

    found: list[Disagreement]
    keys: list[str]
    """What is remembered of each, `decisions.pair_key`."""
    decided: dict[str, Decided]
    """What was decided on an earlier day, by key."""
    agreement: Agreement | AnnotationError
    """The figures, or why there are none: the list is of use without them."""
    picture: DifferencePicture | None
    """The map; None where there are no figures."""


def compare_readers(
    mine: Sequence[Region],
    theirs: Sequence[Region],
    info: SlideInfo,
    mpp: float,
    *,
    raters: tuple[str, str],
    fully_annotated: bool,
    cancel: threading.Event,
) -> Compared | None:
    """Compare two readers' regions of a slide; broken outlines are mended for it.

    Parameters
    ----------
    mine, theirs
        Regions.
    info
        The slide, whose µm/px are known.
    mpp
        µm/px at which pixels are compared.
    raters
        What the two are called; decisions are remembered by the second name.
    fully_annotated
        Whether both are complete everywhere, not only inside ``Region*``.
    cancel
        Stops it.

    Returns
    -------
    Compared or None
        None if it was stopped.
    """
    tolerance_px0 = SAME_PLACE_UM / max(info.mpp_xy)
    found = disagreements(mine, theirs, tolerance_px0=tolerance_px0)
    keys = [pair_key(each) for each in found]
    decided = recall_decisions(info, raters[1])
    agreement: Agreement | AnnotationError
    picture = None
    try:
        prepared = prepare_comparison(
            mine, theirs, info, mpp, fully_annotated=fully_annotated, mend=True, raters=raters
        )
        maker = PictureMaker(prepared)
        agreement = judge(prepared, _until(cancel, maker.watching(pair_bands(prepared))))
        picture = maker.picture()
    except _Stopped:
        return None
    except AnnotationError as error:
        agreement = error
    return Compared(found, keys, decided, agreement, picture)


class _Stopped(Exception):
    """Nobody waits for the answer any more; raised where the bands come from."""


def _until(cancel: threading.Event, bands: Iterator[LabelImage]) -> Iterator[LabelImage]:
    for band in bands:
        if cancel.is_set():
            raise _Stopped
        yield band
