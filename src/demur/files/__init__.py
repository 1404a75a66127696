"""Everything that demur reads from and writes to a disk: whole files, hashes, manifests, locks."""
