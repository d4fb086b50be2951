"""Small DICOM slides, written with pydicom: tiles in several encodings, full or sparse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SLIDE_CLASS = UID("1.2.840.10008.5.1.4.1.1.77.1.6")
TILE_PX = 64


def _rle(tile: np.ndarray) -> bytes:
    """Encode as PS3.5 annex G says, in runs of literals: one segment a byte of each sample."""
    wide = tile.reshape(*tile.shape[:2], -1)
    planes = [wide[..., sample] for sample in range(wide.shape[2])]
    parts = []
    for plane in planes:
        big_endian = plane.astype(plane.dtype.newbyteorder(">")).tobytes()
        for byte in range(plane.dtype.itemsize):
            raw = big_endian[byte :: plane.dtype.itemsize]
            rows = [raw[start : start + 64] for start in range(0, len(raw), 64)]
            packed = b"".join(bytes([len(row) - 1]) + row for row in rows)
            parts.append(packed + b"\0" * (len(packed) % 2))
    offsets = [64 + sum(map(len, parts[:index])) for index in range(len(parts))]
    head = np.array([len(parts), *offsets, *[0] * (15 - len(parts))], "<u4").tobytes()
    return head + b"".join(parts)


ENCODERS: dict[UID, Callable[[np.ndarray], bytes]] = {
    ExplicitVRLittleEndian: lambda tile: tile.tobytes(),
    JPEGBaseline8Bit: lambda tile: imagecodecs.jpeg8_encode(tile, level=90, subsampling="422"),
    JPEG2000Lossless: lambda tile: imagecodecs.jpeg2k_encode(
        tile, reversible=True, codecformat="j2k", mct=False
    ),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    RLELossless: _rle,
}


def write_dicom_slide(
    folder: Path,
    levels: Sequence[np.ndarray],
    *,
    syntax: UID = ExplicitVRLittleEndian,
    left_out: Sequence[tuple[int, int]] = (),
    icc: bytes = b"",
    bits: int | None = None,
    description: str = "made",
    series: str | None = None,
) -> list[Path]:
    """Write a slide, one file a level.

    Parameters
    ----------
    levels
        uint8 [h, w, 3], or uint8 or uint16 [h, w] for grey.
    left_out
        (row, column) of tiles that level 0 does not store; makes it sparse.
    bits
        Of uint16, how many are used; 16 by default.

    Returns
    -------
    list of Path
        The files, finest level first.
    """
    folder.mkdir(exist_ok=True)
    shared = {
        "StudyInstanceUID": generate_uid(), "SeriesInstanceUID": series or generate_uid(),
        "FrameOfReferenceUID": generate_uid(), "PyramidUID": generate_uid(),
    }  # fmt: skip
    paths = []
    for index, level in enumerate(levels):
        dataset = _level(level, index, levels[0].shape[1], syntax, left_out if not index else ())
        for name, value in shared.items():
            setattr(dataset, name, value)
        dataset.SeriesDescription = description
        if bits is not None:
            dataset.BitsStored, dataset.HighBit = bits, bits - 1
        path_item = Dataset()
        path_item.OpticalPathIdentifier = "1"
        path_item.OpticalPathDescription = "brightfield"
        path_item.IlluminationTypeCodeSequence = [_code("111744", "Brightfield illumination")]
        path_item.ObjectiveLensPower = "20"
        if icc:
            path_item.ICCProfile = icc
        dataset.OpticalPathSequence = [path_item]
        path = folder / f"{description}-{index}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _level(
    level: np.ndarray, index: int, width_px0: int, syntax: UID, left_out: Sequence[tuple[int, int]]
) -> Dataset:
    height, width = level.shape[:2]
    color = level.ndim == 3
    padded = np.full(
        (-(-height // TILE_PX) * TILE_PX, -(-width // TILE_PX) * TILE_PX, *level.shape[2:]),
        255, level.dtype,
    )  # fmt: skip
    padded[:height, :width] = level
    frames, positions = [], []
    for y in range(0, height, TILE_PX):
        for x in range(0, width, TILE_PX):
            if (y // TILE_PX, x // TILE_PX) not in left_out:
                tile = np.ascontiguousarray(padded[y : y + TILE_PX, x : x + TILE_PX])
                frames.append(ENCODERS[syntax](tile))
                positions.append((x, y))
    dataset: Any = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SLIDE_CLASS
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality, dataset.Manufacturer, dataset.ContainerIdentifier = "SM", "made", "1"
    kind = "NONE" if index == 0 else "RESAMPLED"
    dataset.ImageType = ["ORIGINAL" if index == 0 else "DERIVED", "PRIMARY", "VOLUME", kind]
    dataset.InstanceNumber = index + 1
    dataset.Rows = dataset.Columns = TILE_PX
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = width, height
    dataset.TotalPixelMatrixFocalPlanes, dataset.NumberOfOpticalPaths = 1, 1
    dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel = 3 if color else 1
    jpeg = syntax == JPEGBaseline8Bit
    dataset.PhotometricInterpretation = (
        "YBR_FULL_422" if jpeg and color else "RGB" if color else "MONOCHROME2"
    )
    if color:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * level.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    spacing = 0.0005 * width_px0 / width
    dataset.ImagedVolumeWidth, dataset.ImagedVolumeHeight = width * spacing, height * spacing
    dataset.ImagedVolumeDepth = 0.001
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing, spacing], 0.001
    common = Dataset()
    common.PixelMeasuresSequence = [measures]
    dataset.SharedFunctionalGroupsSequence = [common]
    dataset.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    dataset.TotalPixelMatrixOriginSequence = [origin]
    dataset.DimensionOrganizationType = "TILED_SPARSE" if left_out else "TILED_FULL"
    if left_out:
        dataset.PerFrameFunctionalGroupsSequence = [_position(x, y) for x, y in positions]
    dataset.LossyImageCompression = "01" if jpeg else "00"
    dataset.BurnedInAnnotation = dataset.SpecimenLabelInImage = "NO"
    dataset.VolumetricProperties, dataset.FocusMethod = "VOLUME", "AUTO"
    dataset.ExtendedDepthOfField = "NO"
    if syntax.is_encapsulated:
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PixelData = b"".join(frames)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    return dataset


def _position(x: int, y: int) -> Dataset:
    plane = Dataset()
    plane.ColumnPositionInTotalImagePixelMatrix = x + 1
    plane.RowPositionInTotalImagePixelMatrix = y + 1
    plane.XOffsetInSlideCoordinateSystem = plane.YOffsetInSlideCoordinateSystem = 0
    plane.ZOffsetInSlideCoordinateSystem = 0
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    group = Dataset()
    group.PlanePositionSlideSequence = [plane]
    group.OpticalPathIdentificationSequence = [path]
    return group
