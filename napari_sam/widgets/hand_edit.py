"""Painting on labels that napari cannot paint, in a small layer over a part of them.

Labels of a slide have levels, and napari paints on labels of one level only. So the
surroundings of an object are shown in a layer of their own; when the user has done,
what has changed goes back as one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_sam.engine.objects import repaint
from napari_sam.tiling import Box
from napari_sam.widgets.geometry import to_layer, transform_of
from napari_sam.widgets.stored_labels import OWN

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_sam.engine.request import PlaneView
    from napari_sam.engine.session import Session

_ROOM = 128  # least number of pixels around an object that can be painted
_LARGEST = 4096  # pixels a side: more is slow to paint on


class HandEdit:
    """A layer to paint in; `finish` writes what was painted.

    Parameters
    ----------
    viewer : ViewerModel
    session : Session
        With a view, and labels.
    image : Image
        Its transform is taken.
    around : Box
        What shall be painted, in plane pixels; some room is added.
    object_id : int
        Id that the brush paints.

    Attributes
    ----------
    layer : Labels
        Over a part of the plane.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        session: Session,
        image: Image,
        around: Box,
        object_id: int,
    ) -> None:
        view, labels = session.view, session.labels
        if view is None or labels is None:
            raise ValueError("a hand edit needs a plane and labels")
        self._viewer, self._session = viewer, session
        self.view: PlaneView = view
        room = max(_ROOM, *around.shape)
        grown = Box(
            around.y0 - room, around.x0 - room, around.y1 + room, around.x1 + room
        )
        if max(grown.shape) > _LARGEST:
            grown = around
        self.box = grown.clip(view.shape)
        self._target = labels
        pixels = labels.read(view.index, self.box)
        self._seen = [i for i, each in enumerate(view.index) if each is None]
        data = pixels.reshape((1,) * (len(view.index) - 2) + pixels.shape)
        corner = to_layer(np.array([[self.box.y0, self.box.x0]]), view.index)[0]
        self.layer = Labels(
            np.moveaxis(data, (-2, -1), self._seen),
            name="paint here",
            metadata={OWN: True},
            **transform_of(image, corner),
        )
        viewer.add_layer(self.layer)
        self.layer.selected_label = object_id
        self.layer.preserve_labels = session.state.on_overlap != "overwrite"
        self.layer.mode = "paint"
        viewer.layers.selection.active = self.layer

    @property
    def is_open(self) -> bool:
        """Whether the user has not deleted the layer."""
        return self.layer in self._viewer.layers

    def finish(self) -> bool:
        """Write what was painted, and take the layer away.

        Returns
        -------
        bool
            Whether pixels have changed.
        """
        is_open = self.is_open
        if is_open:
            self._viewer.layers.remove(self.layer)
        view = self._session.view
        if not is_open or view is None or self._session.labels is not self._target:
            return False
        return repaint(self._session, self.view, self.box, self._pixels())

    def _pixels(self) -> NDArray[np.uint32]:
        data: Any = np.moveaxis(np.asarray(self.layer.data), self._seen, (-2, -1))
        return np.asarray(data.reshape(data.shape[-2:]), np.uint32)
