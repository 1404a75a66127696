"""The page of the paper's protocol."""
