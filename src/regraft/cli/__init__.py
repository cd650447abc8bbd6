"""`regraft`: one verb per stage of a model's life."""
