"""The story of the bundled models."""
