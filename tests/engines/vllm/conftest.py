"""The tests of the vLLM engine run where vLLM is installed: `make test-vllm`. Elsewhere none is collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]
