"""A family of models is one entry that says what it can; no code compares names of families."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

import demur
from demur.models import FAMILIES, Traits, from_network, make_bidirectional
from demur.samplers import SAMPLERS, MaskedDiffusion

SOURCE = Path(demur.__file__).parent


def compares_family(node: ast.AST) -> bool:
    """Whether a comparison sets something called family against the name of one."""
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    named = any(getattr(side, "attr", getattr(side, "id", "")) == "family" for side in sides)
    return named and any(
        isinstance(part, ast.Constant) and part.value in FAMILIES for s in sides for part in ast.walk(s)
    )


def test_no_source_compares_the_name_of_a_family() -> None:
    found = [
        f"{path}:{node.lineno}"  # type: ignore[attr-defined]
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if compares_family(node)
    ]
    assert found == []
    assert compares_family(ast.parse("model.family in (None, 'autoregressive')", mode="eval").body)


def test_what_a_family_says_is_what_its_sampler_does() -> None:
    for name, traits in FAMILIES.items():
        sampler = SAMPLERS[traits.sampler]
        assert sampler.family == name and sampler.revises is traits.revises


@pytest.fixture
def own_family() -> Iterator[Any]:
    """A family with its sampler, for the test alone."""
    SAMPLERS.register("Own")(Own)
    FAMILIES.register("own")(Traits("Own", has_masks=True, forces="anywhere", likelihood=None))
    yield "own"
    del FAMILIES["own"], SAMPLERS["Own"]


class Own(MaskedDiffusion):
    family = "own"


def test_a_family_of_ones_own_is_an_entry_and_a_sampler(own_family: str) -> None:
    sizes = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    network = make_bidirectional(LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)))
    with pytest.raises(demur.InputError, match="a own model needs a mask token"):
        from_network(network, family="own")
    model = from_network(network, family="own", mask_token_id=29, eos_token_ids=[1])
    prompts = [{"id": "a", "token_ids": [5, 6]}]
    recording = demur.record(model, prompts, model.default_sampler(steps=4, response_length=8))
    assert recording.phi.shape == (1, 4, 1, 16)
    assert recording.provenance.sampler["name"] == "Own"
    with pytest.raises(demur.InputError, match="is of the family own and MaskedDiffusion decodes masked-diffusion"):
        demur.record(model, prompts, MaskedDiffusion(steps=4, response_length=8))
    with pytest.raises(demur.InputError, match="family own have no likelihood of a text"):
        demur.defenses.PerplexityFilter(model).perplexities(["a"])


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    network = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with pytest.raises(demur.InputError, match="expected one of 'autoregressive', 'masked-diffusion'"):
        from_network(network, family="masked_diffusion")
