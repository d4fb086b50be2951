"""What a model says of itself: `model.json`, and WSInfer's `config.json`; no torch here.

A model is a folder. Ours holds ``model.json`` and its weights; its members (`schema.py`):

==================  ============================================================================
``schema_version``  1
``name``            the model's name, letters, digits, ``.``, ``_``, ``-``
``description``     one or two sentences for a person who chooses
``task``            ``classify``: a tile has probabilities; ``segment``: each of its pixels has;
                    ``embed``: a tile has an embedding, and the model is the start of others
``architecture``    ``{"name": "timm/resnet18", "arguments": {...}}``: a timm name with the
                    keywords of ``timm.create_model``, ``smp/unet`` and its relatives with
                    those of ``segmentation_models_pytorch.create_model``, or
                    ``histomil/<name>`` with those of a net of this program (`nets/`); absent
                    for TorchScript
``weights``         ``{"file": "weights.safetensors", "format": "safetensors" | "torchscript",
                    "sha256": 64 hexadecimal digits}``; the file lies in the folder
``classes``         ``[{"name": "tumor", "color": [200, 0, 0]}, ...]`` in the order of outputs
``positive_class``  optional, the class that is shown first
``background_class``  optional, for ``segment``: the class that means none of the others
``activation``      ``softmax`` or ``sigmoid``; classes and activation are absent for ``embed``
``embedding_dim``   for ``embed``: how many values an embedding has
``temperature``     optional, logits are divided by it; 1 by default
``grid``            ``{"mpp": 1.0, "tile_px": 128, "stride_px": 64}``; for ``segment`` also
                    ``margin_px``: so many pixels at each side of a tile are context only
``normalisation``   ``{"mean": [r, g, b], "std": [r, g, b]}`` of pixels scaled to 0..1; absent
                    where the graph normalises itself (it then gets 0..1)
``stain``           optional, ``none``, ``macenko`` or ``reinhard``: the model's training
``licence``         of the weights, e.g. ``BSD-3-Clause``
``training``        optional object: data, method, command; free form
``scores``          optional object: held-out results and on what; free form
==================  ============================================================================

A WSInfer folder holds ``config.json`` (as WSInfer's zoo writes it; ``spec_version`` and
``architecture`` may be missing) and one TorchScript file ``*.pt``. It keeps WSInfer's semantics:
level-0 squares of ``round(patch_size_pixels * spacing_um_px / mpp)`` px, then its transforms;
softmax for several classes, sigmoid for one.
"""

from napari_histomil.manifest.model import (
    ClassSpec,
    ModelManifest,
    Normalisation,
    load_manifest,
    verify_model,
)
from napari_histomil.manifest.search import find_model, list_models, search_path

__all__ = [
    "ClassSpec",
    "ModelManifest",
    "Normalisation",
    "find_model",
    "list_models",
    "load_manifest",
    "search_path",
    "verify_model",
]
