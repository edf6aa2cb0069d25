"""Results on the standard output: tables for people, JSON lines for programs."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import typer

from napari_sam.errors import NapariSamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_sam.engine.batch import Report
    from napari_sam.engine.jobs import Job


logger = logging.getLogger(__name__)

PROGRESS_EVERY_S = 1.0
"""Seconds between two lines of progress with ``--json``."""


def work_through(
    jobs: Sequence[tuple[Path, Job[Report]]], *, as_json: bool, resumes: bool = True
) -> None:
    """Run a job for each image and print what became of it.

    One image that fails does not stop the others: they are listed at the end and the
    exit status is 1, as it is if crops failed. The error of a single image is raised.
    Ctrl-C ends with status 130; what was done stays, of an image if its job `resumes`.
    """
    failures: list[tuple[str, str]] = []
    for path, job in jobs:
        try:
            report = _drive(job, path, as_json=as_json)
        except Exception as error:  # a night has other images
            if len(jobs) == 1:
                raise
            reason = _reason(error)
            failures.append((str(path), reason))
            if as_json:
                print_record({"event": "failed", "image": str(path), "error": reason})
            continue
        except KeyboardInterrupt:
            job.close()
            goes_on = "goes on from here" if resumes else f"begins {path} anew"
            typer.echo(f"interrupted; the same command {goes_on}", err=True)
            sys.exit(130)
        _print_report(report, as_json=as_json)
        failures += [
            (str(path), f"frame {r.frame} slice {r.slice} crop {r.crop}: {r.reason}")
            for r in report.failed
        ]
    exit_if_failed(failures, len(jobs))


def exit_if_failed(
    failures: Sequence[tuple[str, str]],
    n_images: int,
    what: str = "failed, or parts of them",
) -> None:
    """List images and why they failed, and exit with status 1, if there are any."""
    if failures:
        n_failed = len({name for name, _ in failures})
        typer.echo(f"{n_failed} of {n_images} images {what}:", err=True)
        print_table(failures, err=True)
        sys.exit(1)


def _reason(error: Exception) -> str:
    if isinstance(error, NapariSamError | OSError):
        return str(error)
    logger.debug("a fault of this program", exc_info=error)
    return f"{type(error).__name__}: {error}; please report it"


def _drive(job: Job[Report], path: Path, *, as_json: bool) -> Report:
    """Run a job; with JSON lines, say once a second how far it is."""
    from napari_sam.engine.jobs import run

    if not as_json:
        return run(job)
    start = said = time.monotonic()
    first: int | None = None
    while True:
        try:
            step = next(job)
        except StopIteration as stop:
            report: Report = stop.value
            return report
        first = step.done if first is None else first
        now = time.monotonic()
        if now - said < PROGRESS_EVERY_S:
            continue
        said = now
        rate = (step.done - first) / (now - start)
        left = (step.total - step.done) / rate if rate else None
        print_record(
            {
                "event": "progress",
                "image": str(path),
                "what": step.what,
                "done": step.done,
                "total": step.total,
                "per_s": round(rate, 3),
                "remaining_s": None if left is None else round(left, 1),
            }
        )


def _print_report(report: Report, *, as_json: bool) -> None:
    to = report.outputs
    written = {
        "labels": to.labels,
        "overlay": to.overlay,
        "measurements": to.measurements,
        "seams": to.seams,
    }
    paths = {name: str(path) for name, path in written.items() if path is not None}
    n_failed = len(report.failed)
    if as_json:
        facts = {
            "event": "done",
            "image": str(report.image),
            "objects": report.n_objects,
            "failed_crops": n_failed,
        }
        print_record({**facts, "seconds": round(report.seconds, 3), **paths})
        return
    how = "were there already" if report.was_done else f"in {report.seconds:.1f} s"
    lost = f", but {n_failed} crops failed" if n_failed else ""
    typer.echo(
        f"{report.image}: {report.n_objects} objects {how}{lost} -> "
        + ", ".join(paths.values())
    )


def print_record(record: dict[str, Any]) -> None:
    """Print one JSON object on one line; JSON has no NaN, so it becomes null."""
    plain = {k: None if v != v else v for k, v in record.items()}
    typer.echo(json.dumps(plain, default=str))


def print_table(rows: Iterable[Sequence[str]], *, err: bool = False) -> None:
    """Print rows of cells in columns."""
    table = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip(), err=err)
