"""The page of keys says what the table of keys says."""

from pathlib import Path

from napari_sam.widgets.keys import KEYS, key_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "keys.md"


def test_the_page_lists_every_key_once() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| **")]
    assert len(rows) == len(KEYS)
    for key, row in zip(KEYS, rows, strict=True):
        names = [each for each in (key.on_prompts, key.everywhere) if each]
        spelt = " or ".join(
            f"**{each.replace('Control', 'Ctrl').replace('-', '+')}**".replace(
                "Escape", "Esc"
            )
            for each in names
        )
        assert row == f"| {spelt} | {key.what} |"


def test_keys_are_written_on_buttons_as_people_say_them() -> None:
    assert key_of("reject") == "Esc"
    assert key_of("undo") == "Ctrl-Z"
    assert key_of("open") == "G"
    keep = next(each for each in KEYS if each.command == "keep")
    assert keep.labels == "Enter, K"
