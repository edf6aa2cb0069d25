"""Training of SAM on annotated microscopy."""
