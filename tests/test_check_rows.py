"""Each row of `demur check` by itself: what makes it fail, what makes it say that it was not run."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import broken
import toy
from demur.checks import Check, Row, plan, resume, run, show
from demur.checks.batches import early_row, window_row
from demur.checks.bench import Bench
from demur.checks.canvases import canvas_row
from demur.checks.clean import clean_pass, logit_gap
from demur.checks.cost import memory_row, speed_row
from demur.checks.gaps import gap_of
from demur.checks.official import official_row
from demur.checks.plan import Plan, Speed, plan_of
from demur.checks.resume import differences, resume_row
from demur.checks.roundtrip import prompt_row
from demur.checks.texts import TEXT, rows_of, words_of
from demur.checks.traces import Tally, Tolerance, Trace
from demur.checks.truth import expected, generate_row, states_row, unfollowed
from demur.checks.weights import checkpoint_folder, files_row, weights_row
from demur.errors import InputError
from demur.models import Model, load

SMALL = Plan(
    steps=6, compared=(0, 2), words=(2, 5, 9), seconds=1.0, allowed=60.0, speed=Speed(0.001, 0.0001), window=None
)


def bench_of(model: Model, **changes: Any) -> Bench:
    return Bench(model, Plan(**{**vars(SMALL), **changes}))


# --- weights


def test_counts_of_weights_are_those_of_the_network(toy_model: Model) -> None:
    row = weights_row(toy_model)
    assert row.outcome == "ok"
    assert row.numbers["parameters"] == sum(one.numel() for one in toy_model.network.parameters())


def test_a_weight_that_is_no_number_fails(toy_model: Model) -> None:
    with torch.no_grad():
        toy_model.network.lm_head.weight[0, 0] = torch.nan
    row = weights_row(toy_model)
    assert row.outcome == "failed" and "lm_head.weight" in row.note


def test_a_tensor_that_is_not_the_files_fails(toy_model: Model) -> None:
    assert files_row(toy_model, 60).outcome == "ok"
    with torch.no_grad():
        toy_model.network.lm_head.weight[0, 0] += 1
    row = files_row(toy_model, 60)
    assert (row.outcome, row.numbers["unlike"]) == ("failed", 1)
    assert "unlike: lm_head.weight" in row.note


def test_files_are_not_compared_where_there_are_none_or_no_time(toy_model: Model) -> None:
    assert files_row(broken.llama(), 60).outcome == "not run"
    assert files_row(toy_model, 0).outcome == "not run"


def test_a_tensor_of_another_name_is_counted_and_not_compared(toy_folder: Path, toy_model: Model) -> None:
    inner = toy_model.network.model
    toy_model.network = torch.nn.Module()
    toy_model.network.other = inner
    row = files_row(toy_model, 60)
    assert row.outcome == "not run"
    assert row.numbers["elsewhere"] == row.numbers["total"] > 0


@pytest.mark.parametrize("name", ["nobody/nothing-of-this-name", "in-memory", "a/b.gguf"])
def test_a_model_without_files_here_has_no_folder(name: str) -> None:
    model = broken.llama()
    model.name = name
    assert checkpoint_folder(model) is None


# --- prompts


@pytest.mark.parametrize(
    ("encode", "fault"),
    [
        (lambda whole, text: whole("tea"), "both texts give the same token ids"),
        (lambda whole, text: whole(text.split()[0]), "text 1 does not come out whole"),
        (lambda whole, text: whole(text)[:1] + whole(text), "the beginning-of-sequence token stands there 2 times"),
    ],
)
def test_prompts_that_are_spoilt_on_the_way_fail(
    toy_model: Model, monkeypatch: pytest.MonkeyPatch, encode: Callable[..., list[int]], fault: str
) -> None:
    whole = toy_model.encode
    monkeypatch.setattr(type(toy_model), "encode", lambda model, text: encode(whole, text))
    row = prompt_row(toy_model)
    assert row.outcome == "failed" and fault in row.note


def test_a_template_that_drops_the_text_fails_in_its_row(toy_model: Model) -> None:
    toy_model.tokenizer.chat_template = "{{ bos_token }} hello"
    row = run._run("prompt", lambda: prompt_row(toy_model), out_of_time=False)
    assert row.outcome == "failed" and "leaves out or changes a part of the user message" in row.note


def test_a_template_that_opens_a_thought_is_said(toy_model: Model) -> None:
    assert "BOS once" in prompt_row(toy_model).value
    toy_model.tokenizer.add_tokens(["<think>"])
    toy_model.tokenizer.chat_template = toy.TEMPLATE + "{% if add_generation_prompt %} <think> {% endif %}"
    assert "a thought is opened" in prompt_row(toy_model).value
    toy_model.tokenizer.chat_template = "{# no think #}" + toy.TEMPLATE
    assert "knows thoughts" in prompt_row(toy_model).value


def test_words_are_the_vocabularys_where_the_tokenizer_knows_no_english(toy_model: Model) -> None:
    words = words_of(toy_model)
    assert set(words) <= set(toy_model.tokenizer.get_vocab())
    assert set(words) != set(TEXT.split())


# --- batches


def test_without_a_token_that_only_some_rows_say_none_can_end_early(toy_model: Model) -> None:
    toy_model.network.lm_head.weight = torch.nn.Parameter(torch.zeros_like(toy_model.network.lm_head.weight))
    row = early_row(bench_of(toy_model))
    assert row.outcome == "not run" and "the same tokens" in row.note


def test_rows_that_end_early_are_compared_with_the_same_rows_cut() -> None:
    bench = bench_of(broken.llama())
    row = early_row(bench)
    assert row.outcome == "ok" and "of 2 end early" in row.measured
    assert bench.model.eos_token_ids == []


def test_early_ends_are_none_of_a_canvas() -> None:
    assert early_row(bench_of(broken.diffusion())).outcome == "not run"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"window": None}, "no layer has one"),
        ({"window": 4}, "every batch above holds longer prompts only"),
        ({"window": 510}, "the context of 512 tokens is hardly longer"),
        ({"window": 100, "allowed": 0.001}, "give "),
    ],
)
def test_the_row_beyond_the_window_says_why_it_was_not_run(changes: dict[str, Any], why: str) -> None:
    row = window_row(bench_of(broken.llama(), **changes))
    assert row.outcome == "not run" and why in row.note


# --- truth


def test_other_tokens_than_those_of_generate_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    model = broken.llama()
    bench = bench_of(model)
    assert generate_row(bench).outcome == "ok"
    whole = type(model.network).generate

    def other(self: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        found = whole(self, ids, **options)
        found[:, -1] = (found[:, -1] + 1) % 300
        return found

    monkeypatch.setattr(type(model.network), "generate", other)
    row = generate_row(bench)
    assert row.outcome == "failed" and "row 1 from step 6 on" in row.note
    monkeypatch.setattr(type(model.network), "generate", lambda self, ids, **_: whole(self, ids, **_)[:, :-1])
    assert generate_row(bench).outcome == "failed", "an answer that is shorter is another one"


def test_a_penalty_of_the_generation_config_is_named_and_not_applied_to_generate() -> None:
    model = broken.llama()
    model.network.generation_config.repetition_penalty = 1.3
    assert unfollowed(model) == ["repetition_penalty 1.3"]
    row = generate_row(bench_of(model))
    assert row.outcome == "ok" and "repetition_penalty 1.3" in row.note
    assert model.network.generation_config.repetition_penalty == 1.3


def test_phi_is_expected_to_be_the_mean_so_far_and_then_constant() -> None:
    states = np.arange(3, dtype=np.float32).reshape(3, 1, 1)
    np.testing.assert_allclose(expected(states, 5).ravel(), [0, 0.5, 1, 1, 1])


def test_a_network_without_hidden_states_of_its_blocks_is_refused() -> None:
    model = broken.llama()
    model.network.register_forward_hook(lambda network, args, output: setattr(output, "hidden_states", None))
    with pytest.raises(InputError, match="gives no hidden states for 4 blocks"):
        clean_pass(model, [5, 6], [4])


def test_a_network_with_its_own_norm_is_read_there() -> None:
    model = broken.diffusion()
    truth = clean_pass(model, [5, 6, 7], [1, 4])
    model.final_norm = "model.norm"
    found = clean_pass(model, [5, 6, 7], [1, 4])
    torch.testing.assert_close(found.states, truth.states)


def test_blocks_that_cannot_be_told_apart_leave_the_last_layer() -> None:
    model = broken.llama()
    model.decoder.more = torch.nn.ModuleList(torch.nn.Identity() for _ in range(4))
    assert bench_of(model).layers == (4,)


# --- comparing


def trace(tokens: list[int], phi: float = 0.0, committed: int | None = None) -> Trace:
    count = len(tokens)
    seen = np.tril(np.ones((count, count), dtype=bool)) & (np.arange(count) < (committed or count))
    return Trace(np.tile(tokens, (count, 1)), seen, np.full((count, 1, 4), phi, dtype=np.float32))


def test_states_are_compared_up_to_the_first_other_token_only() -> None:
    tally = Tally(Tolerance.of(torch.float32), lambda *_: 0.0)
    one, other = trace([5, 6, 7]), trace([5, 6, 8])
    other.phi[2] += 9
    tally.add("row 1", [1], one, other)
    row = tally.row("x", "y")
    assert (row.outcome, row.numbers["ties"], row.numbers["distance"]) == ("ok", 1, 0.0)
    other.phi[1] += 9
    tally.add("row 1", [1], one, other)
    assert tally.row("x", "y").outcome == "failed"


def test_a_difference_that_is_no_tie_fails_and_long_lists_are_cut() -> None:
    tally = Tally(Tolerance.of(torch.float32), lambda *_: 1.0)
    for place in range(5):
        tally.add(f"row {place}", [1], trace([5, 6]), trace([5, 7]))
    row = tally.row("x", "y", "a note")
    assert row.outcome == "failed"
    assert "row 0 from step 2 on" in row.note and "and 2 more; a note" in row.note
    tally.add("row 9", [1], trace([5, 6]), trace([5, 6, 7]))
    assert tally.row("x", "y").numbers["apart"] == 6


def test_half_precision_is_compared_by_norms_and_what_is_not_finite_never_passes() -> None:
    half, whole = Tolerance.of(torch.bfloat16), Tolerance.of(torch.float32)
    one = np.full((2, 8), 10.0, dtype=np.float32)
    assert half.distance(one * 1.01, one) == pytest.approx(0.01, rel=1e-3)
    assert whole.distance(one + 0.5, one) == pytest.approx(0.05)
    assert half.distance(one * np.nan, one) == whole.distance(one, one[:1]) == np.inf
    assert whole.distance(one[:0], one[:0]) == 0.0
    assert "relative" in str(half) and half.states > Tolerance.of(torch.float16).states > whole.states


def test_a_gap_is_measured_from_the_best_logit() -> None:
    logits = torch.tensor([4.0, 3.9, -1.0])
    assert logit_gap(logits, (0, 1)) == pytest.approx(0.025)
    assert logit_gap(logits, (0,)) == 0.0


def test_a_token_that_the_logits_do_not_favour_is_no_tie() -> None:
    bench = bench_of(broken.llama())
    prompt = [5, 6, 7]
    one = bench.traces([prompt], 1)[0]
    best = one.answer
    other = trace([*best[:2], (best[2] + 1) % 300, *best[3:]])
    assert gap_of(bench)(prompt, one, other, 2) > bench.tolerance.tie
    assert gap_of(bench)(prompt, one, one, 2) == 0.0
    assert gap_of(bench)(prompt, one, trace(best, committed=2), 2) == np.inf


def test_the_gap_of_a_canvas_is_of_tokens_and_of_confidences() -> None:
    bench = bench_of(broken.diffusion())
    prompt = [5, 6, 8]
    one = bench.traces([prompt], 1)[0]
    gap = gap_of(bench)
    at = int(np.flatnonzero((one.committed[1:-1] & ~one.committed[:-2]).any(axis=1))[0]) + 1
    assert gap(prompt, one, one, at) == 0.0
    place = int(np.flatnonzero(one.committed[at] & ~one.committed[at - 1])[0])
    tokens, committed = one.tokens.copy(), one.committed.copy()
    tokens[at, place] = (tokens[at, place] + 1) % 300
    assert gap(prompt, one, one._replace(tokens=tokens), at) > bench.tolerance.tie
    committed[at, place] = False
    committed[at, int(np.flatnonzero(~one.committed[at])[0])] = True
    assert gap(prompt, one, one._replace(committed=committed), at) > 0
    bench.sampler.remasking = "random"
    assert gap(prompt, one, one, at) == np.inf


# --- diffusion


def test_a_canvas_whose_states_are_others_fails() -> None:
    assert canvas_row(bench_of(broken.diffusion())).outcome == "ok"
    row = canvas_row(bench_of(broken.telling_other_states(broken.diffusion())))
    assert row.outcome == "failed" and row.numbers["distance"] > 1e-3


def test_a_canvas_on_which_nothing_is_committed_proves_nothing() -> None:
    model = broken.diffusion()
    masks = torch.zeros(300).index_fill(0, torch.tensor([broken.MASK]), 1e4)
    model.network.lm_head.register_forward_hook(lambda head, args, logits: logits + masks)
    assert canvas_row(bench_of(model, words=(1,), compared=(0,))).note.startswith("the model predicts masks only")


def test_shifted_logits_and_blocks_are_followed() -> None:
    model = broken.diffusion()
    model.logits_shifted = True
    model.sampler_defaults = {"block_length": 4, "response_length": 8}
    bench = bench_of(model)
    assert bench.sampler.arguments["block_length"] == bench.sampler.response_length == 12
    assert canvas_row(bench).outcome == "ok"


# --- official code


OFFICIAL = """
import torch
from transformers import AutoConfig, PreTrainedConfig
from types import SimpleNamespace

class Official:
    @classmethod
    def from_pretrained(cls, folder, **options):
        from demur.models import load
        official = cls()
        official.network = load(folder, device="cpu").network
        return official
    @classmethod
    def register_for_auto_class(cls, *args, **options):
        pass
    def to(self, device):
        return self
    def eval(self):
        return self
    def __call__(self, input_ids):
        logits = self.network(input_ids=input_ids).logits
        return SimpleNamespace(logits=logits + CHANGE)

class Config(PreTrainedConfig):
    model_type = "official"
"""


def with_code(folder: Path, to: Path, code: str) -> Model:
    """A copy of a checkpoint that brings code of its own."""
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    model = load(to, device="cpu")
    config = json.loads((to / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "official.Config", "AutoModelForCausalLM": "official.Official"}
    (to / "config.json").write_text(json.dumps(config))
    (to / "official.py").write_text(code)
    return model


@pytest.mark.parametrize(("change", "outcome"), [("0", "ok"), ("0.1", "failed"), ("undefined", "not run")])
def test_the_checkpoints_own_code_is_the_judge_where_it_runs(
    toy_folder: Path, tmp_path: Path, change: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    (tmp_path / "model").mkdir()
    model = with_code(toy_folder, tmp_path / "model", OFFICIAL.replace("CHANGE", change))
    bench = bench_of(model)
    row = official_row(bench, allowed=True)
    assert row.outcome == outcome, row
    assert official_row(bench, allowed=False).note == "give --trust-remote-code to run the checkpoint's code"


def test_a_checkpoint_without_code_is_not_judged_by_it(toy_model: Model) -> None:
    assert official_row(bench_of(toy_model), allowed=True).note == "the checkpoint brings no code of its own"


# --- kill and resume


def test_a_model_in_memory_is_broken_off_in_this_process() -> None:
    row = resume_row(bench_of(broken.llama()), None, None)
    assert row.outcome == "ok" and "broken off in this process" in row.measured


def test_a_process_that_cannot_begin_fails_with_its_last_words(toy_model: Model) -> None:
    row = resume_row(bench_of(toy_model), {"name_or_path": "demur/none"}, 0.1)
    assert row.outcome == "failed" and "instead of being killed: " in row.note


def test_a_recording_that_does_not_die_is_no_proof(toy_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SURVIVES", 9)
    assert "ran to its end instead" in resume_row(bench_of(toy_model), None, None).note


def test_recordings_that_differ_are_told_apart() -> None:
    bench = bench_of(broken.llama())
    one, same = bench.record([[5, 6], [7, 8]], 2), bench.record([[5, 6], [7, 8]], 2)
    other = bench.record([[5, 6], [9, 8]], 2)
    short = bench.record([[5, 6], [7, 8]], 2, sampler=bench.model.default_sampler(steps=3))
    assert differences(one, same) == []
    assert {"phi", "tokens"} <= set(differences(one, other))
    assert {"phi", "tokens", "steps of the tokens", "table"} == set(differences(one, short))


# --- cost, time and the whole


def test_costs_are_stated_with_both_sides() -> None:
    for model in (broken.llama(), broken.diffusion()):
        row = speed_row(bench_of(model))
        assert row.outcome == "stated"
        assert row.numbers["ratio"] == pytest.approx(row.numbers["record_seconds"] / row.numbers["other_seconds"])
    assert memory_row(bench_of(broken.llama())).numbers["peak"] > 1e7


def test_a_slower_model_is_checked_on_less(monkeypatch: pytest.MonkeyPatch) -> None:
    model = broken.llama()
    sizes = []
    for seconds in (1e-6, 0.05, 10.0):
        monkeypatch.setattr(plan, "speed_of", lambda model, seconds=seconds: Speed(seconds, seconds / 10))
        made = plan_of(model, 1.0, quick=False)
        sizes.append((made.steps, len(made.compared)))
    assert sizes[0] == (16, 12) and sizes[2] == (3, 3)
    assert sizes[0] > sizes[1] > sizes[2]
    assert len(plan_of(model, 1.0, quick=True).words) == 4


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"sliding_window": 8}, 8),
        ({"sliding_window": 8, "layer_types": ["full_attention"] * 4}, None),
        ({"attention_chunk_size": 16, "layer_types": ["chunked_attention"] * 4}, 16),
        ({}, None),
    ],
)
def test_a_window_counts_where_a_layer_has_it(config: dict[str, Any], window: int | None) -> None:
    model = broken.llama()
    for name, value in config.items():
        setattr(model.network.config, name, value)
    assert plan.window_of(model) == window


def test_rows_past_the_time_are_not_run_and_faults_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> Row:
        raise InputError("no cache")

    def breaks() -> Row:
        raise RuntimeError("shapes\nand more")

    assert run._run("x", breaks, out_of_time=True).note == "the time is up; give more minutes"
    assert run._run("x", refuses, out_of_time=False).note == "demur refuses: no cache"
    row = run._run("x", breaks, out_of_time=False)
    assert (row.outcome, row.note) == ("failed", "RuntimeError: shapes")


def found(*rows: Row) -> Check:
    return Check("m", "f", "autoregressive", "cpu", "float32", {"demur": "0"}, False, 1.0, rows)


def test_a_result_is_a_table_a_sentence_and_plain_values() -> None:
    one = found(Row("a", "b", "c", "d", "ok", "", {"x": float("inf")}), Row("e", "f", outcome="failed", note="g"))
    assert not one.ok and one.table["outcome"].tolist() == ["ok", "failed"]
    assert one.sentence == "m (autoregressive, float32 on cpu): 1 ok, 1 failed, in 1 s"
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["rows"][0]["numbers"] == {"x": None}
    page = io.StringIO()
    show(one, page)
    assert "failed" in page.getvalue() and max(map(len, page.getvalue().splitlines())) <= 118


def test_states_rows_name_every_layer() -> None:
    row = states_row(bench_of(broken.llama()))
    assert row.value.count("layer ") == 3 and row.outcome == "ok"


def test_rows_are_alike_at_their_beginning_or_not(toy_model: Model) -> None:
    for model in (toy_model, broken.llama()):
        shared = rows_of(model, [3, 7], shared=True)
        apart = rows_of(model, [3, 7], shared=False)
        assert shared[0][:4] == shared[1][:4]
        assert apart[0][:4] != apart[1][:4]
