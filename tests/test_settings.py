from __future__ import annotations

from pathlib import Path

import pytest

from napari_sam import settings
from napari_sam.errors import FormatError, InputError
from napari_sam.settings import Settings, get_settings


@pytest.fixture(autouse=True)
def settings_file(monkeypatch, tmp_path):
    """A file of our own in place of the user's, and no memory of earlier reads."""
    for field in Settings.model_fields:
        monkeypatch.delenv(f"NAPARI_SAM_{field.upper()}", raising=False)
    file = tmp_path / "config of Zoë" / "settings.toml"
    file.parent.mkdir()
    monkeypatch.setattr(settings, "settings_file", lambda: file)
    get_settings.cache_clear()
    yield file
    get_settings.cache_clear()


def test_defaults_need_no_file():
    found = get_settings()
    assert (found.device, found.precision, found.crop_halo) == ("auto", "auto", 128)
    assert found.weights_dir.is_absolute()
    assert found.weights_dir != found.cache_dir


def test_argument_beats_environment_beats_file(monkeypatch, settings_file):
    settings_file.write_text('device = "cuda:1"\ncrop_halo = 64\nencoder_batch = 4\n')
    monkeypatch.setenv("NAPARI_SAM_CROP_HALO", "96")
    monkeypatch.setenv("NAPARI_SAM_ENCODER_BATCH", "8")
    found = Settings(encoder_batch=2)
    assert (found.device, found.crop_halo, found.encoder_batch) == ("cuda:1", 96, 2)


def test_folders_know_the_home_folder(monkeypatch):
    monkeypatch.setenv("NAPARI_SAM_WEIGHTS_DIR", "~/weights of Zoë")
    assert get_settings().weights_dir == Path.home() / "weights of Zoë"


def test_settings_are_read_once(monkeypatch):
    first = get_settings()
    monkeypatch.setenv("NAPARI_SAM_DEVICE", "mps")
    assert get_settings() is first
    get_settings.cache_clear()
    assert get_settings().device == "mps"


def test_a_misspelt_name_in_the_file_is_an_error(settings_file):
    settings_file.write_text("crop_hallo = 64\n")
    with pytest.raises(InputError, match=r"crop_hallo = 64.*settings\.toml"):
        get_settings()


def test_an_impossible_value_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv("NAPARI_SAM_CACHE_LIMIT_BYTES", "-5")
    with pytest.raises(InputError, match=r"cache_limit_bytes = '-5'.*greater than 0"):
        get_settings()


def test_a_broken_file_is_named(settings_file):
    settings_file.write_text("device = = auto\n")
    with pytest.raises(FormatError, match=r"settings\.toml is not TOML"):
        get_settings()


def test_the_file_lies_in_the_configuration_folder(monkeypatch):
    monkeypatch.undo()
    assert settings.settings_file().parts[-2:] == ("napari-sam", "settings.toml")


def test_the_page_of_settings_names_all_of_them():
    page = Path(__file__).parents[1] / "docs" / "install.md"
    rows = [r for r in page.read_text("utf-8").splitlines() if "`NAPARI_SAM_" in r]
    expected = [f"| `{f}` | `NAPARI_SAM_{f.upper()}` |" for f in Settings.model_fields]
    assert len(rows) == len(expected)
    for row, start in zip(rows, expected, strict=True):
        assert row.startswith(start)
