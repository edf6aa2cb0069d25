"""What a person names as input -> one image after the other.

A folder stands for the images in it, a pattern for the files that it fits, a plate
for all its fields.
"""

from __future__ import annotations

import glob
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam.errors import FormatError, InputError, MissingFileError
from napari_sam.readers import IMAGE_ENDINGS, is_zarr, list_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_sam.engine.files import ImageOptions

logger = logging.getLogger(__name__)

# What this program writes beside an image and could take for one.
_RESULTS = re.compile(
    r"(?P<stem>.+)\.((labels|linked|uncertainty)\.(tif|zarr)|(overlay|outlines)\.png)"
)


@dataclass(frozen=True, slots=True)
class InputImage:
    """One image to work on.

    Parameters
    ----------
    path : Path
        Its file.
    image : str, optional
        Which image of the file, if it holds several.
    """

    path: Path
    image: str | None = None

    @property
    def name(self) -> Path:
        """The path, with the name of the image in it; for the names of results."""
        if self.image is None:
            return self.path
        stem = self.path.name.removesuffix(".zarr").removesuffix(".ome")
        part = self.image.replace("/", "_")
        return self.path.with_name(f"{stem}_{part}.zarr")

    def chosen(self, options: ImageOptions) -> ImageOptions:
        """Return options that open this image of the file."""
        return options if self.image is None else replace(options, image=self.image)


def find_inputs(
    given: Sequence[str | Path], image: str | None = None
) -> list[InputImage]:
    """List the images that paths, folders and patterns stand for.

    Parameters
    ----------
    given : sequence of str or Path
        Files; folders, of which every image at the top is taken; patterns such as
        ``day*/*.tif``; OME-Zarr, of which every image is taken, so that a plate is
        all its fields.
    image : str, optional
        Which image of each file was chosen by hand, so that files are not looked into.

    Returns
    -------
    list of InputImage
        In the order given, and sorted within each; each image once. What was written
        for one of the images beside it, such as its labels, is left out.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If a folder or a pattern holds no image.
    """
    if image is not None:
        found = [InputImage(Path(each).expanduser()) for each in given]
    else:
        found = [found for each in given for found in _images(Path(each).expanduser())]
    found = list(dict.fromkeys(found))
    return [each for each in found if not _is_result(each.path, found)]


def _images(path: Path) -> Iterator[InputImage]:
    if is_zarr(path):
        yield from (InputImage(path, name) for name in _names(path))
        return
    if path.is_dir():
        found = _in_folder(path)
    elif path.exists():
        yield InputImage(path)
        return
    elif glob.has_magic(str(path)):
        # Path.glob knows no absolute patterns
        found = [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        if not found:
            raise InputError(f"no file fits {path}; check the pattern")
    else:
        raise MissingFileError(2, "no such file; check its name and folder", str(path))
    for each in found:
        if each.is_dir():
            if is_zarr(each):
                yield from _images(each)
        else:
            yield InputImage(each)


def _in_folder(folder: Path) -> list[Path]:
    """List the images of a folder, and say what it holds besides."""
    there = [each for each in folder.iterdir() if not each.name.startswith(".")]
    found = [each for each in sorted(there) if _is_image(each)]
    others = {each.suffix or each.name for each in set(there) - set(found)}
    besides = ", ".join(sorted(others))
    if not found:
        raise InputError(
            f"{folder} holds no image ({', '.join(IMAGE_ENDINGS)}), only "
            f"{besides or 'nothing'}; give the folder that does, or name other files"
        )
    if others:
        logger.info("%s: left out %s", folder, besides)
    return found


def _is_result(path: Path, found: Sequence[InputImage]) -> bool:
    """Whether a file was made from another one that was found."""
    match = _RESULTS.fullmatch(path.name)
    if match is None:
        return False
    stem = match["stem"]
    return path.with_name(f"{stem}.recipe.yaml").exists() or any(
        each.path.parent == path.parent and each.path.name.startswith(f"{stem}.")
        for each in found
        if _RESULTS.fullmatch(each.path.name) is None
    )


def _names(path: Path) -> tuple[str | None, ...]:
    """Name the images of a Zarr; None for the only one."""
    try:
        names = list_images(path)
    except FormatError:
        # no reason to leave out all others: whoever opens it will be told
        return (None,)
    return names if len(names) > 1 else (None,)


def _is_image(path: Path) -> bool:
    is_named = path.suffix.lower() in IMAGE_ENDINGS
    return is_named and (not path.is_dir() or is_zarr(path))
