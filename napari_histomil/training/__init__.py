"""Train models: data, loops, scores, cards. Torch is at home here, napari is not."""
