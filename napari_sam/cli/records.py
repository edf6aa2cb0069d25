"""Results on the standard output: tables for people, JSON lines for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

from napari_sam.errors import NapariSamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_sam.engine.batch import Report
    from napari_sam.engine.jobs import Job


def work_through(jobs: Sequence[tuple[Path, Job[Report]]], *, as_json: bool) -> None:
    """Run a job for each image and print what became of it.

    One image that fails does not stop the others: they are listed at the end and the
    exit status is 1. The error of a single image is raised.
    """
    from napari_sam.engine.jobs import run

    failures: list[tuple[str, str]] = []
    for path, job in jobs:
        try:
            report = run(job)
        except NapariSamError as error:
            if len(jobs) == 1:
                raise
            failures.append((str(path), str(error)))
            if as_json:
                print_record({"image": str(path), "error": str(error)})
            continue
        _print_report(report, as_json=as_json)
    if failures:
        typer.echo(f"{len(failures)} of {len(jobs)} images failed:", err=True)
        print_table(failures, err=True)
        sys.exit(1)


def _print_report(report: Report, *, as_json: bool) -> None:
    to = report.outputs
    written = {
        "labels": to.labels,
        "overlay": to.overlay,
        "measurements": to.measurements,
    }
    paths = {name: str(path) for name, path in written.items() if path is not None}
    if as_json:
        facts = {"image": str(report.image), "objects": report.n_objects}
        print_record({**facts, "seconds": round(report.seconds, 3), **paths})
    else:
        typer.echo(
            f"{report.image}: {report.n_objects} objects in {report.seconds:.1f} s -> "
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
