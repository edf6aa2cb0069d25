"""Segment Anything for microscopy."""
