"""Published encoders: what is built, how weights are renamed, pooled and got; no network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor
from torch.nn import functional

from napari_histomil.errors import ModelError
from napari_histomil.manifest import verify_model
from napari_histomil.nets import fetching, foundation
from napari_histomil.nets.fetching import fetch_encoder, read_weights
from napari_histomil.nets.foundation import FOUNDATIONS, Foundation
from napari_histomil.nets.load import load_module, misfit
from napari_histomil.nets.token_encoder import TokenEncoder
from napari_histomil.nets.weight_names import of_conch, of_timm, of_transformers

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}

MILLIONS = {
    "uni": 303, "uni2-h": 681, "virchow": 631, "virchow2": 631, "h-optimus-0": 1135,
    "h-optimus-1": 1135, "gigapath": 1134, "phikon": 86, "phikon-v2": 303, "hibou-b": 86,
    "hibou-l": 304, "lunit-vits8": 22,
}  # fmt: skip
"""Parameters, as the authors publish them."""


def filled(net: torch.nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Random numbers of a sensible size for every weight, those that begin as zeros too."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.3
        for name, tensor in net.state_dict().items()
    }


@pytest.mark.parametrize("name", list(FOUNDATIONS))
def test_what_is_listed_can_be_built_and_gives_what_it_says(name: str) -> None:
    known = FOUNDATIONS[name]
    with torch.device("meta"):
        net = fetching._built(known)
        assert net.dim == known.dim
        given = torch.zeros(1, 3, known.tile_px, known.tile_px)
        with torch.inference_mode():
            assert net(given).shape == (1, known.dim)
    count = sum(p.numel() for p in net.parameters())
    if name in MILLIONS:
        assert count / 1e6 == pytest.approx(MILLIONS[name], rel=0.015)


def as_transformers(state: dict[str, Tensor], *, swiglu: bool, dino: bool) -> dict[str, Tensor]:
    """Spell a timm state as transformers does: written from its documentation, not from ours."""
    found = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] != "blocks":
            found[
                {
                    "cls_token": "embeddings.cls_token",
                    "pos_embed": "embeddings.position_embeddings",
                    "reg_token": "embeddings.register_tokens",
                    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
                    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
                    "norm.weight": "layernorm.weight",
                    "norm.bias": "layernorm.bias",
                }[name]
            ] = tensor
            continue
        _, block, *rest = parts
        kind = ".".join(rest)
        layer = f"encoder.layer.{block}."
        if kind.startswith("attn.qkv"):
            for which, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"{layer}attention.attention.{which}.{rest[-1]}"] = part
        elif kind.startswith("ls"):
            found[f"{layer}layer_scale{kind[2]}.lambda1"] = tensor
        else:
            stem = {
                "attn.proj": "attention.output.dense",
                "norm1": "norm1" if dino else "layernorm_before",
                "norm2": "norm2" if dino else "layernorm_after",
                "mlp.fc1": ("mlp.weights_in" if swiglu else "mlp.fc1") if dino
                else "intermediate.dense",
                "mlp.fc2": ("mlp.weights_out" if swiglu else "mlp.fc2") if dino
                else "output.dense",
            }[".".join(rest[:-1])]  # fmt: skip
            found[f"{layer}{stem}.{rest[-1]}"] = tensor
    return found


@pytest.mark.parametrize("dino", [False, True])
def test_weights_of_transformers_are_those_of_timm(dino: bool) -> None:
    arguments = {**TINY, **({"init_values": 1.0} if dino else {})}
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments)
    state = filled(net)
    spelled = as_transformers(state, swiglu=False, dino=dino)
    extra = {"pooler.dense.weight": torch.zeros(1), "embeddings.mask_token": torch.zeros(1)}
    again = of_transformers({**spelled, **extra})
    wanted = of_timm(state)
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)


def test_registers_and_swiglu_answer_as_the_paper_says() -> None:
    """Against DINOv2 with registers written out (Darcet et al. 2024; Shazeer 2020)."""
    arguments = {
        **TINY, "init_values": 1.0, "mlp_ratio": 16 / 3, "mlp_layer": "swiglu",
        "act_layer": "silu", "reg_tokens": 4, "no_embed_class": True,
    }  # fmt: skip
    net = TokenEncoder("vit_tiny_patch16_224", arguments, "token").eval()
    theirs = as_transformers(
        {n.removeprefix("backbone."): t for n, t in filled(net).items()}, swiglu=True, dino=True
    )
    theirs["embeddings.position_embeddings"] = torch.randn(1, 17, 24)  # one for the class too
    net.load_state_dict(of_transformers(theirs))
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        np_answer, wanted = net(x), dinov2(theirs, x)
    torch.testing.assert_close(np_answer, wanted, rtol=1e-4, atol=1e-4)


def dinov2(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The class token of a DINOv2 with registers, width 24, 2 heads, 2 blocks."""
    s = state
    projection = "embeddings.patch_embeddings.projection"
    patches = functional.conv2d(x, s[f"{projection}.weight"], s[f"{projection}.bias"], stride=8)
    patches = patches.flatten(2).transpose(1, 2)
    cls = s["embeddings.cls_token"].expand(len(x), -1, -1)
    tokens = torch.cat([cls, patches], 1) + s["embeddings.position_embeddings"]
    registers = s["embeddings.register_tokens"].expand(len(x), -1, -1)
    tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
    for block in range(2):
        p = f"encoder.layer.{block}."
        h = functional.layer_norm(tokens, (24,), s[p + "norm1.weight"], s[p + "norm1.bias"], 1e-6)
        q, k, v = (
            functional.linear(
                h, s[f"{p}attention.attention.{n}.weight"], s[f"{p}attention.attention.{n}.bias"]
            ).unflatten(-1, (2, 12)).transpose(1, 2)
            for n in ("query", "key", "value")
        )  # fmt: skip
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(12), -1)
        h = (weights @ v).transpose(1, 2).flatten(2)
        dense = f"{p}attention.output.dense"
        h = functional.linear(h, s[f"{dense}.weight"], s[f"{dense}.bias"])
        tokens = tokens + s[p + "layer_scale1.lambda1"] * h
        h = functional.layer_norm(tokens, (24,), s[p + "norm2.weight"], s[p + "norm2.bias"], 1e-6)
        gate, value = functional.linear(
            h, s[p + "mlp.weights_in.weight"], s[p + "mlp.weights_in.bias"]
        ).chunk(2, -1)
        h = functional.silu(gate) * value
        h = functional.linear(h, s[p + "mlp.weights_out.weight"], s[p + "mlp.weights_out.bias"])
        tokens = tokens + s[p + "layer_scale2.lambda1"] * h
    norm = functional.layer_norm(tokens, (24,), s["layernorm.weight"], s["layernorm.bias"], 1e-6)
    return norm[:, 0]


def test_token_and_mean_are_joined_without_the_registers() -> None:
    net = TokenEncoder(
        "vit_tiny_patch16_224", {**TINY, "reg_tokens": 4}, "token+mean", resize_px=32
    ).eval()
    net.load_state_dict(filled(net))
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        tokens = net.backbone.forward_features(x)
        assert tokens.shape[1] == 1 + 4 + 16
        wanted = torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1)
        torch.testing.assert_close(net(x), wanted)


def test_a_tile_is_resized_and_its_middle_taken() -> None:
    arguments = {**TINY, "img_size": 24}
    net = TokenEncoder("vit_tiny_patch16_224", arguments, resize_px=32, crop_px=24).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        wanted = net.backbone.forward_features(x[..., 4:28, 4:28])[:, 0]
        torch.testing.assert_close(net(x), wanted)
        large = functional.interpolate(x, (48, 48), mode="bicubic", align_corners=False)
        assert functional.cosine_similarity(net(large), wanted).item() > 0.98


def test_conch_pools_by_one_query_before_its_projection() -> None:
    """Against attention written out: CONCH's tower gives what precedes its contrastive head."""
    net = TokenEncoder(
        "vit_tiny_patch16_224", TINY, "attention", pooled_dim=16, pooled_heads=4
    ).eval()
    theirs = {
        f"visual.trunk.{name.removeprefix('backbone.')}": tensor
        for name, tensor in filled(net).items()
        if name.startswith("backbone.")
    }
    generator = torch.Generator().manual_seed(5)
    pool = "visual.attn_pool_contrast."
    for name, shape in {
        f"{pool}query": (1, 16), f"{pool}ln_q.weight": (16,), f"{pool}ln_q.bias": (16,),
        f"{pool}ln_k.weight": (24,), f"{pool}ln_k.bias": (24,),
        f"{pool}attn.q_proj_weight": (16, 16), f"{pool}attn.k_proj_weight": (16, 24),
        f"{pool}attn.v_proj_weight": (16, 24), f"{pool}attn.in_proj_bias": (48,),
        f"{pool}attn.out_proj.weight": (16, 16), f"{pool}attn.out_proj.bias": (16,),
        "visual.ln_contrast.weight": (16,), "visual.ln_contrast.bias": (16,),
        "visual.proj_contrast": (16, 16), "visual.attn_pool_caption.query": (4, 16),
        "text.token_embedding.weight": (9, 16), "logit_scale": (),
    }.items():  # fmt: skip
        theirs[name] = torch.randn(shape, generator=generator)
    state = of_conch(theirs)
    assert misfit(net.state_dict(), state) == ""
    net.load_state_dict(state)
    s = {name.removeprefix(pool): tensor for name, tensor in theirs.items()}
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        tokens = net.backbone.forward_features(x)
        keys = functional.layer_norm(tokens, (24,), s["ln_k.weight"], s["ln_k.bias"])
        query = functional.layer_norm(s["query"], (16,), s["ln_q.weight"], s["ln_q.bias"])
        bq, bk, bv = s["attn.in_proj_bias"].chunk(3)
        q = (query @ s["attn.q_proj_weight"].T + bq).unflatten(-1, (4, 4)).transpose(0, 1)
        k = (keys @ s["attn.k_proj_weight"].T + bk).unflatten(-1, (4, 4)).transpose(1, 2)
        v = (keys @ s["attn.v_proj_weight"].T + bv).unflatten(-1, (4, 4)).transpose(1, 2)
        mixed = (torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v).transpose(1, 2).flatten(1)
        out = mixed @ s["attn.out_proj.weight"].T + s["attn.out_proj.bias"]
        weight, bias = theirs["visual.ln_contrast.weight"], theirs["visual.ln_contrast.bias"]
        wanted = functional.layer_norm(out, (16,), weight, bias)
        torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4)


# --- getting them -----------------------------------------------------------------------------

SMALL = Foundation(
    "small", "A small one", "somebody/small", "model.safetensors", "MIT", True, 48,
    "vit_tiny_patch16_224", TINY, "token+mean", tile_px=32, resize_px=32,
)  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Foundation:
    monkeypatch.setitem(foundation.FOUNDATIONS, "small", SMALL)
    return SMALL


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of the small encoder as somebody published them, named as timm does."""
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, **TINY)
    path = tmp_path / "ваги" / "model.safetensors"
    path.parent.mkdir()
    safetensors.torch.save_file(filled(net), path)
    return path


def test_weights_in_a_file_become_a_model(small: Foundation, weights: Path) -> None:
    told: list[str] = []
    model = fetch_encoder("Small", weights=weights, say=told.append)
    verify_model(model)
    assert (model.task, model.embedding_dim, model.licence) == ("embed", 48, "MIT")
    assert model.name.startswith("small-")
    assert (model.grid.tile_px, model.grid.mpp) == (32, 0.5)
    net = load_module(model)
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0, **TINY).eval()
        backbone.load_state_dict(safetensors.torch.load_file(weights))
        tokens = backbone.forward_features(x)
        torch.testing.assert_close(net(x), torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))
    assert str(model.path) in told[-1]
    told.clear()
    assert fetch_encoder("small", weights=weights, say=told.append).sha256 == model.sha256
    assert told == [], "it is kept, and not made again"


def test_a_checkpoint_of_torch_is_read_without_its_wrapping(
    small: Foundation, weights: Path, tmp_path: Path
) -> None:
    state = safetensors.torch.load_file(weights)
    wrapped = {"epoch": 3, "model": {f"module.{name}": t for name, t in state.items()}}
    torch.save(wrapped, tmp_path / "c.pth")
    again = read_weights(tmp_path / "c.pth")
    assert again.keys() == state.keys()
    assert fetch_encoder("small", weights=tmp_path / "c.pth").weights_sha256 == (
        fetch_encoder("small", weights=weights).weights_sha256
    )


class Trap:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('code of a pickle was run')",))


def test_what_could_run_code_is_not_read(small: Foundation, tmp_path: Path) -> None:
    torch.save({"model": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ModelError, match="more than tensors"):
        fetch_encoder("small", weights=tmp_path / "trap.pt")
    (tmp_path / "no.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"no\.pt"):
        fetch_encoder("small", weights=tmp_path / "no.pt")
    with pytest.raises(ModelError, match="cannot be read"):
        fetch_encoder("small", weights=tmp_path / "missing.pt")


def test_weights_of_another_net_are_a_sentence(small: Foundation, tmp_path: Path) -> None:
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**TINY, "depth": 1})
    safetensors.torch.save_file(net.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="does not hold the weights of small: 12 tensors are"):
        fetch_encoder("small", weights=tmp_path / "w.safetensors")


def test_no_network_is_a_sentence_that_says_how_to_get_access(small: Foundation) -> None:
    with pytest.raises(ModelError, match=r"cannot be reached.*huggingface.co/somebody/small"):
        fetch_encoder("small")


def test_a_gated_repository_says_how_to_get_access(
    small: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: str, local_files_only: bool = False, endpoint: str = "") -> str:
        if local_files_only:
            raise fetching.LocalEntryNotFoundError("not here")
        raise gated

    gated = fetching.GatedRepoError.__new__(fetching.GatedRepoError)  # without its HTTP answer
    monkeypatch.setattr(fetching, "_reachable_hub", lambda *_: "http://127.0.0.1:9")
    monkeypatch.setattr(fetching.huggingface_hub, "hf_hub_download", refused)
    with pytest.raises(ModelError, match=r"asked for it \(MIT\): ask for access at .*hf auth"):
        fetch_encoder("small")


def test_what_the_hub_gives_is_kept(
    small: Foundation, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repo_id: str, filename: str, **_: object) -> str:
        asked.append((repo_id, filename))
        return str(weights)

    monkeypatch.setattr(fetching.huggingface_hub, "hf_hub_download", download)
    model = fetch_encoder("small")
    assert model.name == "small"
    assert asked == [("somebody/small", "model.safetensors")]
    fetch_encoder("small")
    assert len(asked) == 1, "from now on it is there"


def test_nets_of_timm_embed_by_all_but_their_last_layer(tmp_path: Path) -> None:
    net = timm.create_model("test_vit.r160_in1k", pretrained=False)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    model = fetch_encoder("timm/test_vit.r160_in1k", weights=tmp_path / "w.pt")
    assert model.name.startswith("timm-test_vit.r160_in1k-")
    assert model.grid.tile_px == 160
    assert model.embedding_dim == net.num_features
    x = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        wanted = net.eval().forward_head(net.forward_features(x), pre_logits=True)
        torch.testing.assert_close(load_module(model)(x), wanted)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("timm/no-such-net", "timm has no net 'no-such-net'"),
        ("timm/resnet10t", "cannot be reached"),
        ("nothing", "There is no encoder 'nothing'"),
        ("timm/..", "no name of a net|timm has no net"),
    ],
)
def test_names_of_nothing_are_a_sentence(name: str, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        fetch_encoder(name)


def test_capitals_do_not_matter_and_entries_are_their_names() -> None:
    assert all(name == each.name == name.lower() for name, each in FOUNDATIONS.items())
    assert replace(SMALL).page == "https://huggingface.co/somebody/small"
