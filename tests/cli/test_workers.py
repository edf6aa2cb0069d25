"""Workers of a real scheduler, one of them killed: the labels of one process."""

from __future__ import annotations

import os
import signal
from concurrent import futures
from types import SimpleNamespace
from typing import TYPE_CHECKING

import distributed
import numpy as np
import pytest
import tifffile

from napari_sam import load_model, run, segment
from napari_sam.engine.batch import segment_file
from napari_sam.engine.cluster import Cluster, open_cluster
from napari_sam.engine.files import plan_outputs
from napari_sam.engine.manifest import Manifest
from napari_sam.errors import DeviceError, InputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_a_worker_may_be_killed(
    weights: Path, cells: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    model = load_model(weights)
    image = tmp_path / "slide.tif"
    tifffile.imwrite(image, np.tile(cells[0], (3, 3)), photometric="minisblack")
    expected = run(segment(image, model)).labels
    assert expected.max() > 0
    (to,) = plan_outputs([image], tmp_path / "out")
    with open_cluster(n_workers=2) as workers:
        before = workers._client.run(os.getpid)
        assert len(before) == 2
        assert os.getpid() not in before.values()
        job = segment_file(image, to, model, weights=str(weights), workers=workers)
        while next(job).done < 2:
            pass
        os.kill(next(iter(before.values())), signal.SIGKILL)
        report = run(job)
        again = workers._client.run(os.getpid)
        assert set(again.values()) != set(before.values())
    assert report.failed == ()
    assert len(Manifest.read(to.manifest).records) == 12
    np.testing.assert_array_equal(tifffile.imread(to.labels), expected)


def test_an_address_without_a_port_is_reported() -> None:
    with (
        pytest.raises(InputError, match=r"answers at nowhere .*tcp://host:8786"),
        open_cluster("nowhere"),
    ):
        pass


def test_a_scheduler_that_does_not_answer_is_reported(monkeypatch) -> None:
    def refuse(*_, **__):
        raise OSError("connection refused")

    monkeypatch.setattr(distributed, "Client", refuse)
    with (
        pytest.raises(InputError, match=r"no scheduler of dask answers at tcp://a:1"),
        open_cluster("tcp://a:1"),
    ):
        pass


@pytest.mark.parametrize(
    "lost", [ConnectionResetError("reset"), futures.CancelledError("scheduler-lost")]
)
def test_a_scheduler_that_goes_away_is_reported(monkeypatch, lost: Exception) -> None:
    class Gone:
        def nthreads(self):
            raise lost

    monkeypatch.setattr(distributed, "as_completed", list)
    recipe = SimpleNamespace(to_dict=dict)
    with pytest.raises(DeviceError, match=r"scheduler of dask is gone .*goes on from"):
        list(Cluster(Gone()).outcomes(recipe, [(0, 0, 0)]))
