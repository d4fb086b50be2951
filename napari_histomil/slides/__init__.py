"""Pixels in: facts and pixels of slides in any format."""
