"""What the program costs, measured; as in the program, threads spin briefly."""

from napari_sam.threads import spin_briefly

spin_briefly()  # before torch is loaded
