"""A guarded server: OpenAI's chat API in front of any model that demur loads."""

from demur.serve.app import make_app
from demur.serve.guards import Guards, Watched, load_guards
from demur.serve.settings import Settings

__all__ = ["Guards", "Settings", "Watched", "load_guards", "make_app"]
