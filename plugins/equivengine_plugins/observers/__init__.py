"""Observers: plugins that watch a run."""
