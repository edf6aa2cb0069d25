"""``napari-sam cache``: look after the embeddings that are kept."""

from __future__ import annotations

import errno
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam.cli.options import Json, Store, open_store
from napari_sam.cli.records import print_record, print_table
from napari_sam.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam.cache import EmbeddingCache, EntryInfo

cache = typer.Typer(
    no_args_is_help=True, help="Kept embeddings: list, check, remove, pack."
)

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME...]", help="Names of `cache info`. Default: all."),
]
_DAY_S = 86400.0


@cache.command("info")
def info(folder: Store = None, as_json: Json = False) -> None:
    """List what is kept, what was not used for longest first."""
    store = _existing(folder)
    entries = store.entries()
    if as_json:
        for entry in entries:
            print_record(_facts(entry))
        return
    rows = [("name", "crops", "done", "background", "MB", "packed", "days", "plane")]
    for entry in entries:
        facts = _facts(entry)
        rows.append(
            (
                entry.name,
                str(entry.n_crops),
                str(entry.n_done),
                str(entry.n_skipped),
                f"{entry.stored_bytes / 1e6:.1f}",
                "yes" if entry.is_packed else "no",
                f"{facts['days_unused']:.1f}",
                _place(entry),
            )
        )
    print_table(rows)
    total = sum(entry.stored_bytes for entry in entries)
    typer.echo(f"{len(entries)} planes, {total / 1e6:.1f} MB in {store.path}")


@cache.command("verify")
def verify(
    folder: Store = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Forget damaged crops, to embed them again."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Read all that is kept; exit status 1 if something is damaged."""
    store = _existing(folder)
    damaged = store.verify(repair=repair)
    for name, crops in damaged.items():
        if as_json:
            print_record({"name": name, "damaged": crops, "forgotten": repair})
        else:
            listed = ", ".join(map(str, crops))
            typer.echo(f"{name}: damaged crops {listed}")
    if damaged:
        advice = "embed the images again" if repair else "forget them with --repair"
        typer.echo(f"{sum(map(len, damaged.values()))} crops: {advice}", err=True)
        sys.exit(1)
    if not as_json:
        typer.echo(f"{len(store.entries())} planes, nothing damaged, in {store.path}")


@cache.command("clean")
def clean(
    names: Names = None,
    folder: Store = None,
    limit_gb: Annotated[
        float | None,
        typer.Option(min=0, help="Keep this much, the last used; 0 keeps nothing."),
    ] = None,
    unused_days: Annotated[
        float | None,
        typer.Option(min=0, help="Remove what was not used for so long."),
    ] = None,
) -> None:
    """Remove leftovers of killed processes, and what you name."""
    store = _existing(folder)
    n_leftovers = store.clean()
    if names:
        for name in names:
            store.remove(name)
    removed = list(names or ())
    if unused_days is not None:
        before = time.time() - unused_days * _DAY_S
        old = [entry.name for entry in store.entries() if entry.used_s < before]
        for name in old:
            store.remove(name)
        removed += old
    if limit_gb is not None:
        removed += store.evict(int(limit_gb * 1e9))
    typer.echo(f"removed {len(removed)} planes and {n_leftovers} leftovers")


@cache.command("pack")
def pack(names: Names = None, folder: Store = None) -> None:
    """Put the crops of complete planes into few large files."""
    store = _existing(folder)
    entries = {entry.name: entry for entry in store.entries()}
    for name in names or entries:
        if name not in entries:
            raise InputError(f"no plane {name!r} in {store.path}; see `cache info`")
        entry = entries[name]
        n_missing = entry.n_crops - entry.n_done - entry.n_skipped
        if n_missing and not names:
            typer.echo(
                f"{name}: left, {n_missing} of {entry.n_crops} crops are missing"
            )
            continue
        _pack(store, name)


def _existing(folder: Path | None) -> EmbeddingCache:
    """Open a store; a folder that was named has to be there, and is not made."""
    if folder is not None and not folder.exists():
        raise MissingFileError(
            errno.ENOENT, "no such folder; check its name", str(folder)
        )
    return open_store(folder)


def _pack(store: EmbeddingCache, name: str) -> None:
    word = "packed" if store.pack(name) else "packed already"
    typer.echo(f"{name}: {word}")


def _facts(entry: EntryInfo) -> dict[str, Any]:
    return {
        "name": entry.name,
        "crops": entry.n_crops,
        "done": entry.n_done,
        "skipped": entry.n_skipped,
        "packed": entry.is_packed,
        "bytes": entry.stored_bytes,
        "days_unused": round(max(0.0, time.time() - entry.used_s) / _DAY_S, 3),
        "key": entry.key,
    }


def _place(entry: EntryInfo) -> str:
    """Say in a few words which plane an entry belongs to."""
    height, width = entry.key.get("image", {}).get("shape", ("?", "?"))
    frame, z = entry.key.get("plane", ("?", "?"))
    level = entry.key.get("level", 0)
    at = f" of level {level}" if level else ""
    return f"{height} x {width} px{at}, frame {frame}, slice {z}"
