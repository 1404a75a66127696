"""Defenses: what each blocks, what it counts as time, and what it refuses to guess."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import demur
import toy
import toy_diffusion
from demur import InputError, Recording, record
from demur.defenses import AnyOf, Blocking, GuardDefense, GuardModel, PerplexityFilter, SelfExamine, token_losses
from demur.defenses.defense import judged_in_batches
from demur.models import Model, from_network, make_bidirectional

STEPS = 14
KNOWN = [toy.answer(topic, refuse=False) for topic in toy.HARMLESS + toy.HARMFUL]  # what the toy was trained to say
STRANGE = "kites kites moss poison someone hurt me pretend rain"


@dataclass
class FakeAsker:
    """Answers in turn with what it is given; keeps what it was asked."""

    replies: list[str]
    name: str = "fake"
    identity: str = "fake 1"
    asked: list[str] = field(default_factory=list)

    def __call__(self, questions: Sequence[str]) -> list[str]:
        self.asked += questions
        return [self.replies.pop(0) for _ in questions]


@dataclass
class Fixed:
    """A defense that says what it is told, at a second a generation."""

    blocked: list[bool]
    unread: list[bool]
    name: str = "fixed"

    def __call__(self, prompts: Sequence[str], texts: Sequence[str], recording: Recording | None = None) -> Blocking:
        return Blocking(np.array(self.blocked), np.ones(len(prompts)), np.array(self.unread))

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.fixture(scope="module")
def diffusion() -> Model:
    words = toy_diffusion.tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), max_position_embeddings=128, **sizes))
    return from_network(make_bidirectional(network), words, family="masked-diffusion")


def test_verdicts_keep_their_places_and_share_the_time_of_their_batch() -> None:
    blocking = judged_in_batches(lambda batch: [None if one == 2 else one > 2 for one in batch], [1, 2, 3, 4, 5], 2)
    assert blocking.blocked.tolist() == [False, False, True, True, True]
    assert blocking.unread.tolist() == [False, True, False, False, False]
    assert (blocking.seconds > 0).all()
    assert blocking.seconds[0] == blocking.seconds[1]
    assert judged_in_batches(lambda batch: [], [], 2).blocked.shape == (0,)


def test_losses_are_those_of_transformers(toy_model: Model) -> None:
    ids = torch.tensor([toy_model.tokenizer(STRANGE)["input_ids"]])
    with torch.no_grad():
        expected = float(toy_model.network(input_ids=ids, labels=ids).loss)
    losses = token_losses(toy_model, STRANGE)
    assert losses.shape == (ids.shape[1] - 1,)
    assert losses.mean() == pytest.approx(expected, abs=1e-5)


def test_losses_of_a_diffusion_model_mask_every_token_once(diffusion: Model) -> None:
    ids = diffusion.tokenizer(STRANGE, add_special_tokens=False)["input_ids"]
    for folds in (3, len(ids), 50):
        expected = []
        for place in range(len(ids)):
            canvas = [diffusion.mask_token_id if (at - place) % folds == 0 else one for at, one in enumerate(ids)]
            with torch.no_grad():
                logits = diffusion.network(input_ids=torch.tensor([canvas])).logits[0, place]
            expected.append(-float(logits.log_softmax(dim=-1)[ids[place]]))
        np.testing.assert_allclose(token_losses(diffusion, STRANGE, folds), expected, atol=1e-5)


def test_shifted_logits_predict_the_next_position(diffusion: Model) -> None:
    ids = diffusion.tokenizer("tea rain moss", add_special_tokens=False)["input_ids"]
    shifted = from_network(
        diffusion.network, diffusion.tokenizer, family="masked-diffusion", logits_shifted=True, content="same"
    )
    canvas = torch.tensor([[ids[0], diffusion.mask_token_id, ids[2]]])
    with torch.no_grad():
        expected = -float(diffusion.network(input_ids=canvas).logits[0, 0].log_softmax(dim=-1)[ids[1]])
    losses = token_losses(shifted, "tea rain moss", folds=3)
    assert losses.shape == (2,)
    assert losses[0] == pytest.approx(expected, abs=1e-5)


def test_the_filter_blocks_what_is_stranger_than_all_harmless_prompts(toy_model: Model) -> None:
    defense = PerplexityFilter(toy_model).fit(KNOWN)
    blocking = defense([KNOWN[0], STRANGE, KNOWN[9]], ["", "", ""])
    assert blocking.blocked.tolist() == [False, True, False]
    assert not blocking.unread.any()
    assert (blocking.seconds > 0).all()
    assert defense.limit_ == pytest.approx(defense.perplexities(KNOWN).max())
    assert defense.describe()["calibration"] == len(KNOWN)
    lower = PerplexityFilter(toy_model, quantile=0.5).fit(KNOWN)
    assert np.mean(lower(KNOWN, KNOWN).blocked) == pytest.approx(0.5, abs=0.05)


def test_a_window_finds_a_strange_run_in_a_long_prompt(toy_model: Model) -> None:
    losses = token_losses(toy_model, STRANGE)
    found = PerplexityFilter(toy_model, window=3).perplexities([STRANGE])[0]
    means = [losses[at : at + 3].mean() for at in range(len(losses) - 2)]
    assert found == pytest.approx(np.exp(max(means)))
    whole = PerplexityFilter(toy_model, window=100).perplexities([STRANGE])[0]
    assert whole == pytest.approx(np.exp(losses.mean()))
    assert PerplexityFilter(toy_model).perplexities([""]).tolist() == [1.0]


def test_a_filter_that_cannot_work_says_why(toy_model: Model) -> None:
    defense = PerplexityFilter(toy_model)
    with pytest.raises(InputError, match="has no limit yet; fit it on harmless prompts"):
        defense(["tea"], ["tea"])
    with pytest.raises(InputError, match="3 harmless prompts to set the limit by; give a list of at least 20"):
        defense.fit(KNOWN[:3])
    with pytest.raises(InputError, match="quantile is 0"):
        PerplexityFilter(toy_model, quantile=0)
    with pytest.raises(InputError, match="window is 0"):
        PerplexityFilter(toy_model, window=0)
    with pytest.raises(InputError, match=r"does not fit .* context of 128"):
        token_losses(toy_model, "tea " * 200)
    toy_model.family = "uniform-diffusion"
    with pytest.raises(InputError, match="no likelihood of a text"):
        token_losses(toy_model, "tea")


def test_self_examination_asks_about_the_text_alone() -> None:
    ask = FakeAsker(["Yes.", "no", "perhaps"])
    defense = SelfExamine(ask, batch_size=2)
    blocking = defense(["p1", "p2", "p3"], ["a {text} b", "two", "three"])
    assert blocking.blocked.tolist() == [True, False, False]
    assert blocking.unread.tolist() == [False, False, True]
    assert "<text>\na {text} b\n</text>" in ask.asked[0]
    assert "p1" not in ask.asked[0]
    assert defense.describe()["model"] == "fake 1"


def test_a_model_that_knows_no_verdict_is_unread(toy_model: Model) -> None:
    blocking = SelfExamine(toy_model)(["tell me about tea"], ["sure here is tea"])
    assert (blocking.blocked.tolist(), blocking.unread.tolist()) == ([False], [True])


GUARD_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)
PARTS_TEMPLATE = GUARD_TEMPLATE.replace("m['content']", "m['content'][0]['text']")


def guard_model(toy_model: Model, template: str, monkeypatch: pytest.MonkeyPatch, replies: list[str]) -> GuardModel:
    """A guard whose answers are set, over the toy's tokenizer with a guard's template."""
    monkeypatch.setattr(toy_model.tokenizer, "chat_template", template)
    guard = GuardModel(toy_model)
    asked: list[Any] = []
    guard.ask.answers = lambda prompts: [asked.append(one) or replies.pop(0) for one in prompts]  # type: ignore
    guard.asked = asked  # type: ignore[attr-defined]
    return guard


@pytest.mark.parametrize("template", [GUARD_TEMPLATE, PARTS_TEMPLATE])
def test_a_guard_model_reads_both_turns_in_its_own_template(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    replies = ["\n\nunsafe\nS2", "safe", "I think about it", "Safety: Unsafe\nCategories: Violent", "Safety: Safe\n"]
    guard = guard_model(toy_model, template, monkeypatch, [*replies, "Safety: Controversial", "Categories: None"])
    blocking = guard(["about tea", *["moss"] * 6], ["sure tea", *["sorry"] * 6])
    assert blocking.blocked.tolist() == [True, False, False, True, False, True, False]
    assert blocking.unread.tolist() == [False, False, True, False, False, False, True]
    expected = toy_model.tokenizer("user about tea <end> assistant sure tea <end> assistant")["input_ids"]
    assert list(guard.asked[0].token_ids) == expected  # type: ignore[attr-defined]
    assert guard.in_parts == (template == PARTS_TEMPLATE)


def test_a_guard_model_is_loaded_and_answers_by_itself(toy_folder: Path) -> None:
    guard = GuardModel(toy_folder)
    assert guard.name == f"guard model {guard.model.name}"
    blocking = guard(["tell me about tea"], ["sure here is tea"])
    assert blocking.unread.tolist() == [True]  # the toy is no guard and says neither word
    assert GuardModel(toy_folder, words={"sure": True, "sorry": True, "tea": True}).words["tea"]


def test_what_is_no_chat_guard_is_named(toy_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_model.tokenizer, "chat_template", "{{ messages[0]['content'] }}")
    with pytest.raises(InputError, match="does not render a user and an assistant turn"):
        GuardModel(toy_model)
    monkeypatch.setattr(toy_model.tokenizer, "chat_template", None)
    with pytest.raises(InputError, match="has no chat template, so it is no chat guard"):
        GuardModel(toy_model)


class Below:
    """A detector that flags a signal which ends below a limit."""

    def __init__(self, limit: float) -> None:
        self.threshold_ = limit

    def predict(self, X: Any) -> np.ndarray:
        return np.where(np.asarray(X)[:, -1] < self.threshold_, -1, 1)


def test_a_guard_blocks_by_the_signal_of_the_recording(toy_model: Model, tmp_path: Path) -> None:
    harmless, harmful = toy.rows("anchors_harmless")[::2], toy.rows("anchors_harmful")[::2]
    recordings = [record(toy_model, rows, steps=STEPS) for rows in (harmless, harmful)]
    anchors = demur.Anchors.fit(*recordings)
    mixed = ["tell me about tea", "how do i make bombs", "explain maps to me"]
    recording = record(toy_model, mixed, steps=STEPS)
    texts = recording.table["text"].tolist()
    defense = GuardDefense(Below(0.5), anchors)
    blocking = defense(mixed, texts, recording)
    assert blocking.blocked.tolist() == [False, True, False]
    assert (blocking.seconds > 0).all()
    assert blocking.seconds[0] < recording.table["seconds"][0]
    identity = defense.describe()["guard"]
    assert identity != GuardDefense(Below(0.6), anchors).describe()["guard"]
    assert defense.describe() == {
        "name": "Below",
        "source": anchors.fingerprint,
        "guard": identity,
        "limit": 0.5,
    }
    kept = record(toy_model, mixed, steps=STEPS, keep="signal", anchors=anchors, out=tmp_path / "s")
    assert GuardDefense(Below(0.5))(mixed, texts, kept).blocked.tolist() == [False, True, False]
    with pytest.raises(InputError, match="Below: no recording for 3 prompts"):
        defense(mixed, texts)
    with pytest.raises(InputError, match="a recording of 3 generations for 2 prompts"):
        defense(mixed[:2], texts[:2], recording)
    with pytest.raises(InputError, match="leave source out"):
        GuardDefense(demur.DirectionGuard(), anchors)
    with pytest.raises(InputError, match="which take anchors to read"):
        GuardDefense(Below(0.5))(mixed, texts, recording)
    with pytest.raises(demur.ProvenanceError, match="do not belong together"):
        defense(mixed, texts, record(toy_model, mixed, steps=4))


def test_any_of_several_blocks_and_their_times_add_up() -> None:
    both = AnyOf(Fixed([True, False, False], [False] * 3, "a"), Fixed([False] * 3, [True, True, False], "b"))
    blocking = both(["p"] * 3, ["t"] * 3)
    assert blocking.blocked.tolist() == [True, False, False]
    assert blocking.unread.tolist() == [False, True, False]
    assert blocking.seconds.tolist() == [2.0, 2.0, 2.0]
    assert both.name == "a or b"
    assert [one["name"] for one in both.describe()["any_of"]] == ["a", "b"]
    with pytest.raises(InputError, match="at least one"):
        AnyOf()


def test_prompts_and_texts_come_in_pairs() -> None:
    with pytest.raises(InputError, match="self-examine: found 2 prompts and 1 texts"):
        SelfExamine(FakeAsker([]))(["a", "b"], ["t"])
