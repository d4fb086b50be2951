"""Procedural H&E slides with known tissue and tumour: sample data and tests share them.

Everything is computed from a seed: no picture of a patient is in it.
"""

from napari_histomil.slides.synthetic.render import Stains, SyntheticSlide, SyntheticTruth
from napari_histomil.slides.synthetic.write import write_synthetic

__all__ = ["Stains", "SyntheticSlide", "SyntheticTruth", "write_synthetic"]
