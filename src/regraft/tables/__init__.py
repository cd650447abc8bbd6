"""Immutable columns keyed by sample and draw, each stamped with what produced it."""
