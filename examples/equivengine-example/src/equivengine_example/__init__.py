"""Three plugins for equivengine: a model, a probe and an image set. Each is a module with an entry point of its own."""
