"""Quantised checkpoints are tested where their packages are: `make test-quantised`. Elsewhere nothing is collected."""

from importlib.util import find_spec

NEEDED = ("bitsandbytes", "compressed_tensors")
collect_ignore_glob = [] if all(find_spec(name) for name in NEEDED) else ["test_*.py"]
