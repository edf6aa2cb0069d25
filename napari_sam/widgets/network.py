"""The weights in use, loaded and asked in the worker's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal

if TYPE_CHECKING:
    from napari_sam.engine.planes import Planes
    from napari_sam.engine.request import PredictRequest, PredictResult
    from napari_sam.engine.session import Session
    from napari_sam.widgets.workers import Worker


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
    """

    status = Signal(str)
    loaded = Signal(object)
    failed = Signal(object)

    def __init__(self, session: Session, worker: Worker) -> None:
        self._session = session
        self._worker = worker
        self._planes: Planes | None = None
        self.name: str | None = None
        session.request.connect(self._answer)

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
            from napari_sam.engine.planes import Planes
            from napari_sam.weights import load_model

            # the old network is let go first: two may not fit on the device
            self._planes = None
            return Planes(load_model(name, device=device))

        self.name = name
        self.status.emit(f"Loading {name} ...")
        self._worker.call(work, self._loaded, self._not_loaded, slot="load")

    def close(self) -> None:
        """Let the network go."""
        self._session.request.disconnect(self._answer)
        self._planes = None

    def _loaded(self, planes: Planes) -> None:
        self._planes = planes
        model = planes.model
        self.status.emit(f"{model.name} on {model.device}, {model.precision}")
        self.loaded.emit(planes)
        self._session.ask()

    def _not_loaded(self, error: Exception) -> None:
        self.status.emit("no model; choose another one")
        self.failed.emit(error)

    def _answer(self, request: PredictRequest) -> None:
        planes = self._planes
        if planes is None:
            return  # asked again when the network is there
        self._worker.call(
            lambda: planes.answer(request),
            self._answered,
            self.failed.emit,
            slot="answer",
        )

    def _answered(self, result: PredictResult) -> None:
        self._session.receive(result)
