"""A file on its way into the set of a slide: all that takes time, done before the step.

With 100,000 regions mapping, copying and rounding take seconds: `arrival` does them in a thread,
and what is left for the window is one step that is ready.
"""

from __future__ import annotations

from dataclasses import dataclass

from napari_histomil.annotations import commands
from napari_histomil.annotations.classes import classes_of
from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.commands import Known
from napari_histomil.annotations.extras import joined
from napari_histomil.annotations.files import AnnotationFile, without_collection
from napari_histomil.annotations.mapping import ClassMapping, mapped
from napari_histomil.annotations.model import AnnotationClass
from napari_histomil.annotations.shapes import Shift
from napari_histomil.annotations.steps import settled


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that is ready to come in."""

    command: Command
    """The step, with settled shapes (`steps.settled`)."""
    classes: tuple[AnnotationClass, ...]
    """What its regions are, each class once."""
    notes: tuple[str, ...]
    """Sentences for the person about what was assumed, changed or left out."""


def arrival(
    annotations: AnnotationSet,
    file: AnnotationFile,
    mapping: ClassMapping | None,
    source: str,
    *,
    known: Known,
    shift: Shift,
) -> Arrival:
    """Return what importing a file into a set would do; nothing is done.

    The set is only looked up in, so that it may change meanwhile in the thread it belongs to: a
    step that no longer fits then is refused when it is done.

    Parameters
    ----------
    annotations
        As it is now.
    file
        What was read.
    mapping
        What its groups become; None leaves them.
    source
        What the step and sentences call the file.
    known
        What becomes of regions that are in the set already, see `commands.bring_in`.
    shift
        Origin of the frame in which the set is kept.

    Raises
    ------
    AnnotationError
        If a fixed region would be replaced, or a shape cannot be cut.
    """
    with without_collection():  # each would hold all threads for a third of a second
        file = mapped(file, mapping)
        extra, lost = joined(annotations.extra, file.extra, source)
        command = commands.bring_in(annotations, file.regions, source, known=known, extra=extra)
        return Arrival(settled(command, shift), classes_of(file.regions), (*file.notes, *lost))
