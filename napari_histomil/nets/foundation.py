"""Published encoders of pathology: what each is, as data.

Sizes, transforms and pooling are those of the authors' model cards and code. An encoder is got
(`fetching.py`) once, as a model folder of ours, and is a model like any other from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from napari_histomil.manifest import Normalisation
from napari_histomil.nets.token_encoder import Pooling

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
HIBOU = Normalisation((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
BIOPTIMUS = Normalisation((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))

NO_DERIVATIVES = "CC-BY-NC-ND-4.0"
KAIKO = "Kaiko non-commercial"


@dataclass(frozen=True, slots=True)
class Foundation:
    """A published encoder."""

    name: str
    title: str
    repository: str
    """Owner and name on the Hugging Face hub."""
    file: str
    """The weights there."""
    licence: str
    gated: bool
    """Whether its authors ask who wants it."""
    dim: int
    backbone: str
    """What timm calls it."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of ``timm.create_model``."""
    pooling: Pooling = "token"
    tile_px: int = 224
    """Side of the tiles that it is given."""
    resize_px: int = 224
    """To which a tile of another side is brought."""
    crop_px: int = 0
    """Side of the middle that is taken then; 0 for all of it."""
    mpp: float = 0.5
    normalisation: Normalisation = IMAGENET
    names: Literal["timm", "transformers", "conch"] = "timm"
    """How the weights are named (`weight_names.py`)."""

    @property
    def page(self) -> str:
        """Where it is described, and access is asked for."""
        return f"https://huggingface.co/{self.repository}"


_UNI = {"img_size": 224, "patch_size": 16, "init_values": 1e-5, "dynamic_img_size": True}
_UNI2 = {
    "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5,
    "embed_dim": 1536, "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "mlp_layer": "swiglu",
    "act_layer": "silu", "reg_tokens": 8, "dynamic_img_size": True,
}  # fmt: skip
_VIRCHOW = {
    "img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "mlp_layer": "swiglu",
    "act_layer": "silu", "dynamic_img_size": True,
}  # fmt: skip
_OPTIMUS = {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False}
_GIGAPATH = {
    "img_size": 224, "patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24,
    "init_values": 1e-5, "mlp_ratio": 5.33334,
}  # fmt: skip
# SwiGLU's two halves have the next multiple of 8 above 2/3 of 4 times the width.
_HIBOU = {
    "img_size": 224, "patch_size": 14, "init_values": 1.0, "mlp_ratio": 2.66667 * 2,
    "mlp_layer": "swiglu", "act_layer": "silu", "reg_tokens": 4, "no_embed_class": True,
}  # fmt: skip
_KAIKO = "kaiko_ai_towards_large_pathology_fms"

_TABLE = (
    Foundation(
        "uni", "UNI (Chen et al. 2024)", "MahmoodLab/UNI", "pytorch_model.bin", NO_DERIVATIVES,
        True, 1024, "vit_large_patch16_224", _UNI,
    ),
    Foundation(
        "uni2-h", "UNI2-h (Mahmood Lab 2025)", "MahmoodLab/UNI2-h", "pytorch_model.bin",
        NO_DERIVATIVES, True, 1536, "vit_giant_patch14_224", _UNI2,
    ),
    Foundation(
        "conch", "CONCH's vision tower (Lu et al. 2024)", "MahmoodLab/CONCH", "pytorch_model.bin",
        NO_DERIVATIVES, True, 512, "vit_base_patch16_224",
        {"img_size": 448, "dynamic_img_size": True}, "attention", tile_px=448, resize_px=448,
        normalisation=CLIP, names="conch",
    ),
    Foundation(
        "virchow", "Virchow (Vorontsov et al. 2024)", "paige-ai/Virchow", "pytorch_model.bin",
        "Apache-2.0", True, 2560, "vit_huge_patch14_224", _VIRCHOW, "token+mean",
    ),
    Foundation(
        "virchow2", "Virchow2 (Zimmermann et al. 2024)", "paige-ai/Virchow2",
        "pytorch_model.bin", NO_DERIVATIVES, True, 2560, "vit_huge_patch14_224",
        {**_VIRCHOW, "reg_tokens": 4}, "token+mean",
    ),
    Foundation(
        "h-optimus-0", "H-optimus-0 (Bioptimus 2024)", "bioptimus/H-optimus-0",
        "pytorch_model.bin", "Apache-2.0", True, 1536, "vit_giant_patch14_reg4_dinov2", _OPTIMUS,
        normalisation=BIOPTIMUS,
    ),
    Foundation(
        "h-optimus-1", "H-optimus-1 (Bioptimus 2025)", "bioptimus/H-optimus-1",
        "pytorch_model.bin", NO_DERIVATIVES, True, 1536, "vit_giant_patch14_reg4_dinov2",
        _OPTIMUS, normalisation=BIOPTIMUS,
    ),
    Foundation(
        "gigapath", "Prov-GigaPath's tile encoder (Xu et al. 2024)",
        "prov-gigapath/prov-gigapath", "pytorch_model.bin", "Apache-2.0", True, 1536,
        "vit_giant_patch14_dinov2", _GIGAPATH, tile_px=256, resize_px=256, crop_px=224,
    ),
    Foundation(
        "phikon", "Phikon (Filiot et al. 2023)", "owkin/phikon", "pytorch_model.bin",
        "Owkin non-commercial", False, 768, "vit_base_patch16_224", names="transformers",
    ),
    Foundation(
        "phikon-v2", "Phikon-v2 (Filiot et al. 2024)", "owkin/phikon-v2", "model.safetensors",
        "Owkin non-commercial", False, 1024, "vit_large_patch16_224", {"init_values": 1.0},
        names="transformers",
    ),
    Foundation(
        "hibou-b", "Hibou-B (Nechaev et al. 2024)", "histai/hibou-b", "model.safetensors",
        "Apache-2.0", False, 768, "vit_base_patch14_reg4_dinov2", _HIBOU, normalisation=HIBOU,
        names="transformers",
    ),
    Foundation(
        "hibou-l", "Hibou-L (Nechaev et al. 2024)", "histai/hibou-L", "model.safetensors",
        "Apache-2.0", True, 1024, "vit_large_patch14_reg4_dinov2",
        {**_HIBOU, "mlp_ratio": 5472 / 1024}, normalisation=HIBOU, names="transformers",
    ),
    Foundation(
        "lunit-vits8", "Lunit's ViT-S/8, DINO (Kang et al. 2023)",
        "1aurent/vit_small_patch8_224.lunit_dino", "model.safetensors", "Lunit non-commercial",
        False, 384, "vit_small_patch8_224",
        normalisation=Normalisation((0.70322989, 0.53606487, 0.66096631),
                                    (0.21716536, 0.26081574, 0.20723464)),
    ),
    Foundation(
        "kaiko-vits16", "Kaiko's ViT-S/16 (kaiko.ai 2024)",
        f"1aurent/vit_small_patch16_224.{_KAIKO}", "model.safetensors", KAIKO, False, 384,
        "vit_small_patch16_224", normalisation=HALF,
    ),
    Foundation(
        "kaiko-vitb16", "Kaiko's ViT-B/16 (kaiko.ai 2024)",
        f"1aurent/vit_base_patch16_224.{_KAIKO}", "model.safetensors", KAIKO, False, 768,
        "vit_base_patch16_224", normalisation=HALF,
    ),
    Foundation(
        "kaiko-vitb8", "Kaiko's ViT-B/8 (kaiko.ai 2024)",
        f"1aurent/vit_base_patch8_224.{_KAIKO}", "model.safetensors", KAIKO, False, 768,
        "vit_base_patch8_224", normalisation=HALF,
    ),
)  # fmt: skip

FOUNDATIONS: dict[str, Foundation] = {each.name: each for each in _TABLE}
"""Published encoders by the name that 'histomil features' knows."""
