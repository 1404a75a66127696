"""The step viewer: one HTML file that plays any generation."""
