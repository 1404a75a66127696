"""Two runs on the same prompts."""
