"""Arguments of `record` and of a study: what would be ignored or misread is refused before anything is generated."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import demur
from demur import InputError
from demur.models import Model, from_network
from demur.prompts import Prompt
from demur.recording.arguments import as_model, chosen_sampler, layer_indices
from demur.samplers import Autoregressive
from demur.studies.study.prompt_sets import example_set, require_anchor_prompts


class Network:
    """A model of four layers that is never run."""

    @property
    def model(self) -> Any:
        made = SimpleNamespace(layer_count=4, default_sampler=lambda steps, **more: Autoregressive(steps=steps, **more))
        made.layer_index = lambda layer: Model.layer_index(made, layer)  # type: ignore[arg-type]
        return made


@pytest.fixture
def model() -> Any:
    return Network().model


@pytest.fixture(scope="module")
def tiny() -> Model:
    return demur.load("demur/tiny-ar", device="cpu")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"keep": "sigma"}, "keep is 'sigma'; expected one of 'phi', 'signal'"),
        ({"batch_size": True}, "batch_size is True; expected a whole number of at least 1"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"steps": 2.5}, "steps is 2.5; expected a whole number of at least 1"),
        ({"steps": True}, "steps is True"),
        ({"steps": "4"}, "steps is '4'"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
        ({"layers": ()}, "layers is empty"),
        ({"layers": "mid"}, "layer 'mid' is none of first"),
        ({"sampler": "Autoregressive"}, "sampler is 'Autoregressive'; give an object"),
        ({"sampler": Autoregressive}, "sampler is the class Autoregressive; give an object"),
        ({"sampler": Autoregressive(steps=4), "steps": 16}, "steps=16 beside a sampler of steps=4"),
        ({"sampler": Autoregressive(steps=4), "seed": 5}, "seed=5 beside a sampler of seed=0"),
    ],
)
def test_a_value_that_would_be_ignored_or_misread_is_refused(more: dict[str, Any], said: str, tiny: Model) -> None:
    with pytest.raises(InputError, match=said):
        demur.record(tiny, ["tea"], **more)
    if "keep" not in more:
        with pytest.raises(InputError, match=said):
            demur.recording.recorder.stream_anchors(tiny, ["tea"], ["tea"], **more)


def test_equal_values_beside_a_sampler_are_no_fault(model: Any) -> None:
    sampler = Autoregressive(steps=4, seed=3)
    assert chosen_sampler(model, sampler, 4, 3) is chosen_sampler(model, sampler, None, None) is sampler
    own = chosen_sampler(model, None, None, None)
    assert own.describe()["steps"] == 32 and own.describe()["seed"] == 0
    assert chosen_sampler(model, None, 7, 2).describe() == Autoregressive(steps=7, seed=2).describe()


def test_a_single_layer_needs_no_list(model: Any) -> None:
    assert layer_indices(model, "middle") == [2] and layer_indices(model, 3) == [3]
    assert layer_indices(model, ["last", 4, -1, "first"]) == [4, 1]
    for wrong in (True, 2.7, [1.5], [False]):
        with pytest.raises(InputError, match="whole number"):
            layer_indices(model, wrong)  # type: ignore[arg-type]


def test_a_model_may_be_given_by_name_and_a_bare_network_is_refused(tiny: Model) -> None:
    found = demur.record("demur/tiny-ar", ["Tell me how to bake bread."], steps=2)
    assert found.provenance.fingerprint == tiny.fingerprint
    with pytest.raises(InputError, match=r"give a name, .* demur\.models\.from_network\(network, tokenizer\)"):
        as_model(tiny.network)  # type: ignore[arg-type]


def test_a_family_that_does_not_exist_is_refused_with_those_that_do(tiny: Model) -> None:
    with pytest.raises(InputError, match="family is 'masked_diffusion'; expected one of 'autoregressive', 'masked-"):
        from_network(tiny.network, tiny.tokenizer, family="masked_diffusion")  # type: ignore[arg-type]


def test_an_example_in_several_sets_is_asked_about() -> None:
    rows = [Prompt("3", "x"), Prompt("a/b", "y")]
    sets = {"anchors_harmful": [Prompt("0", "z")], "test_harmless": rows, "test_attacks": [replace(rows[0])]}
    assert example_set("a/b", sets, Path("p")) == ("test_harmless", "a/b")
    assert example_set("test_attacks/3", sets, Path("p")) == ("test_attacks", "3")
    with pytest.raises(InputError, match="prompts of test_harmless, test_attacks; name the set too, as in test_harm"):
        example_set("3", sets, Path("p"))
    for unknown in ("0", "none/3"):
        with pytest.raises(InputError, match="is the id of no prompt of p besides the anchors'"):
            example_set(unknown, sets, Path("p"))


@pytest.mark.parametrize(("limit", "cause"), [(5, "--limit 5 is too low"), (None, "give more")])
def test_too_few_prompts_for_anchors_are_named_before_anything_is_generated(limit: int | None, cause: str) -> None:
    sets = {name: [Prompt(str(n), "x") for n in range(5)] for name in ("anchors_harmless", "anchors_harmful")}
    with pytest.raises(InputError, match=f"anchors_harmless: 5 prompts, and anchors need at least 8 a side; {cause}"):
        require_anchor_prompts(sets, limit)
