"""What the label of a pixel means besides the index of its class."""

from __future__ import annotations

from dataclasses import dataclass

from napari_histomil.errors import TrainingError

UNLABELLED = 255
"""Nobody has judged it: it is not learnt from."""

NONE = 254
"""It was judged and is none of the classes: all of them are false there (sigmoid only)."""

WORDS = ("background", "unlabelled")
"""What a value in a mask may mean besides a class."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Which label a class, background, and what is unlabelled have."""

    names: tuple[str, ...]
    """Classes; the label of each is its place."""
    positive: int
    background: int
    """Label of what was looked at and is none of the classes: one of them, `NONE`, or
    `UNLABELLED` where there is no such thing."""

    def of(self, word: str) -> int:
        """Return the label of a class, ``background`` or ``unlabelled``.

        Raises
        ------
        TrainingError
            If it is none of them.
        """
        if word in self.names:
            return self.names.index(word)
        if word not in WORDS:
            raise TrainingError(
                f"{word!r} is none of the classes {', '.join(self.names)}, nor one of the words "
                f"{', '.join(WORDS)}."
            )
        return self.background if word == "background" else UNLABELLED


TWO = Labels(("background", "positive"), 1, 0)
"""Of a mask that tells one class from all else."""
