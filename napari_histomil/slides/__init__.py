"""Pixels in: facts and pixels of slides in any format."""

READER_NAMES = ("tiff", "ndpi", "openslide", "zarr", "wsidicom")
"""Who can read slides; `open_slide` chooses for each file, or takes the one that is named."""
