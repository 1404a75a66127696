"""Defenses that judge a finished generation."""
