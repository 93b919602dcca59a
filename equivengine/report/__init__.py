"""What a reader sees of a run: summaries and tables. Reads the store, never an engine."""
