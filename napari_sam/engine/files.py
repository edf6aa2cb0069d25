"""Which files belong to an image: how it is opened, what is written beside it.

`plan_outputs` decides every name before the first image is opened, so that a clash of
names is found at the start and not after hours.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from napari_sam.engine.embed import PlaneEmbedding, default_grid, open_plane
from napari_sam.errors import InputError
from napari_sam.images import find_intensity
from napari_sam.readers import open_image
from napari_sam.tiling import CropGrid
from napari_sam.writers.atomic import refuse_existing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_sam.cache import EmbeddingCache
    from napari_sam.images import ImageSource, Intensity
    from napari_sam.model import Sam

_ENDINGS = re.compile(r"(\.ome)?\.[A-Za-z0-9]+$")
_LABEL_ENDINGS = (".tif", ".tiff", ".zarr")
_OTHER_ENDINGS = (".csv", ".jpeg", ".jpg", ".json", ".npy", ".npz", ".png")


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How an image file is opened, and which plane of it is used.

    Parameters
    ----------
    image : str, optional
        Which image of a file with several.
    level : int, default 0
        Resolution level; 0 is the largest.
    axes : str, optional
        One letter of TZCYXS for each axis, where the file does not say.
    channels : tuple of int or str
        Channels to use, by number or name; empty takes all.
    invert : bool, default False
        Exchange dark and bright.
    plane : tuple of int, optional
        (frame, slice). Default: all planes.
    pixel_size_um : float, optional
        Pixel size in micrometres, where the file does not say.
    diameter : float, optional
        Typical diameter of the objects, in pixels: the plane is scaled so that they
        have a good size for the network. Default: the rule of `CropGrid`.
    diameter_um : float, optional
        The same in micrometres.
    fewer_crops : bool, default False
        Without a diameter: shrink planes by up to 10 % where that saves crops, see
        `CropGrid.balanced`.
    limits : tuple of (float, float), optional
        Pixel values that become black and white: one pair for all channels, or one for
        each. Default: from `find_intensity`.
    """

    image: str | None = None
    level: int = 0
    axes: str | None = None
    channels: tuple[int | str, ...] = ()
    invert: bool = False
    plane: tuple[int, int] | None = None
    pixel_size_um: float | None = None
    diameter: float | None = None
    diameter_um: float | None = None
    fewer_crops: bool = False
    limits: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is written for one image.

    Parameters
    ----------
    labels : Path
        Object ids: OME-TIFF, or OME-Zarr if the name ends in .zarr.
    overlay : Path, optional
        Picture with outlines, PNG.
    measurements : Path, optional
        One line for each object, CSV.
    seams : Path, optional
        One line for each object on a border of crops, CSV.
    overwrite : bool, default False
        Replace files that exist.
    """

    labels: Path
    overlay: Path | None = None
    measurements: Path | None = None
    seams: Path | None = None
    overwrite: bool = False

    @property
    def recipe(self) -> Path:
        """How the labels were made, YAML."""
        return self._beside("recipe.yaml")

    @property
    def manifest(self) -> Path:
        """What became of every crop, JSON lines."""
        return self._beside("manifest.jsonl")

    @property
    def crops(self) -> Path:
        """Folder of what crops see, until the labels are written."""
        return self._beside("crops")

    def _beside(self, ending: str) -> Path:
        stem = _ENDINGS.sub("", self.labels.name).removesuffix(".labels")
        return self.labels.with_name(f"{stem}.{ending}")


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An image file, ready for the engine.

    Parameters
    ----------
    source : ImageSource
        The image.
    options : ImageOptions
        How it was opened.
    intensity : Intensity
        How its pixels become 8-bit RGB.
    grid : CropGrid or None
        How a plane is cut; None for the default.
    """

    source: ImageSource
    options: ImageOptions
    intensity: Intensity
    grid: CropGrid | None

    @property
    def plane(self) -> tuple[int, int] | None:
        """The plane that was chosen; None for all."""
        return self.options.plane

    @property
    def planes(self) -> list[tuple[int, int]]:
        """The planes to work on, as (frame, slice)."""
        if self.plane is not None:
            return [self.plane]
        return list(self.source.plane_indices())

    def embedding(
        self, model: Sam, plane: tuple[int, int], cache: EmbeddingCache | None = None
    ) -> PlaneEmbedding:
        """Make ready to encode the crops of a plane, as `open_plane` does."""
        return open_plane(
            self.source,
            model,
            cache=cache,
            grid=self.grid,
            plane=plane,
            intensity=self.intensity,
        )


def plan_outputs(  # noqa: PLR0913 - one switch for each file
    images: Sequence[Path],
    output: Path,
    overlay: bool = False,
    measurements: bool = False,
    overwrite: bool = False,
    seams: bool = False,
    ending: Literal[".tif", ".zarr"] = ".tif",
) -> list[Outputs]:
    """Name the files of each image; nothing is opened or written.

    Parameters
    ----------
    images : sequence of Path
        The image files.
    output : Path
        A file that ends in .tif or .zarr, for one image; else a folder, for
        ``NAME.labels.tif``, ``NAME.overlay.png``, ``NAME.csv``, ``NAME.seams.csv``.
        NAME is that of the image without its ending; with it, or with its folder,
        where two images would have one name.
    overlay, measurements, overwrite, seams : bool
        As in `Outputs`.
    ending : {".tif", ".zarr"}
        Format of labels in a folder.

    Returns
    -------
    list of Outputs
        In the order of the images.

    Raises
    ------
    InputError
        If two images would be written to one file, or several to a file name, or if
        the name is that of a file of another kind.

    Examples
    --------
    >>> from pathlib import Path
    >>> plan_outputs([Path("in/a.ome.tif")], Path("out"))[0].labels.as_posix()
    'out/a.labels.tif'
    >>> [
    ...     out.labels.name
    ...     for out in plan_outputs([Path("a.tif"), Path("a.png")], Path())
    ... ]
    ['a_tif.labels.tif', 'a_png.labels.tif']
    """
    if output.suffix.lower() in _LABEL_ENDINGS:
        if len(images) != 1:
            raise InputError(
                f"{len(images)} images and one file {output}; give a folder for output"
            )
        stems = [output.with_name(_ENDINGS.sub("", output.name))]
        labels = [output]
    elif output.suffix.lower() in _OTHER_ENDINGS and not output.is_dir():
        raise InputError(
            f"labels in {output.name}; give a folder, or a name that ends in .tif or "
            ".zarr"
        )
    else:
        stems = [output / name for name in _distinct_names(images)]
        labels = [stem.with_name(f"{stem.name}.labels{ending}") for stem in stems]
    for i, path in enumerate(labels):
        if path in labels[:i]:
            raise InputError(
                f"{images[labels.index(path)]} and {images[i]} would both be written "
                f"to {path}; give them to two calls with two folders"
            )
    return [
        Outputs(
            path,
            stem.with_name(f"{stem.name}.overlay.png") if overlay else None,
            stem.with_name(f"{stem.name}.csv") if measurements else None,
            stem.with_name(f"{stem.name}.seams.csv") if seams else None,
            overwrite,
        )
        for stem, path in zip(stems, labels, strict=True)
    ]


def _distinct_names(images: Sequence[Path]) -> list[str]:
    """Name results after images; longer where two would have one name."""
    names = [_ENDINGS.sub("", image.name) for image in images]
    longer = [
        [image.name.replace(".", "_") for image in images],
        [
            f"{image.parent.name}_{name}"
            for image, name in zip(images, names, strict=True)
        ],
    ]
    for others in longer:
        counts = Counter(names)
        pairs = zip(names, others, strict=True)
        names = [more if counts[name] > 1 else name for name, more in pairs]
    return names


def open_source(path: Path, options: ImageOptions) -> ImageSource:
    """Open an image file as `ImageOptions` say."""
    return open_image(
        path,
        image=options.image,
        level=options.level,
        axes=options.axes,
        pixel_size_um=options.pixel_size_um,
    )


def open_file(path: Path, model: Sam, options: ImageOptions) -> OpenedFile:
    """Open an image file, and find its contrast limits and how it is cut."""
    source = open_source(path, options)
    grid = None
    diameter = _diameter_px(source, options)
    if diameter is not None and options.fewer_crops:
        raise InputError(
            "the diameter of objects says how much planes are scaled; leave it out to "
            "have them scaled for fewer crops"
        )
    if diameter is not None:
        scale = CropGrid.for_diameter(source.plane_shape, diameter).scale
        grid = replace(default_grid(source, model), scale=scale)
    elif options.fewer_crops:
        usual = default_grid(source, model)
        grid = CropGrid.balanced(usual.shape, size=usual.size, halo=usual.halo)
    intensity = find_intensity(
        source,
        channels=options.channels or None,
        limits=options.limits,
        invert=options.invert,
    )
    return OpenedFile(source, options, intensity, grid)


def _diameter_px(source: ImageSource, options: ImageOptions) -> float | None:
    if options.diameter_um is None:
        return options.diameter
    if options.diameter is not None:
        raise InputError(
            f"diameters of {options.diameter} px and of {options.diameter_um} um; give "
            "one of the two"
        )
    if source.pixel_size_um is None:
        raise InputError(
            f"{source.name} does not say how large a pixel is; give the pixel size in "
            "micrometres, or the diameter in pixels"
        )
    return options.diameter_um / math.prod(source.pixel_size_um) ** 0.5


def check_free(outputs: Outputs, why: str = "exists already") -> None:
    """Refuse to replace a file before the work, not after it."""
    for path in (outputs.labels, outputs.overlay, outputs.measurements, outputs.seams):
        if path is not None and not outputs.overwrite:
            refuse_existing(path, why)
