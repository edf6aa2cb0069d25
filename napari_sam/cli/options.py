"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from napari_sam.errors import InputError, NapariSamError

if TYPE_CHECKING:
    from napari_sam.cache import EmbeddingCache

_IMAGE, _MODEL, _OUTPUT = "Image", "Model", "Output"

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...", help="Image files, folders, patterns, OME-Zarr, plates."
    ),
]
ImageFile = Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")]

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="A folder, or for one image a .tif file. Default: this folder.",
        rich_help_panel=_OUTPUT,
    ),
]
Overlay = Annotated[
    bool,
    typer.Option(
        "--overlay", help="Also a PNG with outlines.", rich_help_panel=_OUTPUT
    ),
]
Measurements = Annotated[
    bool,
    typer.Option(
        "--measurements", help="Also a CSV of all objects.", rich_help_panel=_OUTPUT
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace files.", rich_help_panel=_OUTPUT),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON lines.", rich_help_panel=_OUTPUT),
]

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Weights: a name from `models list`, or a file. Default: those of the "
        "package.",
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=_MODEL),
]
Precision = Annotated[
    str,
    typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=_MODEL),
]

Store = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FOLDER",
        help="Where embeddings are kept. Default: the folder of the settings.",
        rich_help_panel=_OUTPUT,
    ),
]
StoreLimit = Annotated[
    float | None,
    typer.Option(
        "--cache-limit",
        metavar="GB",
        min=0,
        help="Size of that folder above which what was not used for longest is "
        "removed. Default: that of the settings, or none for a folder that is named.",
        rich_help_panel=_OUTPUT,
    ),
]

Series = Annotated[
    str | None,
    typer.Option(help="Which image of a file with several.", rich_help_panel=_IMAGE),
]
Level = Annotated[
    int,
    typer.Option(help="Resolution level; 0 is the largest.", rich_help_panel=_IMAGE),
]
Axes = Annotated[
    str | None,
    typer.Option(
        help="A letter of TZCYXS for each axis, if the file does not say.",
        rich_help_panel=_IMAGE,
    ),
]
Channels = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        help="Channel to use, by number from 0 or by name; repeat for more.",
        rich_help_panel=_IMAGE,
    ),
]
Invert = Annotated[
    bool,
    typer.Option("--invert", help="Exchange dark and bright.", rich_help_panel=_IMAGE),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="Pixel values that become black and white, of all channels; repeat for "
        "one pair for each. Default: found once for the whole image.",
        rich_help_panel=_IMAGE,
    ),
]
Plane = Annotated[
    str | None,
    typer.Option(
        metavar="T,Z",
        help="Only this frame and slice, from 0; or the slice alone.",
        rich_help_panel=_IMAGE,
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        metavar="UM",
        help="Pixel size in micrometres, if the file does not say.",
        rich_help_panel=_IMAGE,
    ),
]
Diameter = Annotated[
    float | None,
    typer.Option(
        metavar="PX",
        help="Typical object diameter: scales the image to suit the network.",
        rich_help_panel=_IMAGE,
    ),
]

DiameterUm = Annotated[
    float | None,
    typer.Option(
        metavar="UM",
        help="The same in micrometres.",
        rich_help_panel=_IMAGE,
    ),
]

FewerCrops = Annotated[
    bool,
    typer.Option(
        "--fewer-crops",
        help="Shrink the image by up to 10 % where that saves crops: faster, a little "
        "less is found.",
        rich_help_panel=_IMAGE,
    ),
]


# Name, kind and default of each option that says how an image is opened.
_OPENING: dict[str, tuple[Any, Any]] = {
    "series": (Series, None),
    "level": (Level, 0),
    "axes": (Axes, None),
    "channel": (Channels, None),
    "invert": (Invert, False),
    "limits": (Limits, None),
    "plane": (Plane, None),
    "pixel_size": (PixelSize, None),
    "diameter": (Diameter, None),
    "diameter_um": (DiameterUm, None),
    "fewer_crops": (FewerCrops, False),
}


def opens_images(
    *, with_plane: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of opening images, as its argument ``opening``.

    On the command line they stand in the place of ``opening``, which has to be
    keyword-only; the command gets one `napari_sam.engine.files.ImageOptions`.

    Parameters
    ----------
    with_plane : bool, default True
        Whether one plane of a stack can be chosen.
    """
    options = {
        name: Parameter(
            name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (annotation, default) in _OPENING.items()
        if with_plane or name != "plane"
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # The class itself is imported when the command runs: `--help` is not to wait.
        hints = get_type_hints(
            command, None, {"ImageOptions": Any}, include_extras=True
        )
        parameters: list[Parameter] = []
        for name, parameter in signature(command).parameters.items():
            if name == "opening":
                parameters += options.values()
            else:
                parameters.append(parameter.replace(annotation=hints[name]))

        @wraps(command)
        def wrapped(**given: Any) -> None:
            from napari_sam.engine.files import ImageOptions

            chosen = {name: given.pop(name) for name in options}
            opening = ImageOptions(
                image=chosen["series"],
                level=chosen["level"],
                axes=chosen["axes"],
                channels=parse_channels(chosen["channel"]),
                invert=chosen["invert"],
                plane=parse_plane(chosen.get("plane")),
                pixel_size_um=chosen["pixel_size"],
                diameter=chosen["diameter"],
                diameter_um=chosen["diameter_um"],
                fewer_crops=chosen["fewer_crops"],
                limits=parse_limits(chosen["limits"]),
            )
            command(**given, opening=opening)

        # typer reads both.
        wrapped.__signature__ = signature(command).replace(  # type: ignore[attr-defined]
            parameters=parameters
        )
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate


def parse_plane(text: str | None) -> tuple[int, int] | None:
    """Read ``T,Z``, or ``Z`` alone for the first frame.

    Raises
    ------
    InputError
        If the text is something else.

    Examples
    --------
    >>> parse_plane("2,7"), parse_plane("7"), parse_plane(None)
    ((2, 7), (0, 7), None)
    """
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"plane {text!r}; write frame,slice, counted from 0: 0,12")
    numbers = [int(part) for part in parts]
    return (0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def parse_limits(texts: list[str] | None) -> tuple[tuple[float, float], ...] | None:
    """Read ``LOW,HIGH``, of all channels or of each.

    Raises
    ------
    InputError
        If the text is something else.

    Examples
    --------
    >>> parse_limits(["100,4000", "0,255"]), parse_limits(None)
    (((100.0, 4000.0), (0.0, 255.0)), None)
    """
    pairs = []
    for text in texts or ():
        try:
            low, high = (float(part) for part in text.split(","))
        except ValueError as error:
            raise InputError(f"limits {text!r}; write low,high: 100,4000") from error
        pairs.append((low, high))
    return tuple(pairs) or None


def parse_channels(names: list[str] | None) -> tuple[int | str, ...]:
    """Tell numbers of channels from names.

    Examples
    --------
    >>> parse_channels(["0", "DAPI"])
    (0, 'DAPI')
    """
    return tuple(int(name) if name.isdecimal() else name for name in names or ())


def open_store(
    folder: Path | None = None, limit_gb: float | None = None
) -> EmbeddingCache:
    """Open the store in a folder, or that of the settings with its limit of size."""
    from napari_sam.cache import EmbeddingCache
    from napari_sam.settings import get_settings

    limit = None if limit_gb is None else int(limit_gb * 1e9)
    if folder is not None:
        return EmbeddingCache(folder, limit_bytes=limit)
    settings = get_settings()
    if limit is None:
        limit = settings.cache_limit_bytes
    return EmbeddingCache(settings.cache_dir, limit_bytes=limit)


def own_store(
    folder: Path | None, limit_gb: float | None, *, adds: bool
) -> EmbeddingCache | None:
    """Open a store for a command that gets along without one.

    Parameters
    ----------
    folder : Path or None
        That was named: it is used, or the command fails. None takes that of the
        settings if it can be used.
    limit_gb : float or None
        Of the folder.
    adds : bool
        Whether images that are not in the folder of the settings yet come in.
    """
    from napari_sam.errors import NapariSamWarning
    from napari_sam.settings import get_settings

    if folder is None and not adds and not get_settings().cache_dir.exists():
        return None
    try:
        store = open_store(folder, limit_gb)
    except NapariSamError as error:
        if folder is not None:
            raise
        warnings.warn(f"{error}; going on without it", NapariSamWarning, stacklevel=2)
        return None
    store.adds = adds or folder is not None
    return store


def read_settings(texts: list[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` with values written as in YAML.

    Raises
    ------
    InputError
        If a text is something else.

    Examples
    --------
    >>> read_settings(["steps=1000", "windows=[[256, 8]]"])
    {'steps': 1000, 'windows': [[256, 8]]}
    """
    import yaml

    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"setting {text!r}; write NAME=VALUE: steps=1000")
        try:
            settings[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"setting {text!r} is no YAML: {error}") from error
    return settings
