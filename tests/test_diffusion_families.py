"""Diffusion models against the numbers of their official code, and against themselves in a batch."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import demur
import references
from demur.errors import InputError
from demur.models import Model, load, make_block_causal
from demur.samplers import BlockDiffusion, ClosingBlockDiffusion, MaskedDiffusion, ReorderingDiffusion, TokenEditing
from demur.samplers.step import Sampler
from references import FIXTURES, numbers, require_forward, require_official, require_same_alone, run

FAMILIES: dict[str, dict[str, Any]] = {
    "lladamoe/lladamoe_a": {"mask_token_id": 250},
    "rnd1/rnd1_a": {},
    "a2d/a2d_qwen3": {},
    "llada2/llada20_mini": {"mode": "2.0", "mask_token_id": 250},
    "llada21/llada21_mini": {"mode": "2.1", "mask_token_id": 250},
    "fastdllm2/fastdllm2_gqa": {"mask_token_id": 250},
    "wedlm/wedlm_qwen2": {},
}
MODELS: dict[str, Model] = {}


def model_of(name: str) -> Model:
    if name not in MODELS:
        MODELS[name] = load(FIXTURES / name, device="cpu", **FAMILIES[name])
    return MODELS[name]


def sampler_of(name: str, case: dict[str, Any], **options: Any) -> Sampler:
    """The sampler that runs a case of a family, with the official arguments under their names here."""
    family = name.partition("/")[0]
    block = case.get("block_length", case.get("block_size"))
    if family == "lladamoe":
        given = {"steps": case["steps"], "response_length": case["gen_length"], "cfg_scale": case["cfg_scale"]}
        return MaskedDiffusion(block_length=block, **given, **options)
    if family == "rnd1":
        given = {"steps": case["num_diffusion_steps"], "response_length": case["max_new_tokens"] - 1}
        rules: dict[str, Any] = {"remasking": "entropy", "schedule": "rnd1", "end_token": case["pad_at_end"]}
        return MaskedDiffusion(**given, **rules, **options)
    if family == "a2d":
        given = {"steps": case["steps_asked"], "response_length": case["max_new_tokens"], "block_length": block}
        if case["sampler"] == "mdlm":
            return MaskedDiffusion(schedule="rounded", cfg_scale=case.get("cfg_scale", 0.0), **given, **options)
        return BlockDiffusion(schedule="rounded", blocks_from="response", stop_ids=[case["eos_id"]], **given, **options)
    if family == "wedlm":
        given = {"response_length": case["max_new_tokens"], "threshold": case["confidence_threshold"]}
        return ReorderingDiffusion(block_length=block, temperature=case["temperature"], **given, **options)
    if family == "fastdllm2":
        stops = [one for one in [case["stop_token"]] if one >= 0]
        given = {"response_length": case["max_new_tokens"], "small_block_length": case["small_block_size"]}
        return ClosingBlockDiffusion(
            block_length=block, threshold=case["threshold"], stop_ids=stops, **given, **options
        )
    stops = [one for one in [case["eos_id"]] if one >= 0]
    common = {"response_length": case["gen_length"], "block_length": block, "threshold": case["threshold"]}
    common |= {"eos_early_stop": case["eos_early_stop"], "stop_ids": stops}
    if family == "llada2":
        given = {"denoising_steps": case["denoising_steps"], "minimal_topk": 1}
        return BlockDiffusion(remasking="low_confidence_dynamic", **given, **common, **options)
    edits = {name: case[name] for name in ("editing_threshold", "max_post_steps", "num_to_transfer")}
    return TokenEditing(**edits, **common, **options)


CASES = [(name, case) for name in FAMILIES for case in references.cases(name)]


@pytest.mark.parametrize("pooling", ["paper", "released"])
@pytest.mark.parametrize(("name", "case"), CASES)
def test_steps_and_phi_are_those_of_the_official_sampler(name: str, case: str, pooling: str) -> None:
    sampler = sampler_of(name, references.cases(name)[case], pooling=pooling)
    whole = "prompt_ids" in references.cases(name)[case] and name.partition("/")[0] not in ("a2d", "rnd1")
    require_official(name, case, model_of(name), sampler, prompt_in_x=whole)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_states_are_those_of_the_official_network(name: str) -> None:
    model = load(FIXTURES / name, device="cpu", **FAMILIES[name])
    file = FIXTURES / name / "forward.json"
    said = json.loads(file.read_text())["in1"] if file.is_file() else {}
    if block := said.get("block_length", said.get("block_size")):
        make_block_causal(model.network, block)
    positions = numbers(name, "forward").get("in1.position_ids")
    require_forward(name, model, positions)


SMALL: dict[str, dict[str, Any]] = {
    "lladamoe/lladamoe_a": {"steps": 4, "response_length": 8, "block_length": 4},
    "rnd1/rnd1_a": {"steps": 5, "response_length": 8},
    "a2d/a2d_qwen3": {"steps": 6, "response_length": 10, "block_length": 4},
    "llada2/llada20_mini": {"steps": 12, "response_length": 8, "block_length": 4, "threshold": 0.4},
    "llada21/llada21_mini": {"steps": 24, "response_length": 8, "block_length": 4, "threshold": 0.5},
    "fastdllm2/fastdllm2_gqa": {"steps": 10, "response_length": 8, "block_length": 4, "small_block_length": 2},
    "wedlm/wedlm_qwen2": {"steps": 8, "response_length": 10, "block_length": 4, "threshold": 0.3},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_mixed_lengths_are_what_each_is_alone(name: str) -> None:
    model = model_of(name)
    require_same_alone(model, model.default_sampler(**SMALL[name]))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_check_is_green(name: str) -> None:
    found = demur.check(model_of(name), quick=True)
    assert not [row for row in found.rows if row.outcome == "failed"], found
    assert {row.name: row.outcome for row in found.rows}["states"] == "ok", found


@pytest.mark.parametrize("name", ["llada21/llada21_mini", "fastdllm2/fastdllm2_gqa", "wedlm/wedlm_qwen2"])
def test_a_recording_that_was_broken_off_goes_on(name: str, tmp_path: Path) -> None:
    model, prompts = model_of(name), [{"id": str(n), "token_ids": list(range(1, n))} for n in (4, 6, 9)]
    sampler = model.default_sampler(**SMALL[name])
    whole = demur.record(model, prompts, sampler, batch_size=3)
    demur.record(model, prompts, sampler, batch_size=1, out=tmp_path / "run")
    again = demur.record(model, prompts, sampler, batch_size=1, out=tmp_path / "run")
    assert abs(whole.phi - again.phi).max() < 1e-5
    for row in range(3):
        assert whole.steps_tokens(row).predicted.tolist() == again.steps_tokens(row).predicted.tolist()


def test_an_edit_of_a_committed_token_shows_at_its_own_step_in_a_recording() -> None:
    name = "llada21/llada21_mini"
    model, sampler = model_of(name), model_of(name).default_sampler(**SMALL[name], editing_threshold=0.2)
    prompt = [9, 8, 7, 6, 5]
    steps = run(model, sampler, [prompt])
    edits = [
        (index, at)
        for index in range(1, len(steps))
        for at in range(sampler.response_length)
        if steps[index - 1].is_committed[0, at] and steps[index].committed[0, at] != steps[index - 1].committed[0, at]
    ]
    assert edits
    kept = demur.record(model, [{"id": "a", "token_ids": prompt}], sampler).steps_tokens(0)
    for index, at in edits:
        assert kept.predicted[index, at] == int(steps[index].committed[0, at])
        assert kept.predicted[index - 1, at] == int(steps[index - 1].committed[0, at])


def test_edits_are_recovery_that_hrr_frr_and_the_viewer_see(tmp_path: Path) -> None:
    """A harmful token that is committed and then edited away counts as taken back, and is marked in the viewer."""
    from demur.dynamics import full_recovery_rate, harmful_remasking_rate
    from demur.report.viewer.packing import track_of

    name = "llada21/llada21_mini"
    sampler = model_of(name).default_sampler(**SMALL[name], editing_threshold=0.2)
    kept = demur.record(model_of(name), [{"id": "a", "token_ids": [9, 8, 7, 6, 5]}], sampler).steps_tokens(0)
    track = track_of(kept)
    assert track.edits > 0
    committed = np.where(kept.is_committed, kept.predicted, -1)
    gone = [
        (at, int(committed[step, at]))
        for step in range(len(committed) - 1)
        for at in range(committed.shape[1])
        if committed[step, at] >= 0 and committed[-1, at] not in (-1, committed[step, at])
    ]
    at, token = gone[0]
    harmful = (committed[:, at] == token)[None]
    assert harmful_remasking_rate(harmful).value == full_recovery_rate(harmful).value == 1.0
    plain = model_of("llada2/llada20_mini")
    still = demur.record(
        plain, [{"id": "a", "token_ids": [9, 8]}], plain.default_sampler(**SMALL["llada2/llada20_mini"])
    )
    assert track_of(still.steps_tokens(0)).edits == 0


def test_llada2_asks_which_version_it_is() -> None:
    with pytest.raises(InputError, match=r"say which it is: mode='2\.0' or mode='2\.1'"):
        load(FIXTURES / "llada2/llada20_mini", device="cpu")
    with pytest.raises(InputError, match=r"mode is '3'; expected mode='2\.0' or mode='2\.1'"):
        load(FIXTURES / "llada2/llada20_mini", device="cpu", mode="3")
    with pytest.raises(InputError, match="this model has one only"):
        load(FIXTURES / "wedlm/wedlm_qwen2", device="cpu", mode="2.0")


def test_a2d_is_decoded_either_way() -> None:
    assert isinstance(model_of("a2d/a2d_qwen3").default_sampler(), MaskedDiffusion)
    blocks = load(FIXTURES / "a2d/a2d_qwen3", device="cpu", mode="bd3lm")
    assert isinstance(blocks.default_sampler(), BlockDiffusion)


@pytest.mark.parametrize("layout", ["qwen2", "llama"])
def test_a2d_over_qwen2_and_llama_loads_their_layout(layout: str, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    network = Qwen2ForCausalLM(Qwen2Config(**sizes)) if layout == "qwen2" else LlamaForCausalLM(LlamaConfig(**sizes))
    network.save_pretrained(tmp_path)
    config = {"model_type": f"a2d-{layout}", "mask_token_id": 63, **sizes, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load(tmp_path, device="cpu")
    ids = torch.tensor([[1, 2, 3, 63, 63]])
    with torch.no_grad():
        mine = model.network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        visible = torch.zeros(1, 1, 5, 5)
        theirs = network(input_ids=ids, attention_mask=visible).logits
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def changed(name: str, tmp_path: Path, **changes: Any) -> Path:
    folder = Path(shutil.copytree(FIXTURES / name, tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_an_expert_that_is_missing_or_twice_too_wide_is_named(tmp_path: Path) -> None:
    folder = changed("lladamoe/lladamoe_a", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.experts.3.up_proj.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"missing model\.layers\.1\.mlp\.experts\.gate_up_proj"):
        load(folder, device="cpu", mask_token_id=250)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("llada2/llada20_mini", "score_function", "softmax"),
        ("llada2/llada20_mini", "use_qk_norm", False),
        ("lladamoe/lladamoe_a", "router_num_group", 4),
        ("lladamoe/lladamoe_a", "shared_expert_intermediate_size", 32),
        ("rnd1/rnd1_a", "is_causal", True),
        ("fastdllm2/fastdllm2_gqa", "rope_scaling", {"type": "linear"}),
    ],
)
def test_a_setting_that_is_not_covered_is_named(name: str, key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{key} is "):
        load(changed(name, tmp_path, **{key: value}), device="cpu", **FAMILIES[name])


def test_experts_are_stacked_without_holding_them_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a stack is filled, no more than one expert's tensor is held beside it."""
    from demur.models import checkpoint

    whole: list[int] = []
    plain = torch.empty

    def counted(*shape: Any, **options: Any) -> torch.Tensor:
        made = plain(*shape, **options)
        if made.ndim == 3 and not made.is_meta:
            whole.append(made.numel())
        return made

    monkeypatch.setattr(checkpoint.torch, "empty", counted)
    model = load(FIXTURES / "lladamoe/lladamoe_a", device="cpu", mask_token_id=250)
    stacks = [one for name, one in model.network.named_parameters() if ".experts." in name]
    assert sorted(whole) == sorted(one.numel() for one in stacks)


@pytest.mark.parametrize("name", [*FAMILIES, "sdar/sdar_gqa"])
def test_the_order_from_left_to_right_commits_one_token_a_step_where_a_family_allows_it(name: str) -> None:
    model = load(FIXTURES / name, device="cpu") if name not in FAMILIES else model_of(name)
    left = model.default_sampler(**SMALL.get(name, {"steps": 12, "response_length": 8})).from_left()
    if name.startswith(("llada21", "fastdllm2")):
        assert left is None
        return
    assert left is not None and left.from_left() is None
    model.eos_token_ids = []
    worked = [step for step in run(model, left, [[1, 2, 3, 4]]) if step.idle is None or not step.idle[0]]
    for index, step in enumerate(worked):
        assert step.is_committed[0].tolist() == [place <= index for place in range(left.response_length)]
