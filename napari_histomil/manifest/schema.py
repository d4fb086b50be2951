"""The JSON schemas of `model.json` and of WSInfer's `config.json`.

Every node has a ``description`` of what is expected there: the error for a person ends with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_histomil.errors import ModelError

SCHEMA_VERSION = 1
"""Version of `model.json` that this program writes and the newest it reads."""

MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a model may be called: it is a folder's name too."""

_NUMBERS = {
    "type": "array",
    "items": {"type": "number", "description": "a number"},
    "minItems": 3,
    "maxItems": 4,
    "description": "three numbers, for red, green and blue (four, if a heatmap comes with them)",
}
_POSITIVE = {"type": "number", "exclusiveMinimum": 0, "description": "a number above 0"}
_COUNT = {"type": "integer", "minimum": 1, "description": "a whole number of at least 1"}
_TEXT = {"type": "string", "minLength": 1, "description": "a text"}
_SHA256 = {
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
    "description": "64 hexadecimal digits in lower case",
}
_STAIN = {
    "enum": ["none", "macenko", "reinhard"],
    "description": "'none', 'macenko' or 'reinhard'",
}
_GRID = {
    "type": "object",
    "description": "an object with mpp, tile_px and stride_px",
    "additionalProperties": False,
    "required": ["mpp", "tile_px", "stride_px"],
    "properties": {
        "mpp": _POSITIVE,
        "tile_px": _COUNT,
        "stride_px": _COUNT,
        "margin_px": {
            "type": "integer",
            "minimum": 0,
            "description": "a whole number of at least 0",
        },
    },
}

_MIL = {
    "type": "object",
    "description": "an object with encoder and grids",
    "additionalProperties": False,
    "required": ["encoder", "grids"],
    "properties": {
        "encoder": {
            "type": "object",
            "description": "an object with name, dim and sha256",
            "additionalProperties": False,
            "required": ["name", "dim"],
            "properties": {
                "name": _TEXT,
                "dim": _COUNT,
                "sha256": {**_SHA256, "type": ["string", "null"]},
            },
        },
        "grids": {
            "type": "array",
            "minItems": 1,
            "description": "a list of grids, the lowest magnification first",
            "items": _GRID,
        },
        "clinical": {
            "type": "array",
            "uniqueItems": True,
            "description": "a list of different names",
            "items": _TEXT,
        },
        "reference": {"type": "object", "description": "an object"},
        "members": {
            "type": "array",
            "description": "a list of folders with their sha256",
            "items": {
                "type": "object",
                "description": "an object with folder and sha256",
                "additionalProperties": False,
                "required": ["folder", "sha256"],
                "properties": {
                    "folder": {
                        "type": "string",
                        "pattern": r"^members/[A-Za-z0-9_-]+$",
                        "description": "'members/<name>'",
                    },
                    "sha256": _SHA256,
                },
            },
        },
    },
}

MODEL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "an object with the members of a model",
    "additionalProperties": False,
    "required": [
        "schema_version",
        "name",
        "description",
        "task",
        "grid",
        "licence",
    ],
    "if": {"properties": {"task": {"const": "embed"}}},
    "then": {"required": ["embedding_dim"]},
    "else": {"required": ["classes", "activation"]},
    "properties": {
        "schema_version": {"const": SCHEMA_VERSION, "description": f"{SCHEMA_VERSION}"},
        "name": {
            "type": "string",
            "pattern": MODEL_NAME,
            "description": "a name of letters, digits, '.', '_' and '-'",
        },
        "description": _TEXT,
        "task": {
            "enum": ["classify", "segment", "chain", "embed", "mil"],
            "description": "'classify', 'segment', 'chain', 'embed' or 'mil'",
        },
        "steps": {
            "type": "array",
            "minItems": 2,
            "description": "a list of steps",
            "items": {
                "type": "object",
                "description": "an object with do, model and sha256",
                "additionalProperties": False,
                "required": ["do", "model", "sha256"],
                "properties": {
                    "do": {
                        "enum": ["detect", "refine", "segment"],
                        "description": "'detect', 'refine' or 'segment'",
                    },
                    "model": _TEXT,
                    "sha256": _SHA256,
                    "class": _TEXT,
                    "grid": _GRID,
                    "stain": _STAIN,
                    "threshold": {
                        "type": "number",
                        "minimum": 0,
                        "maximum": 1,
                        "description": "a probability of 0 to 1",
                    },
                    "margin_um": {
                        "type": "number",
                        "minimum": 0,
                        "description": "a number of at least 0",
                    },
                },
            },
        },
        "inputs": {
            "const": ["overview", "heatmap"],
            "description": '["overview", "heatmap"]; what takes tiles of a slide has no inputs',
        },
        "architecture": {
            "type": "object",
            "description": "an object with name and arguments",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {
                "name": {
                    "type": "string",
                    "pattern": r"^(timm|histomil|smp|mil|mil/torchmil)/[A-Za-z0-9._-]+$",
                    "description": "'timm/<name>', 'histomil/<name>', 'smp/<name>', "
                    "'mil/<name>' or 'mil/torchmil/<class>'",
                },
                "arguments": {"type": "object", "description": "an object of keywords"},
            },
        },
        "weights": {
            "type": "object",
            "description": "an object with file, format and sha256",
            "additionalProperties": False,
            "required": ["file", "format", "sha256"],
            "properties": {
                "file": _TEXT,
                "format": {
                    "enum": ["safetensors", "torchscript", "onnx"],
                    "description": "'safetensors', 'torchscript' or 'onnx' (pickles are never "
                    "loaded)",
                },
                "sha256": _SHA256,
            },
        },
        "classes": {
            "type": "array",
            "minItems": 1,
            "description": "a list of at least one class",
            "items": {
                "type": "object",
                "description": "an object with name and color",
                "additionalProperties": False,
                "required": ["name", "color"],
                "properties": {
                    "name": _TEXT,
                    "color": {
                        "type": "array",
                        "items": {
                            "type": "integer",
                            "minimum": 0,
                            "maximum": 255,
                            "description": "a whole number of 0 to 255",
                        },
                        "minItems": 3,
                        "maxItems": 3,
                        "description": "[red, green, blue], whole numbers of 0 to 255",
                    },
                },
            },
        },
        "positive_class": {"type": ["string", "null"], "description": "a class name"},
        "background_class": {"type": ["string", "null"], "description": "a class name"},
        "activation": {
            "enum": ["softmax", "sigmoid"],
            "description": "'softmax' or 'sigmoid'",
        },
        "temperature": _POSITIVE,
        "embedding_dim": _COUNT,
        "mil": _MIL,
        "grid": _GRID,
        "normalisation": {
            "type": ["object", "null"],
            "description": "an object with mean and std",
            "additionalProperties": False,
            "required": ["mean", "std"],
            "properties": {
                "mean": _NUMBERS,
                "std": {
                    **_NUMBERS,
                    "items": _POSITIVE,
                    "description": "three numbers above 0 (four, if a heatmap comes with them)",
                },
            },
        },
        "stain": _STAIN,
        "licence": _TEXT,
        "training": {"type": "object", "description": "an object"},
        "scores": {"type": "object", "description": "an object"},
        "export": {"type": "object", "description": "an object"},
    },
}

WSINFER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "an object as WSInfer's zoo writes it",
    "required": ["num_classes", "patch_size_pixels", "spacing_um_px", "class_names", "transform"],
    "properties": {
        "spec_version": {"const": "1.0", "description": "'1.0', the only one there is"},
        "architecture": {"type": "string", "description": "a timm name"},
        "num_classes": _COUNT,
        "patch_size_pixels": _COUNT,
        "spacing_um_px": _POSITIVE,
        "class_names": {
            "type": "array",
            "items": _TEXT,
            "uniqueItems": True,
            "description": "a list of different names",
        },
        "transform": {
            "type": "array",
            "description": "a list of transforms",
            "items": {
                "type": "object",
                "description": "an object with name and arguments",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "name": {
                        "enum": ["Resize", "ToTensor", "Normalize"],
                        "description": "'Resize', 'ToTensor' or 'Normalize'",
                    },
                    "arguments": {"type": "object", "description": "an object of keywords"},
                },
            },
        },
    },
}


ZOO_REGISTRY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "an object with models",
    "required": ["models"],
    "properties": {
        "models": {
            "type": "object",
            "description": "an object of models by name",
            "additionalProperties": {
                "type": "object",
                "description": "an object with description, hf_repo_id and hf_revision",
                "required": ["description", "hf_repo_id", "hf_revision"],
                "properties": {
                    "description": _TEXT,
                    "hf_repo_id": {
                        "type": "string",
                        "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
                        "description": "owner/name on the Hugging Face hub",
                    },
                    "hf_revision": {
                        "type": "string",
                        "pattern": MODEL_NAME,
                        "description": "a branch, tag or commit",
                    },
                },
            },
        },
    },
}


def validate(raw: Any, schema: Mapping[str, Any], file: Path) -> None:
    """Check what a file holds against its schema; the message says which member and what it wants.

    Raises
    ------
    ModelError
        With the first error that matters most.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(raw))
    if error is None:
        return
    where = ".".join(str(part) for part in error.absolute_path)
    if error.validator in ("required", "additionalProperties"):
        problem = error.message[:200].rstrip(".")
    else:
        problem = f"{json.dumps(error.instance)[:80]} is not {error.schema['description']}"
    raise ModelError(f"{file}{where and f', member {where}'}: {problem}.")
