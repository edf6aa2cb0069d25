"""Results -> files; `napari_sam.writers.formats` lists what labels can become."""
