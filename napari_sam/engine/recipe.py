"""All that labels depend on, as a YAML file beside them.

`napari-sam run RECIPE` makes the same labels again. A worker on another machine gets
the recipe and nothing else, so that what is written down is also what was done.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
import yaml
from pydantic import TypeAdapter, ValidationError

from napari_sam.engine.automatic import AutomaticConfig, chosen_mode
from napari_sam.engine.embed import default_grid
from napari_sam.engine.files import ImageOptions, OpenedFile, open_source
from napari_sam.engine.fingerprint import fingerprint_plane
from napari_sam.engine.grid_masks import GridMode
from napari_sam.errors import FormatError, InputError, MissingFileError
from napari_sam.images import Intensity  # noqa: TC001 - pydantic reads it
from napari_sam.tiling import CELLS, CropGrid
from napari_sam.writers.atomic import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sam.model import Sam


@dataclass(frozen=True, slots=True)
class Weights:
    """The network of a recipe.

    Parameters
    ----------
    name : str
        A name of `list_models`, or the path of a file.
    sha256 : str
        Checksum of the file.
    precision : str
        Of the encoder.
    """

    name: str
    sha256: str
    precision: str


@dataclass(frozen=True, slots=True)
class Cut:
    """How planes are cut into crops; see `CropGrid`."""

    size: int
    halo: int
    scale: float | None

    def crops(self, plane_shape: tuple[int, int]) -> CropGrid:
        """Cut planes of a shape."""
        return CropGrid(plane_shape, self.size, self.halo, self.scale)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that labels depend on.

    Parameters
    ----------
    image : str
        The file.
    pixels : dict
        From `fingerprint_plane`, of the first plane that is used, at the level that is
        read.
    options : ImageOptions
        How the file is opened.
    intensity : Intensity
        Contrast limits, channels.
    grid : Cut
        How planes are cut.
    weights : Weights
        The network.
    config : AutomaticConfig
        Mode and thresholds.
    versions : dict of str to str
        Of this program and of what it computes with.
    format : int
        Version of this format.
    """

    image: str
    pixels: dict[str, Any]
    options: ImageOptions
    intensity: Intensity
    grid: Cut
    weights: Weights
    config: AutomaticConfig
    versions: dict[str, str]
    format: Literal[1] = 1

    @classmethod
    def of(
        cls, opened: OpenedFile, model: Sam, config: AutomaticConfig, weights: str
    ) -> Self:
        """Write down what is about to be done.

        Parameters
        ----------
        opened : OpenedFile
            The image.
        model : Sam
            The network.
        config : AutomaticConfig
            Mode and thresholds.
        weights : str
            The name or file from which the network was loaded.
        """
        is_grid = isinstance(chosen_mode(config, model), GridMode)
        grid = opened.grid or default_grid(opened.source, model)
        return cls(
            image=str(opened.source.path and opened.source.path.resolve()),
            pixels=_fingerprint(opened),
            options=opened.options,
            intensity=opened.intensity,
            grid=Cut(grid.size, grid.halo, grid.scale),
            weights=Weights(
                place_of_weights(weights),
                model.weights_sha256 or "",
                model.precision,
            ),
            config=_with_mode(config, "grid" if is_grid else "proposals"),
            versions=_versions(),
        )

    @classmethod
    def from_dict(cls, values: object, name: str = "the recipe") -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        FormatError
            If a value is missing, unknown or out of range.
        """
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            raise FormatError(
                f"{name} is no recipe of this program: {_faults(error)}"
            ) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a recipe from a YAML file.

        Raises
        ------
        MissingFileError
            If there is no such file.
        FormatError
            If it is no recipe.
        """
        try:
            return cls.from_dict(yaml.safe_load(path.read_text("utf-8")), str(path))
        except FileNotFoundError as error:
            raise MissingFileError(error.errno, "no such recipe", str(path)) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise FormatError(f"{path} is no YAML: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for YAML and JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def save(self, path: Path) -> None:
        """Write the recipe; one that is there is replaced."""
        with atomic(path, overwrite=True) as part:
            part.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), "utf-8")

    @property
    def key(self) -> str:
        """Digest of all that the labels depend on; not where files lie, or when."""
        facts = self.to_dict()
        del facts["image"], facts["versions"], facts["weights"]["name"]
        facts["grid"]["cells"] = CELLS  # crops of an earlier layout do not fit
        text = json.dumps(facts, sort_keys=True).encode()
        return hashlib.blake2b(text, digest_size=16).hexdigest()

    def open(self, path: Path | None = None) -> OpenedFile:
        """Open the image as the recipe says; nothing is searched for again.

        Parameters
        ----------
        path : Path, optional
            Another place of the image.
        """
        source = open_source(path or Path(self.image), self.options)
        grid = self.grid.crops(source.plane_shape)
        return OpenedFile(source, self.options, self.intensity, grid)

    def changes(self, opened: OpenedFile, model: Sam) -> list[str]:
        """Say what is not as the recipe has it, and would give other labels.

        Parameters
        ----------
        opened : OpenedFile
            From `open`.
        model : Sam
            The network that is to be used.
        """
        changes = []
        if model.weights_sha256 != self.weights.sha256:
            changes.append(
                f"the weights {self.weights.name} have the checksum "
                f"{model.weights_sha256}, in the recipe {self.weights.sha256}"
            )
        if model.precision != self.weights.precision:
            changes.append(
                f"the encoder computes in {model.precision}, in the recipe in "
                f"{self.weights.precision}"
            )
        if _fingerprint(opened) != self.pixels:
            changes.append(f"the pixels of {opened.source.path} are others")
        return changes

    def other_versions(self) -> list[str]:
        """Say which programs are of other versions than those of the recipe."""
        return [
            f"{name} {now}, in the recipe {self.versions.get(name, 'unknown')}"
            for name, now in _versions().items()
            if self.versions.get(name) != now
        ]


def change_config(
    config: AutomaticConfig, changes: Mapping[str, Any]
) -> AutomaticConfig:
    """Change settings of the automatic search that are given by name.

    Parameters
    ----------
    config : AutomaticConfig
        What to change.
    changes : mapping of str to value
        Names of `AutomaticConfig`, and those of its two modes as in
        ``grid.points_per_side``.

    Raises
    ------
    InputError
        If a name is unknown, or a value is impossible.
    """
    values = asdict(config)
    for name, value in changes.items():
        mode, _, setting = name.rpartition(".")
        place = values.get(mode) if mode else values
        known = place if isinstance(place, dict) else {}
        if isinstance(known.get(setting, {}), dict):
            names = [key for key, old in values.items() if not isinstance(old, dict)]
            for part in ("proposals", "grid"):
                names += [f"{part}.{key}" for key in values[part]]
            raise InputError(f"unknown setting {name!r}; known are {names}")
        known[setting] = value
    try:
        return TypeAdapter(AutomaticConfig).validate_python(values)
    except ValidationError as error:
        raise InputError(f"settings of the search: {_faults(error)}") from error


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        for fault in error.errors()
    )


def place_of_weights(name: str) -> str:
    """Return a name of weights that holds in every folder: of a file its whole path."""
    path = Path(name)
    return str(path.resolve()) if path.is_file() else name


def _with_mode(
    config: AutomaticConfig, mode: Literal["proposals", "grid"]
) -> AutomaticConfig:
    values = asdict(config)
    adapter = TypeAdapter(AutomaticConfig)
    return adapter.validate_python(values | {"mode": mode})


def _fingerprint(opened: OpenedFile) -> dict[str, Any]:
    scale = 1.0 if opened.grid is None else opened.grid.zoom
    level = opened.source.level_for((scale, scale))
    return fingerprint_plane(
        opened.source.level(level), opened.planes[0], opened.intensity.channels
    )


def _versions() -> dict[str, str]:
    return {
        "napari_sam": version("napari-sam-microscopy"),
        "torch": str(torch.__version__),
        "numpy": str(np.__version__),
        "python": platform.python_version(),
    }
