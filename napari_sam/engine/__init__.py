"""Headless work: embed, predict, segment."""
