"""Where the classes to annotate with are kept: the project's file, or a set of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_histomil.annotations import commands
from napari_histomil.annotations.classes import ClassSet, read_classes, write_classes
from napari_histomil.annotations.model import AnnotationClass
from napari_histomil.errors import AnnotationError
from napari_histomil.resources import user_data_dir
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.preferences import classes_file, keep_classes_file

OWN_FILE = "classes.json"
"""In the person's data folder."""


def place() -> Path:
    """Return the file that the classes are kept in; it need not exist."""
    return classes_file() or user_data_dir() / OWN_FILE


def load(annotator: Annotator) -> None:
    """Annotate with the classes that were kept.

    Raises
    ------
    AnnotationError
        If the project's file is gone or cannot be used; the classes stay as they are.
    """
    path = place()
    if path.is_file() or classes_file() is not None:
        use(annotator, read_classes(path))


def use(annotator: Annotator, classes: ClassSet) -> None:
    """Annotate with these classes, and with those that the regions have besides."""
    annotator.set_classes(classes.adopting(annotator.regions or ()))


def take_file(annotator: Annotator, path: Path) -> None:
    """Annotate with the classes of a file, which is that of the project from now on.

    QuPath's own list is read, and then a set of one's own: QuPath's file stays QuPath's.

    Raises
    ------
    AnnotationError
        If it cannot be used.
    OutputError
        If the classes cannot be kept.
    """
    classes = read_classes(path)
    if b'"pathClasses"' in path.read_bytes():
        keep_classes_file(None)
        write_classes(place(), classes)
    else:
        keep_classes_file(path)
    use(annotator, classes)


def save_as(annotator: Annotator, path: Path, *, locked: bool) -> None:
    """Write the classes to a file, which is that of the project from now on.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    now = annotator.classes
    classes = ClassSet(now.classes, now.keys, now.exclusive, now.priority, locked)
    write_classes(path, classes)
    keep_classes_file(path)
    annotator.set_classes(classes)


def edit(annotator: Annotator, change: Callable[[ClassSet], ClassSet]) -> None:
    """Change the classes, and keep them.

    Raises
    ------
    AnnotationError
        If they cannot be changed so.
    OutputError
        If they cannot be written; they are changed in this window all the same.
    """
    classes = change(annotator.classes)
    annotator.set_classes(classes)
    path = place()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_classes(path, classes)


def change_class(annotator: Annotator, name: str, new: AnnotationClass) -> None:
    """Give a class another name or colour, also on the regions that have it.

    Raises
    ------
    AnnotationError, OutputError
        As `edit`. Locked regions keep what they have, and a sentence says so.
    """
    active = annotator.active_class
    edit(annotator, lambda classes: classes.changed(name, new))
    if active is not None and active.name == name:
        annotator.set_class(new.name)
    mine = [region for region in annotator.regions or () if region.class_name == name]
    free = [region.id for region in mine if not region.is_fixed]
    if free:
        stamp = annotator.stamp()
        annotator.attempt(lambda regions: commands.set_class(regions, free, new, stamp))
    if len(free) < len(mine):
        annotator.tell(f"{len(mine) - len(free):,} locked regions keep {name} as it was.")


def number_text(name: str, classes: ClassSet) -> str:
    """Return the number key of a class as text; empty if it has none."""
    key = classes.key_of(name)
    return "" if key is None else str(key)


def checked_name(text: str) -> str:
    """Return the name of a class as a person typed it.

    Raises
    ------
    AnnotationError
        If there is none.
    """
    name = " ".join(text.split())
    if not name:
        raise AnnotationError("A class needs a name.")
    return name
