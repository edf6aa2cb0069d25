"""The command line: parse, call, print.

Everything heavy is imported inside the command that needs it, so that ``--help``
answers at once. Messages and progress go to the standard error, results to the
standard output: ``--json`` prints one record per line, for pipelines.

Exit status: 0 done; 1 some images, or a download, failed; 2 wrong usage or input.
"""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam import __version__
from napari_sam.errors import (
    FormatError,
    InputError,
    MissingFileError,
    NapariSamError,
    NapariSamWarning,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam.weights import WeightSpec

app = typer.Typer(
    name="napari-sam",
    help="Segment Anything for microscopy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(no_args_is_help=True, help="Weights: list, download, describe.")
app.add_typer(models, name="models")

Json = Annotated[bool, typer.Option("--json", help="Print records as JSON lines.")]

_INPUT_ERRORS = (InputError, FormatError, MissingFileError)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : list of str, optional
        Instead of those the process was started with.
    """
    # Waiting threads sleep and do not spin: several times faster on shared cores.
    # OpenMP reads it when torch is loaded, which no import above does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with warnings.catch_warnings():
        warnings.simplefilter("always", NapariSamWarning)
        warnings.showwarning = _show_warning
        try:
            app(arguments)
        except NapariSamError as error:
            typer.echo(f"napari-sam: {error}", err=True)
            sys.exit(2 if isinstance(error, _INPUT_ERRORS) else 1)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say less.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("napari_sam")
    logger.handlers = [handler]
    logger.setLevel(level)


@models.command("list")
def list_weights(as_json: Json = False) -> None:
    """List all known weights, those of the package first."""
    from napari_sam.weights import list_models

    specs = list_models()
    if as_json:
        for spec in specs:
            _print_record(_facts(spec))
        return
    rows = [("name", "network", "MB", "licence", "trained for")]
    for spec in specs:
        licence = spec.licence + (" (not commercial)" if spec.non_commercial else "")
        size = "-" if spec.size_bytes is None else f"{spec.size_bytes / 1e6:.0f}"
        rows.append((spec.name, spec.family, size, licence, spec.trained_for))
    _print_table(rows)


@models.command("info")
def describe_weights(
    name: Annotated[str, typer.Argument(help="A name from the list, or a file.")],
    as_json: Json = False,
) -> None:
    """Describe weights: licence, paper and source, or what a file holds."""
    from napari_sam.weights.table import find_spec

    facts = _contents(Path(name)) if Path(name).is_file() else _facts(find_spec(name))
    if as_json:
        _print_record(facts)
    else:
        _print_table([(key.replace("_", " "), _plain(facts[key])) for key in facts])


@models.command("download")
def download_weights(
    names: Annotated[list[str], typer.Argument(help="Names from the list.")],
) -> None:
    """Download weights, prove them, and print where they are."""
    from napari_sam.weights import fetch
    from napari_sam.weights.table import find_spec

    for spec in [find_spec(name) for name in names]:
        typer.echo(spec.licence_notice, err=True)
        typer.echo(fetch(spec))


def _facts(spec: "WeightSpec") -> dict[str, Any]:
    return {
        "name": spec.name,
        "network": spec.family,
        "trained_for": spec.trained_for,
        "licence": spec.licence,
        "commercial_use": not spec.non_commercial,
        "paper": spec.paper,
        "proposal_head": spec.has_proposals,
        "bytes": spec.size_bytes,
        "addresses": [url for file in spec.files for url in file.urls],
        "checksums": [file.checksum for file in spec.files],
    }


def _contents(path: Path) -> dict[str, Any]:
    from napari_sam.weights.load import read_weights

    state, config = read_weights(path)
    return {
        "file": str(path),
        "network": config.name,
        "encoder": type(config.encoder).__name__.removesuffix("Config"),
        "input_px": config.image_size,
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "proposal_head": config.proposal is not None,
    }


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _print_record(record: dict[str, Any]) -> None:
    typer.echo(json.dumps(record, default=str))


def _print_table(rows: "Sequence[tuple[str, ...]]") -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    if issubclass(category, NapariSamWarning):
        typer.echo(f"napari-sam: warning: {message}", err=True)


if __name__ == "__main__":
    main()
