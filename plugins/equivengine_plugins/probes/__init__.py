"""Probes: what is measured."""
