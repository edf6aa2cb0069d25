"""``python -m napari_sam`` is ``napari-sam``, where a shell does not find that."""

from napari_sam.cli import main

if __name__ == "__main__":
    main()
