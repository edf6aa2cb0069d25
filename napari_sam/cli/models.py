"""``napari-sam models``: list, describe and download weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam.cli.options import Json
from napari_sam.cli.records import print_record, print_table

if TYPE_CHECKING:
    from napari_sam.weights.table import WeightSpec

models = typer.Typer(no_args_is_help=True, help="Weights: list, describe, download.")


@models.command("list")
def list_weights(as_json: Json = False) -> None:
    """List all known weights, those of the package first."""
    from napari_sam.weights.table import list_models

    if as_json:
        for spec in list_models():
            print_record(_facts(spec))
        return
    rows = [("name", "network", "MB", "proposals", "licence", "trained for")]
    for spec in list_models():
        size = "?" if spec.size_bytes is None else f"{spec.size_bytes / 1e6:.0f}"
        licence = spec.licence + (" (not commercial)" if spec.non_commercial else "")
        bundled = "here" if spec.is_bundled else size
        proposals = "yes" if spec.has_proposals else "no"
        rows.append(
            (spec.name, spec.family, bundled, proposals, licence, spec.trained_for)
        )
    print_table(rows)


@models.command("info")
def describe_weights(
    name: Annotated[str, typer.Argument(help="A name from the list, or a file.")],
    as_json: Json = False,
) -> None:
    """Describe weights: licence, paper and source, or what a file holds."""
    from napari_sam.weights.table import find_spec

    facts = _contents(Path(name)) if Path(name).is_file() else _facts(find_spec(name))
    if as_json:
        print_record(facts)
    else:
        print_table((key.replace("_", " "), _plain(facts[key])) for key in facts)


@models.command("download")
def download_weights(
    names: Annotated[list[str], typer.Argument(help="Names from the list.")],
) -> None:
    """Download weights, prove them, and print where they are."""
    from napari_sam.weights.download import fetch
    from napari_sam.weights.table import find_spec

    for spec in [find_spec(name) for name in names]:
        typer.echo(spec.licence_notice, err=True)
        typer.echo(fetch(spec))


def _facts(spec: WeightSpec) -> dict[str, Any]:
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
