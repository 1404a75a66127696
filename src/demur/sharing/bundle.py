"""What the Hub's client saves and pushes: a fitted thing, what it watches, and their card.

In: fitted things and facts. Out: `huggingface_hub`'s `ModelHubMixin` over them. It stands apart from guards and anchors
because the mixin keeps the arguments of a constructor in the instance, which scikit-learn's estimators must not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelHubMixin

from demur.sharing.card import card
from demur.sharing.folder import save_shared

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from demur.sharing.shareable import Shareable


class Bundle(ModelHubMixin, library_name="demur"):
    """Fitted things that are shared together, the one that gives the name first."""

    def __init__(
        self, things: list[Shareable], measured: list[dict[str, Any]], place: str, license: str | None
    ) -> None:
        self._things, self._measured, self._place, self._license = things, measured, place, license
        self._facts: Mapping[str, Any] = {thing.shared_kind: thing.summary() for thing in things}

    def __new__(cls, *arguments: Any) -> Bundle:
        """Without the mixin's config of constructor arguments: the manifest is written instead."""
        return object.__new__(cls)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_shared(save_directory, self._things, self._facts, self._measured)

    def generate_model_card(self, *arguments: Any, **options: Any) -> ModelCard:
        """The card; the mixin writes it."""
        classes = [(type(thing).__name__, "source" if n else "fitted") for n, thing in enumerate(self._things)]
        return card(self._place, self._facts[self._things[0].shared_kind], self._measured, classes, self._license)
