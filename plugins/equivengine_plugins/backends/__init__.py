"""Model backends: each module owns one URI scheme and imports its library only when a model is loaded."""
