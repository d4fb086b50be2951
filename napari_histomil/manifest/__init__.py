"""What a model says of itself: `model.json`, and WSInfer's `config.json`; no torch here.

A model is a folder. Ours holds ``model.json`` and its weights; its members (`schema.py`):

==================  ============================================================================
``schema_version``  1
``name``            the model's name, letters, digits, ``.``, ``_``, ``-``
``description``     one or two sentences for a person who chooses
``task``            ``classify``: a tile has probabilities; ``segment``: each of its pixels has;
                    ``chain``: so has the result of several models that follow one another;
                    ``embed``: a tile has an embedding, and the model is the start of others;
                    ``mil``: a slide has probabilities, told from the embeddings of its tiles
``architecture``    ``{"name": "timm/resnet18", "arguments": {...}}``: a timm name with the
                    keywords of ``timm.create_model``, ``smp/unet`` and its relatives with
                    those of ``segmentation_models_pytorch.create_model``,
                    ``histomil/<name>`` with those of a net of this program (`nets/`), or
                    ``mil/<name>`` with those of an aggregator (`nets/mil/`); absent for a graph
                    (TorchScript, ONNX)
``weights``         ``{"file": "weights.safetensors", "format": "safetensors" | "torchscript" |
                    "onnx", "sha256": 64 hexadecimal digits}``; the file lies in the folder. A
                    graph takes float32 [B, 3, H, W] and gives logits [B, C] or [B, C, H, W];
                    ONNX in one file, with operators of ONNX itself
``classes``         ``[{"name": "tumor", "color": [200, 0, 0]}, ...]`` in the order of outputs
``positive_class``  optional, the class that is shown first
``background_class``  optional, for ``segment``: the class that means none of the others
``activation``      ``softmax`` or ``sigmoid``; classes and activation are absent for ``embed``
``embedding_dim``   for ``embed``: how many values an embedding has
``temperature``     optional, logits are divided by it; 1 by default
``grid``            ``{"mpp": 1.0, "tile_px": 128, "stride_px": 64}``; for ``segment`` also
                    ``margin_px``: so many pixels at each side of a tile are context only
``inputs``          optional, ``["overview", "heatmap"]`` for a net that refines heatmaps in a
                    chain: it takes the heatmap as a fourth channel
``normalisation``   ``{"mean": [r, g, b], "std": [r, g, b]}`` of pixels scaled to 0..1; absent
                    where the graph normalises itself (it then gets 0..1)
``stain``           optional, ``none``, ``macenko`` or ``reinhard``: the model's training
``licence``         of the weights, e.g. ``BSD-3-Clause``
``training``        optional object: data, method, command; free form
``scores``          optional object: held-out results and on what; free form
``export``          optional object: of which model this is another form (`histomil models
                    export`), and how far its answers are from that one's
``mil``             for ``mil``: ``{"encoder": {"name", "dim", "sha256"}, "grids": [...]}``,
                    whose features at which grids, the lowest magnification first, the last the
                    same as ``grid``; optional ``clinical``, names of variables that are fused
                    late, and ``reference``, what other slides are compared with
==================  ============================================================================

A chain has ``steps`` instead of architecture, weights and normalisation, in this order:

* ``{"do": "detect", "model": "metastasis-patch-small", "sha256": ..., "class": "tumor", "grid":
  {...}, "stain": "none"}``: a patch classifier over all of the region;
* the same with ``"refine"``, if wanted: a model with ``inputs``, on its heatmap;
* ``{"do": "segment", "model": ..., "sha256": ..., "threshold": 0.2, "margin_um": 100}``: only
  where the step before is so sure, and so far around it. Elsewhere is ``background_class``.

Each ``sha256`` is that of the model's content as ``histomil models show`` tells it. Classes,
activation and grid are those of the result, and so of the last model.

A WSInfer folder holds ``config.json`` (as WSInfer's zoo writes it; ``spec_version`` and
``architecture`` may be missing) and one TorchScript file ``*.pt``. It keeps WSInfer's semantics:
level-0 squares of ``round(patch_size_pixels * spacing_um_px / mpp)`` px, then its transforms;
softmax for several classes, sigmoid for one.
"""

from napari_histomil.manifest.chain import Chain
from napari_histomil.manifest.mil import MilEncoder, MilFacts
from napari_histomil.manifest.model import (
    ClassSpec,
    ModelManifest,
    Normalisation,
    load_manifest,
    verify_model,
)
from napari_histomil.manifest.search import find_model, list_models, search_path
from napari_histomil.manifest.steps import StepModels, find_steps, write_chain

__all__ = [
    "Chain",
    "ClassSpec",
    "MilEncoder",
    "MilFacts",
    "ModelManifest",
    "Normalisation",
    "StepModels",
    "find_model",
    "find_steps",
    "list_models",
    "load_manifest",
    "search_path",
    "verify_model",
    "write_chain",
]
