"""Crops on several processes or machines, by dask.

One crop is one task; a worker holds one network and the image that it works on. A
task gets the recipe and the number of a crop and returns what the crop sees, so the
machines share nothing but the files of image and weights. This process alone writes:
workers may come, go and be killed, a lost task is done again by another.
"""

from __future__ import annotations

import asyncio
import functools
import json
from concurrent import futures
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.batch import Outcome, Place, find_outcome
from napari_sam.engine.jobs import Step, run
from napari_sam.engine.manifest import CropRecord
from napari_sam.engine.recipe import Recipe
from napari_sam.errors import DeviceError, InputError, NapariSamError
from napari_sam.weights.load import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.model import Sam

# Tasks in flight for each worker: the next crop waits at the worker while it works,
# and the scheduler holds no more than it must.
_AHEAD = 3


class Cluster:
    """Workers of dask; made by `open_cluster`.

    Parameters
    ----------
    client : distributed.Client
        The connection.
    device : str
        Which device workers use, as in `load_model`.
    cache : EmbeddingCache, optional
        Where workers look for embeddings and keep them: a folder that all of them
        reach by the same path.
    """

    def __init__(
        self, client: Any, device: str = "auto", cache: EmbeddingCache | None = None
    ) -> None:
        self._client = client
        self._device = device
        self._store = None if cache is None else _Store.of(cache)

    def outcomes(self, recipe: Recipe, places: Sequence[Place]) -> Iterator[Outcome]:
        """Work through crops; yield what becomes of each, in any order.

        Parameters
        ----------
        recipe : Recipe
            What is to be done.
        places : sequence of (frame, slice, crop)
            Where.

        Raises
        ------
        DeviceError
            If a device gives up, or the scheduler is gone.
        """
        from distributed import as_completed

        text = json.dumps(recipe.to_dict())
        waiting = iter(places)
        pending: dict[Any, Place] = {}
        finished = as_completed()

        def submit() -> None:
            n_workers = max(1, len(self._client.nthreads()))
            while len(pending) < _AHEAD * n_workers:
                place = next(waiting, None)
                if place is None:
                    return
                task = self._client.submit(
                    work_on_crop,
                    text,
                    place,
                    self._device,
                    self._store,
                    pure=False,
                    retries=1,
                )
                pending[task] = place
                finished.add(task)

        try:
            with _scheduler_errors():
                submit()
                while pending:
                    task = next(finished)
                    yield _outcome(task, pending.pop(task))
                    task.release()
                    submit()
        finally:
            for task in pending:
                task.cancel()


@contextmanager
def _scheduler_errors() -> Iterator[None]:
    """Say in words that the scheduler is gone: its tasks are lost, or it is silent."""
    try:
        yield
    except (OSError, asyncio.CancelledError, futures.CancelledError) as error:
        raise DeviceError(
            f"the scheduler of dask is gone ({type(error).__name__}: {error}); start "
            "it again, and the same command goes on from here"
        ) from error


class _Store(NamedTuple):
    """How a worker opens an `EmbeddingCache`."""

    path: str
    limit_bytes: int | None
    adds: bool

    @classmethod
    def of(cls, cache: EmbeddingCache) -> _Store | None:
        """Return None for one in memory, which is of no use to others."""
        if cache.path is None:
            return None
        return cls(str(cache.path.resolve()), cache.limit_bytes, cache.adds)

    def open(self) -> EmbeddingCache:
        return EmbeddingCache(self.path, limit_bytes=self.limit_bytes, adds=self.adds)


@contextmanager
def open_cluster(
    scheduler: str | None = None,
    n_workers: int | None = None,
    device: str = "auto",
    cache: EmbeddingCache | None = None,
) -> Iterator[Cluster]:
    """Connect to a running scheduler, or start workers on this machine.

    Parameters
    ----------
    scheduler : str, optional
        Address, such as ``tcp://host:8786``.
    n_workers : int, optional
        Processes to start, if there is no scheduler.
    device : str
        Which device workers use. With "auto" on a machine with several GPUs, workers
        that are numbered take turns.
    cache : EmbeddingCache, optional
        As in `Cluster`.

    Yields
    ------
    Cluster

    Raises
    ------
    InputError
        If dask is not installed, or nobody answers at the address.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(
            "workers need dask, which is not installed; type: "
            'pip install "napari-sam-microscopy[cluster]"'
        ) from error
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="20s")
        # an address without a port is a ValueError
        except (OSError, ValueError) as error:
            raise InputError(
                f"no scheduler of dask answers at {scheduler} ({error}); start one "
                "with: dask scheduler, and give its address: tcp://host:8786"
            ) from error
        with client:
            yield Cluster(client, device, cache)
        return
    with (
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Cluster(client, device, cache)


def work_on_crop(
    recipe: str, place: Place, device: str, store: _Store | None = None
) -> Outcome:
    """Find what one crop sees; what a worker of dask calls.

    Parameters
    ----------
    recipe : str
        `Recipe.to_dict` as JSON.
    place : tuple of int
        (frame, slice, crop).
    device : str
        As in `load_model`.
    store : _Store, optional
        Where embeddings are looked for and kept.
    """
    frame, z, crop = place
    try:
        embedding = _opened(recipe, (frame, z), _own_device(device), store)
        config = Recipe.from_dict(json.loads(recipe)).config
        return run(find_outcome(embedding, crop, config, _STEP), progress=False)
    except DeviceError:
        raise
    except (NapariSamError, OSError) as error:
        return Outcome(CropRecord(*place, "failed", reason=str(error)))


_STEP = Step(0, 1, "segment")


@functools.lru_cache(maxsize=1)
def _opened(
    recipe: str, plane: tuple[int, int], device: str, store: _Store | None
) -> PlaneEmbedding:
    what = Recipe.from_dict(json.loads(recipe))
    model = _loaded(what.weights.name, what.weights.precision, device)
    opened = what.open()
    if model.weights_sha256 != what.weights.sha256:
        raise InputError(
            f"the weights {what.weights.name} of this worker have the checksum "
            f"{model.weights_sha256}, the work wants {what.weights.sha256}"
        )
    return opened.embedding(model, plane, None if store is None else store.open())


@functools.lru_cache(maxsize=1)
def _loaded(name: str, precision: str, device: str) -> Sam:
    return load_model(name, device=device, precision=precision)


def _own_device(device: str) -> str:
    """Let the numbered workers of one machine take turns with its GPUs."""
    import torch
    from distributed import get_worker

    number = str(get_worker().name)
    n_gpus = torch.cuda.device_count()
    if device != "auto" or n_gpus < 2 or not number.isdecimal():
        return device
    return f"cuda:{int(number) % n_gpus}"


def _outcome(task: Any, place: Place) -> Outcome:
    """Return the result of a task; one that cannot be had is a failure."""
    error = task.exception()
    if error is None:
        outcome: Outcome = task.result()
        return outcome
    if isinstance(error, DeviceError):
        raise error
    return Outcome(
        CropRecord(*place, "failed", reason=f"no worker finished it: {error}")
    )
