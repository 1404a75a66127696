"""The tests of the Ray engine run where Ray is installed: `make test-ray`. Elsewhere none is collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("ray") else ["test_*.py"]
