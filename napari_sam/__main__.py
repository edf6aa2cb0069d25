"""``python -m napari_sam`` is ``napari-sam``, for shells that do not find the command."""

from napari_sam.cli import main

if __name__ == "__main__":
    main()
