"""Labelled pixels lie where they belong, and groups never lie on both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refiner_cohort import write_slides

from napari_histomil.cli import main
from napari_histomil.errors import TrainingError
from napari_histomil.training.config import Source, Split, read_config
from napari_histomil.training.data import make_synthetic, read_folders, read_sources, read_tiles
from napari_histomil.training.fields import UNLABELLED, array_field
from napari_histomil.training.labels import NONE, Labels
from napari_histomil.training.splits import hold_out


def test_tiles_are_read_with_groups_and_threshold(toy: Path) -> None:
    fields = read_sources(read_config(toy / "train.toml"), toy)
    assert [f.group for f in fields] == [
        "toy tiles/a+b", "toy tiles/a+b", "toy tiles/c", "toy tiles/d",
    ]  # fmt: skip
    _, labels = fields[0].cut((0, 0), 128)
    assert labels[:, :64].max() == 0
    assert labels[:, 64:].min() == 1


def test_channels_stored_as_bgr_are_turned(toy: Path) -> None:
    source = read_config(toy / "train.toml").sources[0]
    Image.new("RGB", (128, 128), (10, 20, 30)).save(toy / "tiles" / "images" / "a.png")
    image, _ = read_tiles(replace(source, channel_order="bgr"), toy, 1.0)[0].cut((0, 0), 4)
    assert image[0, 0].tolist() == [30, 20, 10]


def test_tiles_of_another_resolution_are_averaged(toy: Path) -> None:
    source = read_config(toy / "train.toml").sources[0]
    field = read_tiles(replace(source, mpp=0.5), toy, 1.0)[0]
    assert field.size_px == (64, 64)
    assert field.cut((0, 0), 64)[1].mean() == 0.5


def test_a_mask_without_its_picture_is_refused(toy: Path) -> None:
    (toy / "tiles" / "images" / "c.png").unlink()
    with pytest.raises(TrainingError, match="c has no partner"):
        read_sources(read_config(toy / "train.toml"), toy)


def test_dots_in_the_name_of_a_picture_belong_to_it(toy: Path) -> None:
    folder = toy / read_config(toy / "train.toml").sources[0].path
    for inner in ("images", "masks"):
        for old in list((folder / inner).glob("a.*")):
            old.rename(old.with_name(f"a_0.02_turned{old.suffix}"))
    source = replace(read_config(toy / "train.toml").sources[0], groups=(("a_0.02_turned", "c"),))
    groups = {f.name: f.group for f in read_tiles(source, toy, 1.0)}
    assert groups["a_0.02_turned"] == groups["c"] == "toy tiles/a_0.02_turned+c"


def test_a_group_of_a_missing_picture_is_refused(toy: Path) -> None:
    source = replace(read_config(toy / "train.toml").sources[0], groups=(("a", "nobody"),))
    with pytest.raises(TrainingError, match="nobody"):
        read_tiles(source, toy, 1.0)


def test_no_data_is_one_sentence(toy: Path) -> None:
    with pytest.raises(TrainingError, match="name the data's folder with --data"):
        read_sources(read_config(toy / "train.toml"), toy / "elsewhere")


def test_pieces_are_mirrored_and_slides_end_in_glass() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)[..., None].repeat(3, axis=2)
    labels = np.ones((4, 4), np.uint8)
    piece = array_field("p", "g", "s", image, labels, mirrored=True)
    pixels, _ = piece.cut((-2, 0), 4)
    assert pixels[0, :, 0].tolist() == [2, 1, 0, 1]
    slide = array_field("p", "g", "s", image, labels, mirrored=False)
    pixels, found = slide.cut((-2, 2), 4)
    assert pixels[0, :, 0].tolist() == [255, 255, 8, 9]
    assert found[:2].tolist() == [[0, 0, 1, 1]] * 2
    assert pixels[2:].min() == 255


def test_a_synthetic_field_knows_tumour_and_glass() -> None:
    size = (512, 512)
    whole = make_synthetic(3, "s", 1.0, size)
    tissue = make_synthetic(3, "s", 1.0, size, only_tissue=True)
    assert whole.size_px == (256, 256)
    assert 0 < whole.labels.mean() < 1
    np.testing.assert_array_equal(whole.image, tissue.image)
    glass = tissue.labels == UNLABELLED
    assert glass.any()
    assert whole.labels[glass].max() == 0
    np.testing.assert_array_equal(whole.labels[~glass], tissue.labels[~glass])
    assert whole.image[glass].mean() > whole.image[~glass].mean()


def test_values_of_a_mask_are_named(toy_unet: Path) -> None:
    config = read_config(toy_unet / "train.toml")
    mask = np.zeros((128, 128), np.uint8)
    mask[0], mask[1], mask[2], mask[3] = 1, 2, 7, 250
    Image.fromarray(mask).save(toy_unet / "tiles" / "masks" / "a.png")
    values = {"0": "background", "1": "tumor", "2": "unlabelled", "250": "normal"}
    source = replace(config.sources[0], values=values)
    field = read_tiles(source, toy_unet, 1.0, config.labels)[0]
    labels = field.cut((0, 0), 128)[1]
    assert labels[:5, 0].tolist() == [1, UNLABELLED, UNLABELLED, 0, 0]  # 7 has no name
    none = replace(config.labels, background=NONE)
    assert read_tiles(source, toy_unet, 1.0, none)[0].cut((0, 0), 128)[1][4, 0] == NONE
    with pytest.raises(TrainingError, match="toy tiles: values: 'lung' is none of the classes"):
        read_tiles(replace(source, values={"1": "lung"}), toy_unet, 1.0, config.labels)
    with pytest.raises(TrainingError, match="whole numbers before the '='"):
        read_tiles(replace(source, values={"one": "tumor"}), toy_unet, 1.0, config.labels)


def test_a_mask_stored_as_jpeg_takes_the_nearest_value(toy_unet: Path) -> None:
    config = read_config(toy_unet / "train.toml")
    (toy_unet / "tiles" / "masks" / "a.png").unlink()
    mask = np.zeros((128, 128), np.uint8)
    mask[:, 64:] = 255
    Image.fromarray(mask).save(toy_unet / "tiles" / "masks" / "a.jpg", quality=30)
    source = replace(config.sources[0], values={"0": "background", "255": "tumor"})
    labels = read_tiles(source, toy_unet, 1.0, config.labels)[0].cut((0, 0), 128)[1]
    assert (labels[:, :60].max(), labels[:, 68:].min()) == (0, 1)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Pictures of two classes, of three patients."""
    lines = ["file,label,patient,slide"]
    for label in ("benign", "malignant"):
        (tmp_path / label).mkdir()
        for i in range(3):
            Image.new("RGB", (60 + 10 * i, 40), (80 * i, 0, 0)).save(tmp_path / label / f"{i}.png")
            lines.append(f"{label}/{i}.png,{label},p{min(i, 1)},{label}{i}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


TUMOUR = Labels(("benign", "malignant"), 1, 0)


def test_folders_are_classes_and_patients_are_groups(folders: Path) -> None:
    source = Source("folders", "breast", "CC BY 4.0", labels="labels.csv")
    fields = read_folders(source, folders, 1.0, TUMOUR)
    assert [f.present for f in fields] == [(0,)] * 3 + [(1,)] * 3
    assert [f.group for f in fields] == ["breast/p0", "breast/p1", "breast/p1"] * 2
    assert fields[2].size_px == (80, 40)
    assert fields[4].tags["slide"] == "malignant1"
    half = read_folders(replace(source, mpp=0.5), folders, 1.0, TUMOUR)
    assert half[2].size_px == (40, 20)


def test_pictures_that_answer_as_a_whole_are_resized(folders: Path) -> None:
    source = Source("folders", "breast", "CC BY 4.0", resize_px=32)
    fields = read_folders(source, folders, 1.0, TUMOUR)
    assert {f.size_px for f in fields} == {(32, 32)}
    rng = np.random.default_rng(0)
    assert {f.place(rng, 1) for f in fields} == {(16, 16)}


def test_what_annotations_tiles_writes_trains_without_editing(tmp_path: Path) -> None:
    write_slides(tmp_path, "ab")
    rows = ["slide,annotations,patient", "a.tif,a.geojson,P1", "b.tif,b.geojson,P2"]
    (tmp_path / "slides.csv").write_text("\n".join(rows), encoding="utf-8")
    command = ["annotations", "tiles", str(tmp_path / "slides.csv"), "--mpp", "4", "--tile", "64"]
    command += ["--split", "train=0.5,val=0.5", "-o", str(tmp_path / "tiles")]
    assert main(command) == 0
    source = Source("tiles", "tiles", "CC0-1.0", path="tiles", labels="tiles/manifest.csv")
    source = replace(source, class_names={"Tumor": "malignant"})
    for given in (source, replace(source, labels="")):  # which lies beside them
        fields = read_tiles(given, tmp_path, 4.0, TUMOUR)
        assert {f.group for f in fields} == {"tiles/P1", "tiles/P2"}
        assert {f.tags["slide"] for f in fields} == {"a.tif", "b.tif"}
        seen = set()
        for field in fields:
            mask = np.asarray(Image.open(tmp_path / "tiles" / "masks" / f"{field.name}.png"))
            np.testing.assert_array_equal(field.cut((0, 0), 64)[1], mask)  # 1 is Tumor in both
            seen |= set(np.unique(mask).tolist())
        assert seen >= {0, 1}
    sides = hold_out(fields, Split(validation_groups=("val",)))
    assert {f.tags["split"] for f in sides.train} == {"train"}
    assert {f.tags["split"] for f in sides.validation} == {"val"}
    with pytest.raises(TrainingError, match="has tiles of Tumor, and the model none"):
        read_tiles(replace(source, class_names={}), tmp_path, 4.0, TUMOUR)


def test_folders_refused(folders: Path) -> None:
    source = Source("folders", "breast", "CC BY 4.0", labels="labels.csv")
    with pytest.raises(TrainingError, match="no pictures in folders called lung"):
        read_folders(source, folders, 1.0, Labels(("lung",), 0, 254))
    Image.new("RGB", (9, 9)).save(folders / "benign" / "new.png")
    with pytest.raises(TrainingError, match=r"has no line for benign/new\.png"):
        read_folders(source, folders, 1.0, TUMOUR)
    (folders / "benign" / "new.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match="cannot be read as a picture"):
        read_folders(replace(source, labels=""), folders, 1.0, TUMOUR)


def test_real_pictures_by_patient(data_dir: Path) -> None:
    folder = "tiles-breakhis-100x"
    source = Source(
        "folders", "BreaKHis", "CC BY 4.0", path=folder, labels=f"{folder}/labels.csv", resize_px=8
    )
    fields = read_folders(source, data_dir, 1.0, TUMOUR)
    patients = {f.tags["patient"] for f in fields}
    assert len({f.group for f in fields}) == len(patients) > 10
    assert {f.present for f in fields} == {(0,), (1,)}
