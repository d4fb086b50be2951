"""Shapes on a slide: what a region is, and the files that hold regions."""
