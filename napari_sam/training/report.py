"""Scores of images, averaged, laid out and written.

Interactive scores are means over objects, automatic ones means over images, as in the
papers that the numbers are compared with.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.training.collection import AnnotatedImage

GROUPS = ("modality", "dataset", "dataset and modality")


@dataclass(frozen=True, slots=True, eq=False)
class ImageScores:
    """How well one plane was segmented.

    Attributes
    ----------
    image : AnnotatedImage
        What was segmented.
    n_objects : int
        True objects in the plane, prompted or not.
    object_ids, areas : (N,) int64 arrays
        The prompted objects, and their pixels.
    prompted : dict of str to (N,) float64 array
        IoU of each of them: ``click_1`` ..., ``oracle_1``, ``box``.
    automatic : dict of str to float
        ``mSA``, ``SA50`` (accuracy at IoU 0.5) and ``n_found``; empty if not asked
        for, or if not every object is labelled.
    seconds : float
        Time that the image took.
    """

    image: AnnotatedImage
    n_objects: int
    object_ids: NDArray[np.int64]
    areas: NDArray[np.int64]
    prompted: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    automatic: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Scores of all images.

    Attributes
    ----------
    model_name, weights_sha256 : str
        What was evaluated.
    settings : dict
        On what, and how; stored for people.
    names : tuple of str
        Scores that were asked for, in the order of a table.
    images : list of ImageScores
        In the order of the collection.
    """

    model_name: str
    weights_sha256: str
    settings: dict[str, Any]
    names: tuple[str, ...]
    images: list[ImageScores]

    def summary(self, by: str = "modality") -> list[dict[str, Any]]:
        """Average the scores of groups of images.

        Parameters
        ----------
        by : {"modality", "dataset", "dataset and modality"}
            What makes a group.

        Returns
        -------
        list of dict
            One for each group, in alphabetical order: ``group``, ``images``,
            ``objects`` (prompted), a mean for each score, None where there is none.
        """
        if by not in GROUPS:
            raise InputError(f"group by {by!r}; use one of {', '.join(GROUPS)}")
        groups: dict[str, list[ImageScores]] = {}
        for scores in self.images:
            groups.setdefault(group_of(scores.image, by), []).append(scores)
        return [_average(name, groups[name], self.names) for name in sorted(groups)]

    def table(self, by: str = "modality") -> str:
        """Lay out `summary` as text, one line for each group."""
        rows = self.summary(by)
        columns = ["group", "images", "objects", *self.names]
        cells = [columns] + [[_cell(row[c]) for c in columns] for row in rows]
        widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in cells
        ]
        return "\n".join(line.rstrip() for line in lines)

    def save(self, folder: Path) -> None:
        """Write what was measured.

        Parameters
        ----------
        folder : Path
            Is made if need be; gets ``summary.json`` (settings, weights, all
            groupings), ``images.csv`` and ``objects.csv`` (one line each).
        """
        folder.mkdir(parents=True, exist_ok=True)
        summary = {
            "settings": self.settings,
            "model": self.model_name,
            "weights_sha256": self.weights_sha256,
            "seconds": sum(scores.seconds for scores in self.images),
            **{f"by {by}": self.summary(by) for by in GROUPS},
        }
        text = json.dumps(summary, indent=1, default=str)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
        _write_csv(
            folder / "images.csv",
            [
                {
                    "dataset": scores.image.dataset,
                    "name": scores.image.name,
                    **_average(scores.image.modality, [scores], self.names),
                    **scores.automatic,
                    "n_objects": scores.n_objects,
                    "seconds": scores.seconds,
                }
                for scores in self.images
            ],
        )
        _write_csv(folder / "objects.csv", _object_rows(self.images))


def group_of(image: AnnotatedImage, by: str) -> str:
    """Name the group of an image; ``by`` is one of `GROUPS`."""
    parts = {"modality": [image.modality], "dataset": [image.dataset]}.get(
        by, [image.dataset, image.modality]
    )
    # a plain folder has no modality
    return ", ".join(part for part in parts if part) or image.dataset


def _average(
    group: str, images: list[ImageScores], names: tuple[str, ...]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "group": group,
        "images": len(images),
        "objects": sum(len(scores.object_ids) for scores in images),
    }
    for name in names:
        parts = [s.prompted[name] for s in images if name in s.prompted]
        parts += [np.array([s.automatic[name]]) for s in images if name in s.automatic]
        row[name] = float(np.concatenate(parts).mean()) if parts else None
    return row


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _object_rows(images: list[ImageScores]) -> list[dict[str, Any]]:
    return [
        {
            "dataset": scores.image.dataset,
            "name": scores.image.name,
            "object": int(scores.object_ids[i]),
            "area": int(scores.areas[i]),
            **{name: float(values[i]) for name, values in scores.prompted.items()},
        }
        for scores in images
        for i in range(len(scores.object_ids))
    ]


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
