"""The errors that a person is meant to read.

Every message says what went wrong, where (which file, which place), and what to do; it is one
sentence, shown as it is in a dialog or on stderr with exit code 2. Whatever else escapes is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence

BRIEF_CHARACTERS = 160

MOST_NAMED = 5
"""Names that a sentence lists; of more the rest is counted."""


def brief(error: BaseException | str) -> str:
    """Return what a library says, as a part of our own sentence: one line, short, no full stop.

    Messages repeat what a file holds, and a hostile file holds megabytes.
    """
    if isinstance(error, KeyError):  # which says no more than the key
        error = f"it lacks {error}"
    words = "".join(c if c.isprintable() else " " for c in str(error)[: 4 * BRIEF_CHARACTERS])
    words = " ".join(words.split())
    if len(words) > BRIEF_CHARACTERS:
        words = words[: BRIEF_CHARACTERS - 1].rstrip() + "…"
    return words.rstrip(".") or type(error).__name__


def listed(names: Sequence[str]) -> str:
    """Return names as an enumeration, as a part of a sentence; of many the rest is counted."""
    shown = names if len(names) <= MOST_NAMED else names[: MOST_NAMED - 1]
    rest = len(names) - len(shown)
    words = [*shown, f"{rest:,} others"] if rest else list(shown)
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


class HistomilError(Exception):
    """Father of all errors with a message for the person at the screen."""


class SlideError(HistomilError):
    """A slide cannot be opened or read."""


class MissingMppError(SlideError):
    """A slide does not say how many micrometres a pixel has, and the task needs to know."""


class AlignmentError(HistomilError):
    """Point pairs do not say how two slides lie on each other, or a stored answer is unusable."""


class AnnotationError(HistomilError):
    """An annotation file or a shape in it cannot be used."""


class ModelError(HistomilError):
    """A model folder cannot be found, read or trusted."""


class RunError(HistomilError):
    """A job cannot be run, or a stored run cannot be used."""


class BusyError(RunError):
    """Somebody else is writing there: another process, or another window of this one."""


class TileError(RunError):
    """Reading or predicting one tile failed; the message holds slide, position and level."""


class TrainingError(HistomilError):
    """A training configuration or its data cannot be used."""


class ReviewError(HistomilError):
    """A review project, a form, or what is asked of stored verdicts cannot be used."""


class OutputError(HistomilError):
    """A result cannot be written where it was asked for."""


class JournalError(HistomilError):
    """A journal is damaged, foreign, or of a newer version of this program."""
