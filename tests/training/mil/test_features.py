from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from model_folders import make_encoder_folder

from napari_histomil.cli import main
from napari_histomil.errors import TrainingError
from napari_histomil.manifest import load_manifest
from napari_histomil.results import FeatureStore
from napari_histomil.tiling import GridSpec
from napari_histomil.training.mil.bags import open_bags
from napari_histomil.training.mil.config import MilConfig, read_mil_config
from napari_histomil.training.mil.features import with_features
from napari_histomil.training.mil.fit import Watched
from napari_histomil.training.mil.recipe import encoder_facts
from napari_histomil.training.mil.reference import nuclear_um
from napari_histomil.training.mil.table import Case, read_table

TINY = {"channels": [8, 8, 8, 16], "stem_width": 8}


@pytest.fixture
def slides(toy: Path) -> Path:
    """Four slides: two of them violet in the middle, two pink; an encoder; a table."""
    make_encoder_folder(toy / "tiny", "resnet10t", TINY)
    rng = np.random.default_rng(0)
    lines = ["slide,label"]
    for n in range(4):
        image = np.full((512, 512, 3), 240.0)
        image[64:448, 64:448] = (150, 60, 160) if n % 2 else (220, 130, 190)
        image += rng.normal(0, 12, image.shape)
        tifffile.imwrite(
            toy / f"{n}.tif",
            image.clip(0, 255).astype(np.uint8),
            tile=(128, 128),
            resolution=(20000, 20000),
            resolutionunit="CENTIMETER",
        )
        lines.append(f"{n}.tif,{('normal', 'tumor')[n % 2]}")
    (toy / "slides.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = (toy / "train.toml").read_text(encoding="utf-8")
    text = text.replace('table = "bags.csv"', 'table = "slides.csv"\nfeatures = "features"')
    text = text.replace('encoder = "toy-encoder"', 'encoder = "tiny"')
    text = text.replace(
        "[[grids]]\nmpp = 1.0\ntile_px = 64\nstride_px = 64",
        "[[grids]]\nmpp = 2.0\ntile_px = 32\nstride_px = 32\n\n"
        "[[grids]]\nmpp = 1.0\ntile_px = 32\nstride_px = 32",
    )
    text = text.replace(
        'name = "gated-attention"\narguments = { hidden = [8], attention = 8, dropout = 0.0 }',
        'name = "zoommil"\narguments = { magnifications = 2, k = 2, hidden = 8, attention = 4 }',
    )
    text = text.replace("validation = 0.25", "validation = 0.5").replace("folds = 3", "folds = 0")
    (toy / "train.toml").write_text(text, encoding="utf-8")
    return toy


def found(config: MilConfig, folder: Path) -> list[Case]:
    steps = with_features(config, read_table(config, folder), folder, watched=Watched())
    while True:
        try:
            next(steps)
        except StopIteration as end:
            cases: list[Case] = end.value
            return cases


def test_from_slides_to_a_model_by_one_command(
    slides: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", str(slides / "train.toml"), "-o", str(slides / "model")])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert "features of 0.tif, 2 µm/px: tile" in shown.err
    manifest = load_manifest(slides / "model")
    encoder = load_manifest(slides / "tiny")
    assert manifest.mil is not None
    assert manifest.mil.encoder.sha256 == encoder.sha256
    assert [g.mpp for g in manifest.mil.grids] == [2.0, 1.0]
    kinds = manifest.mil.reference["attention_quantiles"]
    assert [len(q) for q in kinds] == [101, 101, 101]  # selection and two of attention

    config = read_mil_config(slides / "train.toml")
    cases = found(config, slides)
    data = open_bags(cases)
    low, high = data.arrays["1.tif"]
    assert len(high) == 4 * len(low)
    store = FeatureStore.open(cases[1].bags[0])
    np.testing.assert_array_equal(np.asarray(low), store.features.astype(np.float32))


def test_files_of_others_are_taken_where_they_lie(slides: Path) -> None:
    config = read_mil_config(slides / "train.toml")
    folder = slides / "features" / "h5_files"
    folder.mkdir(parents=True)
    for n in range(4):
        with h5py.File(folder / f"{n}.h5", "w") as file:
            file["features"] = np.full((3, 16), n, np.float32)
    cases = found(config, slides)
    assert [c.bags for c in cases] == [(folder / f"{n}.h5",) for n in range(4)]


def test_the_encoder_that_is_named_must_be_that_of_the_bags(slides: Path) -> None:
    config = read_mil_config(slides / "train.toml")
    data = open_bags(found(config, slides))
    other = make_encoder_folder(slides / "other", "resnet10t", TINY | {"stem_width": 4})
    with pytest.raises(TrainingError, match="features of different encoders"):
        encoder_facts(config, data, load_manifest(other))


def test_slides_without_features_need_an_encoder_that_is_here(slides: Path) -> None:
    text = (slides / "train.toml").read_text(encoding="utf-8")
    (slides / "train.toml").write_text(text.replace('"tiny"', '"uni-of-others"'), "utf-8")
    with pytest.raises(TrainingError, match=r"no features of 0\.tif .* uni-of-others"):
        found(read_mil_config(slides / "train.toml"), slides)


def test_the_size_of_nuclei_is_that_of_the_slides(slides: Path, data_dir: Path) -> None:
    real = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"
    cases = [Case("real", 0, "a", slide=real), Case("file", 1, "b", bags=(slides / "b.h5",))]
    assert nuclear_um(cases, GridSpec(1.0, 64, 64)) == pytest.approx(4.5, abs=0.3)
    assert nuclear_um(cases[1:], GridSpec(1.0, 64, 64)) is None
