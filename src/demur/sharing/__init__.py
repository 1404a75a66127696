"""Fitted things that others can use: a folder, or a repository of the Hugging Face Hub, with a card."""

from demur.sharing.folder import Shared, open_shared
from demur.sharing.places import is_hub_name
from demur.sharing.shareable import Shareable

__all__ = ["Shareable", "Shared", "is_hub_name", "open_shared"]
