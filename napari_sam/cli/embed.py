"""``napari-sam embed``: encode images ahead of time, so that clicks answer at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam.cli import options as o
from napari_sam.cli.records import exit_if_failed, print_record
from napari_sam.errors import NapariSamError

if TYPE_CHECKING:
    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.files import ImageOptions
    from napari_sam.engine.inputs import InputImage
    from napari_sam.model import Sam


@o.opens_images()
def embed(
    images: o.Inputs,
    cache: o.Store = None,
    cache_limit: o.StoreLimit = None,
    all_crops: Annotated[
        bool,
        typer.Option(
            "--all-crops", help="Crops that show nothing, too.", rich_help_panel="Image"
        ),
    ] = False,
    as_json: o.Json = False,
    model: o.Model = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    *,
    opening: ImageOptions,
) -> None:
    """Encode all crops of images and keep them; what is kept is not encoded again."""
    from napari_sam.engine.inputs import find_inputs
    from napari_sam.weights.load import load_model

    found = find_inputs(images, opening.image)
    store = o.open_store(cache, cache_limit)
    sam = load_model(model, device=device, precision=precision)
    failures: list[tuple[str, str]] = []
    for each in found:
        try:
            facts = _embed_file(each, sam, store, each.chosen(opening), all_crops)
        except NapariSamError as error:
            if len(found) == 1:
                raise
            failures.append((str(each.name), str(error)))
            facts = {"image": str(each.name), "error": str(error)}
        failures += [(str(each.name), text) for text in facts.get("failed", ())]
        if as_json:
            print_record(facts)
        elif "error" not in facts:
            lost = f", {len(facts['failed'])} failed" if facts["failed"] else ""
            typer.echo(
                f"{each.name}: {facts['crops']} crops, {facts['skipped']} of them "
                f"background{lost}, in {facts['seconds']:.1f} s -> {store.path}"
            )
    exit_if_failed(failures, len(found))


def _embed_file(
    image: InputImage,
    sam: Sam,
    store: EmbeddingCache,
    opening: ImageOptions,
    all_crops: bool,
) -> dict[str, Any]:
    from napari_sam.engine.files import open_file
    from napari_sam.engine.jobs import run

    start = time.perf_counter()
    opened = open_file(image.path, sam, opening)
    states: list[str] = []
    reasons: list[str] = []
    for t, z in opened.planes:
        embedding = opened.embedding(sam, (t, z), store)
        failed: dict[int, str] = {}
        run(embedding.fill(skip_background=not all_crops, failed=failed))
        reasons += [
            f"frame {t} slice {z} crop {crop}: {reason}"
            for crop, reason in sorted(failed.items())
        ]
        states += [embedding.state(crop) for crop in embedding.grid]
    return {
        "image": str(image.name),
        "planes": len(opened.planes),
        "crops": len(states),
        "skipped": states.count("skipped"),
        "failed": reasons,
        "seconds": round(time.perf_counter() - start, 3),
        "cache": str(store.path),
    }
