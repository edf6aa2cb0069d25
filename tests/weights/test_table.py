import re
import subprocess
import sys
from pathlib import Path

import pytest

from napari_sam.errors import WeightsError
from napari_sam.model import VARIANTS
from napari_sam.weights.table import find_spec, list_models


def test_names_are_unique_and_families_exist() -> None:
    names = [spec.name for spec in list_models()]
    assert len(set(names)) == len(names)
    assert {spec.family for spec in list_models()} <= set(VARIANTS)


def test_every_file_can_be_proved_and_has_a_name_of_its_own() -> None:
    files = [file for spec in list_models() for file in spec.files]
    pattern = re.compile(r"sha256:[0-9a-f]{64}|xxh128:[0-9a-f]{32}")
    assert all(pattern.fullmatch(file.checksum) for file in files)
    assert len({file.name for file in files}) == len(files)
    assert len({file.checksum for file in files}) == len(files)
    assert all(url.startswith("https://") for file in files for url in file.urls)


def test_decoder_is_named_after_its_network() -> None:
    # load_model finds it by that name.
    for spec in list_models():
        if spec.weights is not None and spec.decoder is not None:
            stem, _, suffix = spec.weights.name.rpartition(".")
            assert spec.decoder.name == f"{stem}_decoder.{suffix}"


def test_issue_asks_for_these_weights() -> None:
    wanted = {"vit_b", "vit_l", "vit_h", "mobile_sam", "tiny_sam", "medsam"}
    for family in ("vit_t", "vit_b", "vit_l"):
        wanted |= {f"{family}_lm", f"{family}_em_organelles"}
    assert wanted <= {spec.name for spec in list_models()}


def test_facts_of_vit_b() -> None:
    spec = find_spec("vit_b")
    assert spec.size_bytes == 375_042_383
    assert spec.sha256 is not None
    assert spec.sha256.startswith("ec2df627")
    assert [file.urls for file in spec.files] == [
        ("https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",)
    ]
    assert spec.licence == "Apache-2.0"
    assert not spec.has_proposals


def test_sha256_is_none_where_only_another_sum_is_published() -> None:
    spec = find_spec("vit_b_lm")
    assert spec.sha256 is None
    assert spec.size_bytes is None
    assert spec.has_proposals
    assert [file.name for file in spec.files] == ["vit_b_lm.pt", "vit_b_lm_decoder.pt"]


def test_bundled_weights_need_no_download() -> None:
    spec = list_models()[0]
    assert spec.is_bundled
    assert spec.files == ()
    assert spec.size_bytes is None


def test_notice_says_when_a_licence_excludes_commerce() -> None:
    assert "NOT for commercial use" in find_spec("vit_b_histopathology").licence_notice
    assert "commercial" not in find_spec("vit_b").licence_notice


def test_unknown_name_is_told_the_nearest_one() -> None:
    with pytest.raises(WeightsError, match="did you mean 'vit_b_lm'"):
        find_spec("vitb_lm")


def test_listing_does_not_load_torch() -> None:
    code = (
        "import sys; from napari_sam.weights.table import list_models; list_models(); "
        "sys.exit('torch' in sys.modules or 'pooch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_page_of_models_names_all_weights_with_their_licence() -> None:
    page = Path(__file__).parents[2] / "docs" / "explain" / "models.md"
    rows = {
        cells[1].strip().strip("`"): cells
        for cells in (line.split("|") for line in page.read_text("utf-8").splitlines())
        if len(cells) == 8
    }
    for spec in list_models():
        _, _, _, size, trained_for, proposals, licence, _ = rows[spec.name]
        assert trained_for.strip() == spec.trained_for
        assert proposals.strip() == ("yes" if spec.has_proposals else "no")
        assert licence.strip().startswith(spec.licence)
        assert ("not commercial" in licence) == spec.non_commercial
        if spec.size_bytes is not None:
            assert int(size) == round(spec.size_bytes / 1e6)
