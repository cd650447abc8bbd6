"""Where live embeddings are kept and searched."""
