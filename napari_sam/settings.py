"""Folders, device and limits that a user sets once.

Order: argument of a function, then ``NAPARI_SAM_*`` in the environment, then
``settings.toml`` in the user's configuration folder, then the default. Nothing
is read at import; only `napari_sam.engine`, `napari_sam.weights` and the doors
ask for settings, the floors below get arguments.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from napari_sam.errors import FormatError, InputError

_APP = "napari-sam"
_PREFIX = "NAPARI_SAM_"

Folder = Annotated[Path, AfterValidator(Path.expanduser)]


def settings_file() -> Path:
    """Return where the user's settings are kept; the file need not exist."""
    return platformdirs.user_config_path(_APP, appauthor=False) / "settings.toml"


def autosave_dir() -> Path:
    """Return where the plugin saves sessions by itself; the folder need not exist."""
    return _data_path() / "autosave"


class Settings(BaseSettings):
    """What a user may set; each field is also ``NAPARI_SAM_<NAME>``.

    Parameters
    ----------
    weights_dir : Path
        Where downloaded weights are kept, and looked for without a network.
    cache_dir : Path
        Where embeddings are kept.
    cache_limit_bytes : int
        Size of that folder above which the oldest embeddings are removed.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    precision : str
        Of the image encoder: ``auto``, ``float32`` or ``bfloat16``.
    crop_halo : int
        Context on each side of a crop's core, in input pixels.
    encoder_batch : int
        Crops encoded at once.
    worker_threads : int
        Threads that read and write crops beside the encoder.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)

    weights_dir: Folder = Field(
        default_factory=lambda: _data_path() / "weights", validate_default=True
    )
    cache_dir: Folder = Field(
        default_factory=lambda: _cache_path() / "embeddings", validate_default=True
    )
    cache_limit_bytes: int = Field(default=50 * 10**9, gt=0)
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    crop_halo: int = Field(default=128, ge=0)
    encoder_batch: int = Field(default=1, ge=1)
    worker_threads: int = Field(default=2, ge=1)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Ask the arguments first, then the environment, then the file."""
        file = TomlConfigSettingsSource(settings_cls, toml_file=settings_file())
        return init_settings, env_settings, file


@cache
def get_settings() -> Settings:
    """Return the settings; they are read on the first call.

    Returns
    -------
    Settings

    Raises
    ------
    InputError
        If a value is not possible, or a name in the file is not known.
    FormatError
        If the file is not TOML.

    Notes
    -----
    ``get_settings.cache_clear()`` has them read again.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])} = {fault['input']!r}: "
            f"{fault['msg']}"
            for fault in error.errors()
        )
        raise InputError(
            f"settings cannot be used: {faults}; correct the environment "
            f"({_PREFIX}...) or {settings_file()}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{settings_file()} is not TOML: {error}") from error


def _data_path() -> Path:
    return platformdirs.user_data_path(_APP, appauthor=False)


def _cache_path() -> Path:
    return platformdirs.user_cache_path(_APP, appauthor=False)
