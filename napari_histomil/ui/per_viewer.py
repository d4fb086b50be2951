"""One of a kind for each viewer, which dies with it: sessions, overlays, second views.

What is made must hold its viewer weakly at most, else neither ever goes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class PerViewer(Generic[Made]):
    """Makes one thing for each viewer, at the first call.

    Parameters
    ----------
    make
        Called with the viewer itself.
    """

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self._make = make
        self._made: weakref.WeakKeyDictionary[Any, Made] = weakref.WeakKeyDictionary()

    def of(self, viewer: Any) -> Made:
        """Return what belongs to a viewer, made now if it is not there yet.

        Parameters
        ----------
        viewer
            A napari viewer, a ``ViewerModel``, or the proxy of one that napari gives to plugins.
        """
        viewer = _itself(viewer)
        if viewer not in self._made:
            self._made[viewer] = self._make(viewer)
        return self._made[viewer]

    def found(self, viewer: Any) -> Made | None:
        """Return what belongs to a viewer, or None if nobody has asked for it yet."""
        return self._made.get(_itself(viewer))


def _itself(viewer: Any) -> Any:
    return getattr(viewer, "__wrapped__", viewer)
