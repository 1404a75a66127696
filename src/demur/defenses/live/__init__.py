"""Guards on a generation that is being made."""
