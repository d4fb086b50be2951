"""The window: the only folder that knows napari and Qt."""
