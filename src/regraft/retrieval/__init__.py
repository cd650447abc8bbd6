"""Searching and replacing embeddings."""
