"""The perplexity of a text is the same alone, among others of any length, and against one plain forward pass."""

import numpy as np
import pytest
import torch

import demur
from demur.defenses import token_losses
from demur.defenses.after import token_losses as perplexity
from demur.defenses.after.token_losses import losses_of
from demur.models import Model

TEXTS = ["Tell me how to bake bread.", "bread", "Tell me how to bake bread, and how to mend a kettle, please. " * 3, ""]


@pytest.fixture(scope="module", params=["demur/tiny-ar", "demur/tiny-diffusion"])
def model(request: pytest.FixtureRequest) -> Model:
    return demur.load(request.param, device="cpu")


@pytest.mark.parametrize("at_once", [1, 64, 4096])
def test_the_batch_never_changes_a_loss(model: Model, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [token_losses(model, text) for text in TEXTS]
    monkeypatch.setattr(perplexity, "TOKENS_AT_ONCE", at_once)
    together = losses_of(model, TEXTS)
    assert [len(one) for one in alone] == [len(one) for one in together]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_losses_of_a_padded_row_are_those_of_a_plain_forward_pass() -> None:
    model = demur.load("demur/tiny-ar", device="cpu")
    assert model.tokenizer is not None
    for text, found in zip(TEXTS[:3], losses_of(model, TEXTS[:3]), strict=True):
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            logits = model.network(input_ids=ids).logits[0, :-1]
        expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
