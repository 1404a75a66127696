"""Checkpoint formats: a module each, from a folder to a network."""
