from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from napari_histomil.errors import ModelError
from napari_histomil.manifest import (
    find_model,
    find_steps,
    list_models,
    load_manifest,
    search_path,
    verify_model,
)

CLASSES = [{"name": "normal", "color": [0, 0, 255]}, {"name": "tumor", "color": [255, 0, 0]}]
WEIGHTS = b"these are no real weights"
CONFIG = {
    "spec_version": "1.0",
    "architecture": "resnet34",
    "num_classes": 2,
    "patch_size_pixels": 100,
    "spacing_um_px": 0.5,
    "class_names": ["Other", "Lymphocytes"],
    "transform": [
        {"name": "Resize", "arguments": {"size": 299}},
        {"name": "ToTensor"},
        {"name": "Normalize", "arguments": {"mean": [0.5] * 3, "std": [0.5] * 3}},
    ],
}


def digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def write_model(folder: Path, **changes: Any) -> Path:
    """A folder that is described well; nobody loads its weights here."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(WEIGHTS)
    manifest: dict[str, Any] = {
        "schema_version": 1,
        "name": folder.name,
        "description": "A model.",
        "task": "classify",
        "architecture": {"name": "timm/resnet18"},
        "weights": {
            "file": "weights.safetensors",
            "format": "safetensors",
            "sha256": digest(WEIGHTS),
        },
        "classes": CLASSES,
        "positive_class": "tumor",
        "activation": "softmax",
        "grid": {"mpp": 1.0, "tile_px": 128, "stride_px": 64},
        "normalisation": {"mean": [0.7, 0.5, 0.7], "std": [0.2, 0.2, 0.2]},
        "licence": "BSD-3-Clause",
    }
    manifest.update(changes)
    manifest = {key: value for key, value in manifest.items() if value is not ...}
    (folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


SEGMENT: dict[str, Any] = {"task": "segment", "architecture": {"name": "smp/unet"}}
EMBED: dict[str, Any] = {
    "task": "embed", "embedding_dim": 512,
    "classes": ..., "activation": ..., "positive_class": ...,
}  # fmt: skip
MIL_GRID: dict[str, Any] = {"mpp": 1.0, "tile_px": 128, "stride_px": 128}
MIL: dict[str, Any] = {
    "task": "mil", "architecture": {"name": "mil/gated-attention"}, "normalisation": ...,
    "grid": MIL_GRID,
    "mil": {
        "encoder": {"name": "resnet", "dim": 512, "sha256": "0" * 64},
        "grids": [{**MIL_GRID, "mpp": 4.0}, MIL_GRID],
    },
}  # fmt: skip


def mil_with(**changes: Any) -> dict[str, Any]:
    """Return a MIL model with another member ``mil``."""
    return {**MIL, "mil": {**MIL["mil"], **changes}}


def write_wsinfer(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "torchscript_model.pt").write_bytes(WEIGHTS)
    config = {key: v for key, v in {**CONFIG, **changes}.items() if v is not ...}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_an_onnx_graph_has_no_architecture(tmp_path: Path) -> None:
    weights = {"file": "weights.safetensors", "format": "onnx", "sha256": digest(WEIGHTS)}
    export = {"model": "m", "largest_difference": 1e-6}
    folder = write_model(tmp_path / "m", architecture=..., weights=weights, export=export)
    model = load_manifest(folder)
    assert (model.weights_format, model.architecture) == ("onnx", "")
    assert model.export == export
    with pytest.raises(ModelError, match="a graph of TorchScript or ONNX must not have it"):
        load_manifest(write_model(tmp_path / "n", weights=weights))


def test_a_model_says_what_it_is(tmp_path: Path) -> None:
    model = load_manifest(write_model(tmp_path / "m", temperature=1.5, stain="macenko"))
    assert (model.name, model.kind, model.architecture) == ("m", "histomil", "timm/resnet18")
    assert model.class_names == ("normal", "tumor")
    assert model.positive_class == "tumor"
    assert (model.grid.mpp, model.grid.tile_px, model.grid.stride_px) == (1.0, 128, 64)
    assert (model.read, model.stain, model.temperature) == ("area", "macenko", 1.5)
    verify_model(model)


def test_a_model_that_segments_says_margin_and_background(tmp_path: Path) -> None:
    grid = {"mpp": 0.5, "tile_px": 512, "stride_px": 320, "margin_px": 32}
    model = load_manifest(
        write_model(tmp_path / "m", **SEGMENT, grid=grid, background_class="normal")
    )
    assert (model.task, model.architecture) == ("segment", "smp/unet")
    assert (model.grid.margin_px, model.grid.inner_px) == (32, 448)
    assert model.background_class == "normal"


def test_an_encoder_has_no_classes(tmp_path: Path) -> None:
    model = load_manifest(write_model(tmp_path / "m", **EMBED))
    assert (model.task, model.embedding_dim) == ("embed", 512)
    assert (model.classes, model.activation, model.positive_class) == ((), "none", None)


def test_a_mil_model_says_whose_features_it_takes(tmp_path: Path) -> None:
    reference = {"nuclear_um": 7.5}
    model = load_manifest(write_model(tmp_path / "m", **mil_with(reference=reference)))
    assert model.mil is not None
    assert (model.mil.encoder.name, model.mil.encoder.dim) == ("resnet", 512)
    assert model.mil.encoder.sha256 == "0" * 64
    assert [grid.mpp for grid in model.mil.grids] == [4.0, 1.0]
    assert model.mil.reference == reference
    assert not model.segments


def test_encoder_and_grids_decide_a_mil_models_hash_and_its_reference_does_not(
    tmp_path: Path,
) -> None:
    def hash_of(name: str, **changes: Any) -> str:
        return load_manifest(write_model(tmp_path / name, **mil_with(**changes))).sha256

    plain = hash_of("a")
    assert hash_of("b", reference={"nuclear_um": 7.5}) == plain
    assert hash_of("c", encoder={"name": "resnet", "dim": 512, "sha256": "1" * 64}) != plain
    assert hash_of("d", grids=[{**MIL_GRID, "mpp": 2.0}, MIL_GRID]) != plain
    assert hash_of("e", clinical=["age"]) != plain


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**MIL, "mil": ...}, "a model of the task 'mil', and no other"),
        ({"mil": MIL["mil"]}, "a model of the task 'mil', and no other"),
        ({**MIL, "architecture": {"name": "timm/resnet18"}}, "timm/resnet18 cannot mil"),
        ({"architecture": {"name": "mil/mean"}}, "mil/mean cannot classify"),
        (mil_with(grids=[MIL_GRID, {**MIL_GRID, "mpp": 4.0}]), "begin with the lowest"),
        (mil_with(grids=[{**MIL_GRID, "mpp": 0.5}]), "must be the same as grid"),
        (mil_with(grids=[]), "a list of grids"),
        (mil_with(encoder={"name": "x"}), "'dim' is a required property"),
        ({**MIL, "normalisation": {"mean": [0] * 3, "std": [1] * 3}}, "no normalisation"),
        ({"name": ...}, "'name' is a required property"),
        ({"name": "../x"}, "member name: .* is not a name of letters"),
        ({"task": "paint"}, "member task: .*'classify', 'segment', 'chain', 'embed' or 'mil'"),
        ({"task": "segment"}, "timm/resnet18 cannot segment"),
        ({"architecture": {"name": "smp/unet"}}, "smp/unet cannot classify"),
        ({"background_class": "normal"}, "are for models that segment"),
        (
            {"grid": {"mpp": 1, "tile_px": 128, "stride_px": 64, "margin_px": 8}},
            "are for models that segment",
        ),
        ({**SEGMENT, "background_class": "x"}, "background_class 'x' is none of the classes"),
        ({**SEGMENT, "activation": "sigmoid", "background_class": "normal"}, "is for softmax"),
        (
            {**SEGMENT, "grid": {"mpp": 1, "tile_px": 128, "stride_px": 65}},
            "tile_px - stride_px must be even",
        ),
        (
            {**SEGMENT, "grid": {"mpp": 1, "tile_px": 128, "stride_px": 100, "margin_px": 16}},
            "leaves gaps .* margins of 16 px: choose a stride of at most 96",
        ),
        ({"grid": {"mpp": 0, "tile_px": 1, "stride_px": 1}}, "member grid.mpp: 0 .*above 0"),
        ({"grid": {"mpp": 1, "tile_px": 8, "stride_px": 16}}, "grid: .*leaves gaps"),
        ({"classes": []}, "at least one class"),
        ({"classes": ...}, "'classes' is a required property"),
        ({"activation": ...}, "'activation' is a required property"),
        ({**EMBED, "embedding_dim": ...}, "'embedding_dim' is a required property"),
        ({**EMBED, "activation": "softmax"}, "activation is for models with classes"),
        ({"embedding_dim": 512}, "embedding_dim is for models that embed"),
        ({**EMBED, "architecture": {"name": "smp/unet"}}, "smp/unet cannot embed"),
        ({"classes": [{"name": "a", "color": [0, 0, 256]}]}, r"member classes.0.color.2: 256"),
        ({"classes": [CLASSES[0], CLASSES[0]], "positive_class": None}, "same name"),
        ({"positive_class": "x"}, "'x' is none of the classes"),
        ({"surprise": 1}, "surprise"),
        ({"normalisation": {"mean": [0] * 3, "std": [0] * 3}}, "normalisation.std"),
        ({"architecture": ...}, "safetensors need 'architecture'"),
        ({"architecture": {"name": "evil/net"}}, "'timm/<name>'"),
        ({"schema_version": 2}, "newer version .* update"),
        ({"schema_version": "1"}, "member schema_version"),
        ({"weights": {"file": "w.bin", "format": "pickle", "sha256": "0" * 64}}, "never loaded"),
        (
            {"weights": {"file": "gone", "format": "safetensors", "sha256": "0" * 64}},
            "'gone' are missing",
        ),
        (
            {"weights": {"file": "../other", "format": "safetensors", "sha256": "0" * 64}},
            "must lie inside",
        ),
        (
            {"weights": {"file": "/etc/passwd", "format": "safetensors", "sha256": "0" * 64}},
            "must lie inside",
        ),
    ],
)
def test_a_broken_description_is_told_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = write_model(tmp_path / "m", **changes)
    with pytest.raises(ModelError, match=words) as caught:
        load_manifest(folder)
    message = str(caught.value)
    assert str(folder / "model.json") in message
    assert "\n" not in message


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (tmp_path / "outside").write_bytes(WEIGHTS)
    (folder / "weights.safetensors").unlink()
    try:
        (folder / "weights.safetensors").symlink_to(tmp_path / "outside")
    except OSError:
        pytest.skip("this system lets nobody make links")
    with pytest.raises(ModelError, match="must lie inside"):
        load_manifest(folder)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither model.json nor WSInfer's config.json"):
        load_manifest(tmp_path)
    with pytest.raises(ModelError, match="a model is a folder"):
        load_manifest(tmp_path / "gone")
    (tmp_path / "model.json").write_bytes(b"\xff{")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        load_manifest(tmp_path)
    (tmp_path / "model.json").write_text("[1, 2]")
    with pytest.raises(ModelError, match="is not an object"):
        load_manifest(tmp_path)


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    model = load_manifest(folder)
    (folder / "weights.safetensors").write_bytes(WEIGHTS + b"!")
    with pytest.raises(ModelError, match="get the model again"):
        verify_model(model)


def test_weights_that_git_lfs_has_not_fetched(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (folder / "weights.safetensors").write_bytes(pointer)
    with pytest.raises(ModelError, match="git lfs pull"):
        verify_model(load_manifest(folder))


def test_the_hash_covers_what_decides_an_answer_and_nothing_else(tmp_path: Path) -> None:
    sha256 = load_manifest(write_model(tmp_path / "m")).sha256
    same = [
        {"description": "Other words."},
        {"licence": "MIT"},
        {"grid": {"mpp": 1.0, "tile_px": 128, "stride_px": 32}},  # part of the job
        {"scores": {"auroc": 0.9}},
    ]
    other = [
        {"temperature": 2},
        {"activation": "sigmoid"},
        {"normalisation": None},
        {"architecture": {"name": "timm/resnet18", "arguments": {"drop_rate": 0.1}}},
        {"classes": CLASSES[::-1]},
    ]
    assert {load_manifest(write_model(tmp_path / "m", **c)).sha256 for c in same} == {sha256}
    others = {load_manifest(write_model(tmp_path / "m", **c)).sha256 for c in other}
    assert len(others) == len(other)
    assert sha256 not in others
    assert load_manifest(write_model(tmp_path / "elsewhere")).sha256 == sha256


def test_a_wsinfer_folder_is_a_model(tmp_path: Path) -> None:
    model = load_manifest(write_wsinfer(tmp_path / "lymphocytes"))
    assert (model.name, model.kind, model.read) == ("lymphocytes", "wsinfer", "level0")
    assert (model.activation, model.weights_format) == ("softmax", "torchscript")
    assert model.positive_class == "Lymphocytes", "Other is what is left"
    assert (model.grid.mpp, model.grid.tile_px, model.grid.stride_px) == (0.5, 100, 100)
    assert model.classes[1].color == (160, 90, 160), "QuPath's colour"
    assert model.weights_sha256 == digest(WEIGHTS)


def test_wsinfer_folders_without_the_newer_members_load(tmp_path: Path) -> None:
    folder = write_wsinfer(tmp_path / "m", spec_version=..., architecture=...)
    assert load_manifest(folder).class_names == ("Other", "Lymphocytes")


def test_one_class_is_a_sigmoid(tmp_path: Path) -> None:
    folder = write_wsinfer(tmp_path / "m", num_classes=1, class_names=["Tumor"])
    assert load_manifest(folder).activation == "sigmoid"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_classes": 3}, "num_classes is 3 but class_names holds 2"),
        ({"class_names": ["a", "a"]}, "different names"),
        ({"spacing_um_px": 0}, "spacing_um_px"),
        ({"transform": [{"name": "Rotate"}]}, "transform.0.name"),
        ({"patch_size_pixels": ...}, "patch_size_pixels"),
        ({"spec_version": "2.0"}, "spec_version"),
    ],
)
def test_a_broken_wsinfer_folder_is_told(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        load_manifest(write_wsinfer(tmp_path / "m", **changes))


def test_a_wsinfer_folder_holds_one_graph(tmp_path: Path) -> None:
    folder = write_wsinfer(tmp_path / "m")
    (folder / "second.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="it holds 2"):
        load_manifest(folder)


def test_what_wsinfers_own_schema_takes_loads(tmp_path: Path, data_dir: Path) -> None:
    schema = json.loads((data_dir / "wsinfer-config-schema/model-config.schema.json").read_text())
    jsonschema.Draft4Validator(schema).validate(CONFIG)
    load_manifest(write_wsinfer(tmp_path / "m"))


def test_models_are_found_in_order(
    tmp_path: Path, own_user_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "named" / "a", description="first")
    write_model(tmp_path / "variable" / "a", description="second")
    write_model(tmp_path / "variable" / "b")
    write_model(own_user_data / "models" / "c")
    alone = write_model(tmp_path / "alone")
    monkeypatch.setenv("HISTOMIL_MODELS", str(tmp_path / "variable"))
    found, _ = list_models([tmp_path / "named", alone])
    names = [model.name for model in found]
    assert names[:4] == ["a", "alone", "b", "c"]
    assert found[0].description == "first"
    assert find_model("b").path == tmp_path / "variable" / "b"
    assert find_model(tmp_path / "alone").name == "alone"
    assert search_path([tmp_path / "gone"])[0] == tmp_path / "variable"
    with pytest.raises(ModelError, match=r"no model named 'x' \(known: .*b, c"):
        find_model("x")


def test_a_broken_model_is_told_and_hides_no_other(tmp_path: Path) -> None:
    write_model(tmp_path / "good")
    write_model(tmp_path / "broken", task="fly")
    found, broken = list_models([tmp_path])
    assert "good" in [model.name for model in found]
    assert any("broken" in str(error) for error in broken)
    with pytest.raises(ModelError, match="task"):
        find_model("broken", [tmp_path])


def test_listing_models_needs_no_torch() -> None:
    program = (
        "import sys; from napari_histomil.manifest import list_models; list_models(); "
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    assert importlib.util.find_spec("torch") is not None
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def chain_of(folder: Path, **changes: Any) -> Path:
    """A patch classifier, a model that segments, and a chain of them in one folder."""
    write_model(folder / "coarse")
    write_model(folder / "fine", **SEGMENT, background_class="normal")
    coarse, fine = (load_manifest(folder / name) for name in ("coarse", "fine"))
    steps: list[dict[str, Any]] = [
        {
            "do": "detect",
            "model": "coarse",
            "sha256": coarse.sha256,
            "class": "tumor",
            "grid": {"mpp": 2.0, "tile_px": 64, "stride_px": 32},
        },
        {
            "do": "segment",
            "model": "fine",
            "sha256": fine.sha256,
            "threshold": 0.2,
            "margin_um": 100,
        },
    ]
    members: dict[str, Any] = {
        "task": "chain",
        "weights": ...,
        "architecture": ...,
        "normalisation": ...,
        "background_class": "normal",
        "steps": steps,
    }
    return write_model(folder / "cascade", **{**members, **changes})


def changed(number: int, **changes: Any) -> Any:
    """Steps of the chain above, one of them changed."""

    def change(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        new = {k: v for k, v in {**steps[number], **changes}.items() if v is not ...}
        return [*steps[:number], new, *steps[number + 1 :]]

    return change


def test_a_chain_says_its_steps(tmp_path: Path) -> None:
    model = load_manifest(chain_of(tmp_path))
    assert (model.task, model.segments, model.inputs) == ("chain", True, ())
    assert model.chain is not None
    assert model.chain.detect.grid.cell_um == 64
    assert (model.chain.refine, model.chain.threshold, model.chain.margin_um) == (None, 0.2, 100)
    steps = find_steps(model)  # beside the chain
    assert (steps.detect.name, steps.refine, steps.segment.name) == ("coarse", None, "fine")
    verify_model(model)
    again = load_manifest(chain_of(tmp_path, description="Other words.", name="other"))
    assert again.sha256 == model.sha256, "words decide nothing"


@pytest.mark.parametrize(
    "change",
    [
        changed(0, grid={"mpp": 1.0, "tile_px": 64, "stride_px": 32}),
        changed(0, **{"class": "normal"}),
        changed(0, sha256="0" * 64),
        changed(0, stain="macenko"),
        changed(1, threshold=0.3),
        changed(1, margin_um=50),
        changed(1, sha256="0" * 64),
    ],
)
def test_whatever_decides_a_chain_is_in_its_hash(tmp_path: Path, change: Any) -> None:
    before = load_manifest(chain_of(tmp_path))
    steps = json.loads((before.path / "model.json").read_text())["steps"]
    assert load_manifest(chain_of(tmp_path, steps=change(steps))).sha256 != before.sha256


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda steps: steps[::-1], "each once and in this order, not segment, detect"),
        (lambda steps: steps[:1] * 2, "in this order, not detect, detect"),
        (changed(0, threshold=0.5), "the step detect of a chain has the members"),
        (changed(1, threshold=...), "the step segment of a chain has the members"),
        (changed(1, threshold=2), "2 is not a probability of 0 to 1"),
        (changed(0, grid={"mpp": 1, "tile_px": 8, "stride_px": 16}), "leaves gaps"),
        (changed(0, do="guess"), "'detect', 'refine' or 'segment'"),
    ],
)
def test_steps_that_make_no_chain_are_told(tmp_path: Path, change: Any, words: str) -> None:
    chain_of(tmp_path)
    steps = json.loads((tmp_path / "cascade" / "model.json").read_text())["steps"]
    with pytest.raises(ModelError, match=words):
        load_manifest(chain_of(tmp_path, steps=change(steps)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": ...}, "steps are missing"),
        ({"normalisation": {"mean": [0] * 3, "std": [1] * 3}}, "normalisation cannot stand here"),
        ({"background_class": ...}, "a chain with softmax needs background_class"),
        ({"task": "segment"}, "steps cannot stand here"),
    ],
)
def test_a_chain_has_nothing_of_its_own(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        load_manifest(chain_of(tmp_path, **changes))


def test_a_chain_whose_models_changed_is_told(tmp_path: Path) -> None:
    model = load_manifest(chain_of(tmp_path))
    write_model(tmp_path / "fine", **SEGMENT, background_class="normal", temperature=2.0)
    with pytest.raises(ModelError, match=r"fine in .* is not the one that the chain cascade was"):
        find_steps(model)
    (tmp_path / "fine" / "model.json").unlink()
    with pytest.raises(ModelError, match="The chain cascade cannot be used: There is no model"):
        find_steps(model)


def test_a_refiner_takes_four_channels(tmp_path: Path) -> None:
    four: dict[str, Any] = {
        **SEGMENT,
        "architecture": {"name": "smp/unet", "arguments": {"in_channels": 4}},
        "inputs": ["overview", "heatmap"],
        "normalisation": {"mean": [0.5] * 4, "std": [0.2] * 4},
    }
    assert load_manifest(write_model(tmp_path / "m", **four)).channels == 4
    for change in (
        {"inputs": ...},
        {"architecture": {"name": "smp/unet"}},
        {"normalisation": {"mean": [0.5] * 3, "std": [0.2] * 3}},
    ):
        with pytest.raises(ModelError, match="a net has in_channels 4 and four numbers"):
            load_manifest(write_model(tmp_path / "m", **{**four, **change}))
    with pytest.raises(ModelError, match="inputs are for models that segment"):
        load_manifest(
            write_model(
                tmp_path / "m", inputs=["overview", "heatmap"], normalisation=four["normalisation"]
            )
        )
