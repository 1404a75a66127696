"""The study of one model: prompt sets, recordings, tables."""
