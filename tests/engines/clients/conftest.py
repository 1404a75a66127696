"""The tests with other packages' clients run where those are installed: `make test-clients`. Elsewhere none is."""

from importlib.util import find_spec

CLIENTS = ("litellm", "inspect_ai", "langchain_openai")
collect_ignore_glob = [] if all(find_spec(name) for name in CLIENTS) else ["test_*.py"]
