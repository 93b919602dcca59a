"""Every backend, probe, image set, executor and observer that ships with equivengine, each one a plugin."""
