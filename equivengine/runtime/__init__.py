"""From what a user asks for to published results: registry, plan, engine."""
