"""Guards that judge while the signal still arrives."""
