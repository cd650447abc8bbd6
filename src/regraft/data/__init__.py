"""Samples and the order they come in."""
