"""Whole runs: the only place where domains meet."""
