"""Multiple-instance learning: a slide's answer from the features of its tiles.

Each model is a page: its equation in the docstring, its shapes as comments, what its map means in
`manifest.mil.MAP_KINDS`. Reading bags, running and training are elsewhere (`results`,
`inference`, `training`).
"""

from napari_histomil.nets.mil.build import MODELS, build_mil, load_mil
from napari_histomil.nets.mil.checkpoints import load_checkpoint
from napari_histomil.nets.mil.effects import Effects, effects
from napari_histomil.nets.mil.model import AttentionMap, MILModel, MILOutput

__all__ = [
    "MODELS",
    "AttentionMap",
    "Effects",
    "MILModel",
    "MILOutput",
    "build_mil",
    "effects",
    "load_checkpoint",
    "load_mil",
]
