"""What a plugin author implements: models, probes, image sets, executors, hooks, and the results that travel."""
