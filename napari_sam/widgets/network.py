"""The weights in use, loaded and asked in the worker's thread."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_sam.errors import NapariSamError
from napari_sam.threads import spin_briefly
from napari_sam.widgets.torch_library import load_torch_library

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam.engine.jobs import Step
    from napari_sam.engine.planes import Planes
    from napari_sam.engine.request import (
        CompleteRequest,
        PlaneView,
        PredictRequest,
        PredictResult,
    )
    from napari_sam.engine.session import Session
    from napari_sam.widgets.workers import Task, Worker

logger = logging.getLogger(__name__)


class Network:
    """A network and the planes embedded with it.

    Everything that needs torch happens in the worker, its import included, so a window
    opens at once and clicks wait in line.

    Parameters
    ----------
    session : Session
        Its requests are answered.
    worker : Worker

    Signals
    -------
    status : str
        For people: "Loading default ...", "default on cpu, bfloat16".
    loaded : Planes
    failed : Exception

    Attributes
    ----------
    completes : bool
        Whether objects that their crop cuts, or shows too small, are looked at again.
    """

    status = Signal(str)
    loaded = Signal(object)
    failed = Signal(object)

    def __init__(self, session: Session, worker: Worker) -> None:
        self._session = session
        self._worker = worker
        self._planes: Planes | None = None
        self._second_look: Task | None = None
        self.completes = True
        self.name: str | None = None
        self._wish: tuple[PlaneView | None, Callable[[], object]] | None = None
        session.request.connect(self._answer)
        session.complete_wanted.connect(self._complete)

    @property
    def planes(self) -> Planes | None:
        """Planes of the network; None while it is loaded. For the worker's thread."""
        return self._planes

    def load(self, name: str, device: str = "auto") -> None:
        """Use other weights; the prompts on the plane are asked again.

        Parameters
        ----------
        name : str
            Name or path, as of `load_model`.
        device : str
        """

        def work() -> Planes:
            spin_briefly()
            load_torch_library()
            # imports hold up the window, so those of a search are made now, too
            from napari_sam.engine import candidates, complete  # noqa: F401
            from napari_sam.engine.planes import Planes
            from napari_sam.weights.load import load_model

            # the old network is let go first: two may not fit on the device
            self._planes = None
            planes = Planes(load_model(name, device=device))
            try:
                planes.find_on_disk()
            except NapariSamError as error:  # without them it works, too
                logger.warning("embeddings on disk are not used: %s", error)
            return planes

        self.name = name
        self.status.emit(f"Loading {name} ...")
        self._worker.call(work, self._loaded, self._not_loaded, slot="load")

    def when_loaded(self, act: Callable[[], object]) -> None:
        """Do something once a network is there, if the view is still the same one."""
        self._wish = self._session.view, act

    def close(self) -> None:
        """Let the network go."""
        self._session.request.disconnect(self._answer)
        self._session.complete_wanted.disconnect(self._complete)
        self._planes = None

    def _loaded(self, planes: Planes) -> None:
        self._planes = planes
        model = planes.model
        self.status.emit(f"{model.name} on {model.device}, {model.precision}")
        self.loaded.emit(planes)
        self._session.ask()
        wish, self._wish = self._wish, None
        if wish is not None and wish[0] is self._session.view:
            wish[1]()

    def _not_loaded(self, error: Exception) -> None:
        self.status.emit("no model; choose another one")
        self.failed.emit(error)

    def _answer(self, request: PredictRequest) -> None:
        planes = self._planes
        if planes is None:
            return  # asked again when the network is there
        self._stop_looking()
        self._worker.call(
            lambda: planes.answer(request),
            self._answered,
            self.failed.emit,
            slot="answer",
        )

    def _answered(self, result: PredictResult) -> None:
        self._session.receive(result)

    def _complete(self, wanted: CompleteRequest) -> None:
        """Look again at an answer, after all clicks; only the newest counts."""
        planes = self._planes
        self._stop_looking()
        if planes is None or not self.completes:
            return

        def take(step: Step) -> None:
            if isinstance(step.value, dict) and step.value:
                self._session.receive_whole(wanted, step.value)

        self._second_look = self._worker.start(
            "complete",
            lambda: planes.complete(wanted),
            on_step=take,
            on_error=self.failed.emit,
        )

    def _stop_looking(self) -> None:
        if self._second_look is not None:
            self._worker.cancel(self._second_look)
            self._second_look = None
