"""Bring published weights onto this machine, whole and proved, or say why not.

A file is written under a temporary name, compared with its checksum, and only then
given its own name, so a file of that name is always complete. What an interrupted
download has brought stays in ``NAME.part`` and is continued by the next one; if the
sum of a continued file is wrong it is fetched once more from the start. A lock lets
one process download while others wait for its result.

pooch does the comparing and the renaming; it cannot continue a download, so it is
given a downloader that can.
"""

import errno
import logging
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from tqdm import tqdm

from napari_sam.errors import WeightsError
from napari_sam.settings import get_settings
from napari_sam.weights.table import WeightFile, WeightSpec, find_spec

logger = logging.getLogger(__name__)

CHUNK_BYTES = 2**16  # at most as much is lost when a connection breaks
CONNECTIONS = 5  # to one address; each after the first continues where the last broke
SPARE_BYTES = 64 * 2**20  # left free on the disk
TIMEOUT_S = (10.0, 60.0)  # to connect; between two chunks
WAIT_S = 1.0  # before the second connection, then twice that, ...

BUNDLED = Path(__file__).parents[1] / "assets" / "default.safetensors"


class _UnavailableError(Exception):
    """An address cannot serve the file; another one might."""


def fetch(name: str | WeightSpec, *, folder: Path | None = None) -> Path:
    """Return the path of weights on this machine; download them if need be.

    The weights folder is looked at first, so files put there by hand, under the
    names of `WeightSpec.files`, make a machine without network work. A file whose
    checksum is wrong is replaced.

    Parameters
    ----------
    name : str or WeightSpec
        One of `list_models`, by name, or facts about weights of your own.
    folder : Path, optional
        The weights folder; by default that of the settings
        (``NAPARI_SAM_WEIGHTS_DIR``).

    Returns
    -------
    Path
        File of the network. A decoder lies beside it, ``_decoder`` in its name.

    Raises
    ------
    WeightsError
        If the name is unknown, no address serves the right bytes, or the folder
        cannot hold them.
    """
    spec = find_spec(name) if isinstance(name, str) else name
    if spec.is_bundled:
        if not BUNDLED.is_file():
            raise WeightsError(
                f"the weights that come with the package are missing ({BUNDLED}); "
                "install the package again, or name other weights"
            )
        return BUNDLED
    folder = get_settings().weights_dir if folder is None else Path(folder)
    with _disk_errors(folder):
        missing = [f for f in spec.files if not _is_proved(folder / f.name, f)]
        if missing:
            level = logging.WARNING if spec.non_commercial else logging.INFO
            logger.log(level, spec.licence_notice)
        for file in missing:
            _download(file, folder)
    return folder / spec.files[0].name


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Say what is wrong with the folder, and what to do."""
    try:
        yield
    except WeightsError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full"
        raise WeightsError(
            f"weights cannot be kept in {folder}: {reason}; make room, or choose "
            "another folder with NAPARI_SAM_WEIGHTS_DIR"
        ) from error


def _is_proved(path: Path, file: WeightFile) -> bool:
    if not path.is_file():
        return False
    algorithm, _, digest = file.checksum.partition(":")
    if pooch.file_hash(str(path), alg=algorithm) == digest:
        return True
    logger.warning("%s does not match its checksum and will be replaced", path)
    return False


def _download(file: WeightFile, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{file.name}.lock"):
        # Another process may have downloaded it while this one waited.
        if not _is_proved(folder / file.name, file):
            _try_addresses(file, folder)


def _try_addresses(file: WeightFile, folder: Path) -> None:
    failures = []
    for url in file.urls:
        try:
            return _retrieve(url, file, folder)
        except _UnavailableError as error:
            logger.warning("%s: %s", url, error)
            failures.append(f"  {url}: {error}")
    raise WeightsError(
        "\n".join([f"cannot download {file.name}:", *failures])
        + f"\nTry again later, or get the file in another way and put it, as "
        f"{file.name}, into {folder}."
    )


def _retrieve(url: str, file: WeightFile, folder: Path) -> None:
    downloader = _ResumingDownloader(file, folder)
    try:
        pooch.retrieve(
            url, file.checksum, fname=file.name, path=folder, downloader=downloader
        )
    except ValueError as error:  # how pooch reports a wrong checksum
        downloader.part.unlink(missing_ok=True)
        if not downloader.has_resumed:
            reason = f"the file is not the right one ({error})"
            raise _UnavailableError(reason) from error
        _retrieve(url, file, folder)


class _ResumingDownloader:
    """Callable that pooch hands an address and a file name.

    Parameters
    ----------
    file : WeightFile
        What to download.
    folder : Path
        Where ``NAME.part`` is kept.

    Attributes
    ----------
    part : Path
        What has arrived so far.
    has_resumed : bool
        Whether some of the file comes from an earlier run.
    """

    def __init__(self, file: WeightFile, folder: Path) -> None:
        self._file = file
        self.part = folder / f"{file.name}.part"
        self.has_resumed = self._offset > 0

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        for connection in range(CONNECTIONS):
            time.sleep(connection * WAIT_S)
            if self._transfer(url):
                self.part.replace(output_file)
                return
        raise _UnavailableError(
            f"the connection broke {CONNECTIONS} times; {self._offset} bytes are kept "
            "and the next attempt continues from there"
        )

    @property
    def _offset(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _transfer(self, url: str) -> bool:
        """Open one connection; return whether the file is complete after it."""
        offset = self._offset
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            with requests.get(
                url, headers=headers, stream=True, timeout=TIMEOUT_S
            ) as response:
                return self._receive(response, offset)
        except requests.RequestException as error:
            raise _UnavailableError(f"cannot be reached ({_cause(error)})") from error

    def _receive(self, response: requests.Response, offset: int) -> bool:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if _total(response) == offset:
                return True
            self.part.unlink()
            return False
        if not response.ok:
            raise _UnavailableError(f"answers {response.status_code} {response.reason}")
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            offset = 0  # the server does not know ranges: from the start
            self.has_resumed = False
        elif f"bytes {offset}-" not in response.headers.get("Content-Range", ""):
            raise _UnavailableError("answers with another part than was asked for")
        total = _total(response)
        self._check(total, offset)
        return self._write(response, offset, total)

    def _check(self, total: int | None, offset: int) -> None:
        expected = self._file.size_bytes
        if None not in (total, expected) and total != expected:
            raise _UnavailableError(
                f"serves {total} bytes instead of {expected}; a log-in page of your "
                "network, perhaps, or a new version of the file"
            )
        needed = (total or expected or 0) - offset
        free = shutil.disk_usage(self.part.parent).free
        if needed + SPARE_BYTES > free:
            raise WeightsError(
                f"{self._file.name} needs {needed / 1e6:.0f} MB more but "
                f"{self.part.parent} has {free / 1e6:.0f} MB free; make room, or "
                "choose another folder with NAPARI_SAM_WEIGHTS_DIR"
            )

    def _write(
        self, response: requests.Response, offset: int, total: int | None
    ) -> bool:
        bar = tqdm(
            total=total,
            initial=offset,
            desc=self._file.name,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            # None: only where there is a terminal; a window may have no such stream
            disable=None if sys.stderr is not None else True,
        )
        with bar, self.part.open("ab" if offset else "wb") as stream:
            try:
                for chunk in response.iter_content(CHUNK_BYTES):
                    stream.write(chunk)
                    bar.update(len(chunk))
            except requests.RequestException as error:
                logger.info("%s: %s", self._file.name, _cause(error))
                return False
        return total is None or self._offset >= total


def _total(response: requests.Response) -> int | None:
    """Return the size of the whole file that the server states, in bytes."""
    if match := re.search(r"/(\d+)$", response.headers.get("Content-Range", "")):
        return int(match[1])
    length = response.headers.get("Content-Length")
    return int(length) if length is not None else None


def _cause(error: BaseException) -> str:
    """Return the innermost reason; requests wraps it several times."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__
