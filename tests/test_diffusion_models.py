"""Diffusion checkpoints in transformers' own blocks, against the official models' numbers and a written-out formula."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from demur.errors import InputError
from demur.models import load, make_bidirectional

FIXTURES = Path(__file__).parent / "fixtures"
OFFICIAL = {"llada": FIXTURES / "llada" / "llada_mha", "dream": FIXTURES / "dream" / "dream_gqa"}
WIDTH, HEADS, LAYERS, INNER, VOCABULARY = 32, 4, 2, 48, 96
LLADA_CONFIG = {
    "model_type": "llada",
    "d_model": WIDTH,
    "n_heads": HEADS,
    "n_kv_heads": HEADS,
    "n_layers": LAYERS,
    "mlp_hidden_size": INNER,
    "vocab_size": VOCABULARY - 6,
    "embedding_size": VOCABULARY,
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "rope": True,
    "rope_theta": 1000.0,
    "rms_norm_eps": 1e-3,
    "include_bias": False,
    "weight_tying": False,
    "max_sequence_length": 64,
    "mask_token_id": 95,
    "eos_token_id": 94,
    "pad_token_id": 94,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "grouped-query": {"n_kv_heads": 2},
    "tied": {"weight_tying": True},
    "biased": {"include_bias": True, "bias_for_layer_norm": False},
    "tied, biased, one key head, ratio": {
        "weight_tying": True,
        "include_bias": True,
        "bias_for_layer_norm": False,
        "n_kv_heads": 1,
        "mlp_hidden_size": None,
        "mlp_ratio": 2,
    },
}


def llada_weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random weights in the official layout."""
    generator = torch.Generator().manual_seed(0)
    inner = config["mlp_hidden_size"] or config["mlp_ratio"] * WIDTH
    grouped = WIDTH // HEADS * config["n_kv_heads"]
    shapes = {"q_proj": (WIDTH, WIDTH), "k_proj": (grouped, WIDTH), "v_proj": (grouped, WIDTH)}
    shapes |= {"attn_out": (WIDTH, WIDTH), "ff_proj": (inner, WIDTH), "up_proj": (inner, WIDTH)}
    shapes |= {"ff_out": (WIDTH, inner)}
    linear = {f"blocks.{i}.{name}": shape for i in range(LAYERS) for name, shape in shapes.items()}
    if not config["weight_tying"]:
        linear["ff_out"] = (VOCABULARY, WIDTH)
    norms = [f"blocks.{i}.{name}" for i in range(LAYERS) for name in ("attn_norm", "ff_norm")] + ["ln_f"]
    found = {f"{name}.weight": torch.randn(shape, generator=generator) * 0.3 for name, shape in linear.items()}
    found |= {f"{name}.weight": 1 + 0.3 * torch.randn(WIDTH, generator=generator) for name in norms}
    found["wte.weight"] = torch.randn(VOCABULARY, WIDTH, generator=generator)
    if config["include_bias"]:
        found |= {f"{name}.bias": torch.randn(shape[0], generator=generator) for name, shape in linear.items()}
    return {f"model.transformer.{name}": tensor for name, tensor in found.items()}


def llada_logits(config: dict[str, Any], weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """The model's formula in float64, written out for one prompt ``[positions]``."""
    weights = {name.removeprefix("model.transformer."): tensor.double() for name, tensor in weights.items()}

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        scale = (x.pow(2).mean(dim=-1, keepdim=True) + config["rms_norm_eps"]).rsqrt()
        return x * scale * weights[f"{name}.weight"]

    size = WIDTH // HEADS
    angles = torch.arange(len(ids)).double()[:, None] * config["rope_theta"] ** (-torch.arange(0, size, 2) / size)

    def heads(name: str, x: torch.Tensor, *, turned: bool) -> torch.Tensor:
        one = linear(name, x).unflatten(-1, (-1, size)).transpose(0, 1)  # [heads, positions, size]
        if turned:
            pairs = torch.complex(one[..., : size // 2], one[..., size // 2 :])
            pairs = pairs * torch.polar(torch.ones_like(angles), angles)
            one = torch.cat([pairs.real, pairs.imag], dim=-1)
        return one.repeat_interleave(HEADS // len(one), dim=0)

    x = weights["wte.weight"][ids]
    for i in range(LAYERS):
        block = f"blocks.{i}"
        y = norm(f"{block}.attn_norm", x)
        q, k, v = (heads(f"{block}.{name}_proj", y, turned=name != "v") for name in "qkv")
        seen = (q @ k.transpose(1, 2) / size**0.5).softmax(dim=-1) @ v
        x = x + linear(f"{block}.attn_out", seen.transpose(0, 1).flatten(1))
        y = norm(f"{block}.ff_norm", x)
        gate = torch.nn.functional.silu(linear(f"{block}.ff_proj", y))
        x = x + linear(f"{block}.ff_out", gate * linear(f"{block}.up_proj", y))
    x = norm("ln_f", x)
    return x @ weights["wte.weight"].T if config["weight_tying"] else linear("ff_out", x)


def write_llada(
    folder: Path, changes: dict[str, Any], shards: int = 1
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = LLADA_CONFIG | changes
    weights = llada_weights(config)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return config, weights
    files = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(weights)}
    for file in set(files.values()):
        save_file({name: weights[name] for name in weights if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return config, weights


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_logits_and_states_are_those_of_the_official_model(name: str, number: int) -> None:
    model = load(OFFICIAL[name], device="cpu")
    expected = load_file(OFFICIAL[name] / "forward.safetensors")
    ids = expected[f"in{number}.input_ids"].long().unsqueeze(0)
    prenorm: list[torch.Tensor] = []
    handle = model.decoder.norm.register_forward_pre_hook(lambda module, args: prenorm.append(args[0][0]))
    with torch.no_grad(), model.states([0, 1, 2, 3]) as states:
        logits = model.network(input_ids=ids).logits[0]
    handle.remove()
    torch.testing.assert_close(logits, expected[f"in{number}.logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(states[3][0], expected[f"in{number}.final_hidden"], atol=5e-5, rtol=0)
    torch.testing.assert_close(prenorm[0], expected[f"in{number}.prenorm_hidden"], atol=5e-5, rtol=0)
    inputs = torch.stack([state[0] for state in states[:3]])
    torch.testing.assert_close(inputs, expected[f"in{number}.layer_inputs"], atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", OFFICIAL)
def test_left_padding_changes_no_logits(name: str) -> None:
    model = load(OFFICIAL[name], device="cpu")
    ids = load_file(OFFICIAL[name] / "forward.safetensors")["in1.input_ids"].long()
    padded = torch.cat([torch.full((9,), 3), ids]).unsqueeze(0)
    mask = (torch.arange(padded.shape[1]) >= 9).long().unsqueeze(0)
    with torch.no_grad():
        alone = model.network(input_ids=ids.unsqueeze(0)).logits
        found = model.network(input_ids=padded, attention_mask=mask).logits[:, 9:]
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_full_attention_does_not_depend_on_the_attention_implementation(attention: str) -> None:
    model = load(OFFICIAL["llada"], device="cpu")
    expected = load_file(OFFICIAL["llada"] / "forward.safetensors")
    model.network.set_attn_implementation(attention)
    with torch.no_grad():
        logits = model.network(input_ids=expected["in1.input_ids"].long().unsqueeze(0)).logits[0]
    torch.testing.assert_close(logits, expected["in1.logits"], atol=1e-4, rtol=0)


def test_making_a_network_bidirectional_twice_changes_nothing() -> None:
    model = load(OFFICIAL["llada"], device="cpu")
    hooks = len(model.decoder._forward_pre_hooks)
    assert make_bidirectional(model.network) is model.network
    assert len(model.decoder._forward_pre_hooks) == hooks == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_llada_variants_follow_the_formula(variant: str, tmp_path: Path) -> None:
    config, weights = write_llada(tmp_path, VARIANTS[variant])
    ids = torch.randint(0, VOCABULARY, (13,), generator=torch.Generator().manual_seed(1))
    model = load(tmp_path, device="cpu")
    with torch.no_grad():
        logits = model.network(input_ids=ids.unsqueeze(0)).logits[0]
    torch.testing.assert_close(logits.double(), llada_logits(config, weights, ids), atol=2e-4, rtol=1e-4)


def test_a_sharded_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    write_llada(tmp_path / "one", {})
    write_llada(tmp_path / "three", {}, shards=3)
    one, three = (load(tmp_path / name, device="cpu").network.state_dict() for name in ("one", "three"))
    assert one.keys() == three.keys()
    assert all(torch.equal(one[name], three[name]) for name in one)


def test_tied_weights_are_one_tensor_and_dtype_is_as_asked(tmp_path: Path) -> None:
    write_llada(tmp_path, {"weight_tying": True})
    network = load(tmp_path, device="cpu", dtype="bfloat16").network
    assert network.lm_head.weight is network.model.embed_tokens.weight
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}


def test_special_tokens_samplers_and_context_come_from_the_config(tmp_path: Path) -> None:
    write_llada(tmp_path, {})
    llada, dream = load(tmp_path, device="cpu"), load(OFFICIAL["dream"], device="cpu")
    assert (llada.mask_token_id, llada.eos_token_ids, llada.context_length) == (95, [94], 64)
    assert (llada.family, llada.logits_shifted, llada.pad_token_id) == ("masked-diffusion", False, 94)
    assert (dream.mask_token_id, dream.eos_token_ids, dream.logits_shifted) == (500, [501], True)
    assert llada.default_sampler().describe() == {
        "name": "MaskedDiffusion",
        "steps": 32,
        "response_length": 128,
        "block_length": 128,
        "remasking": "low_confidence",
        "schedule": "static",
        "threshold": 0.9,
        "temperature": 0.0,
        "cfg_scale": 0.0,
        "order": "confidence",
        "suppress_eos": False,
        "seed": 0,
        "pooling": "paper",
    }
    shifted = llada.fingerprint
    llada.logits_shifted = True
    assert llada.fingerprint != shifted


def test_official_ids_stand_in_where_a_config_names_none(tmp_path: Path) -> None:
    config = {name: value for name, value in LLADA_CONFIG.items() if not name.endswith("token_id")}
    size = 126349  # just enough for the end-of-turn token
    config |= {"d_model": 4, "n_heads": 1, "n_kv_heads": 1, "n_layers": 1, "mlp_hidden_size": 4, "weight_tying": True}
    config |= {"vocab_size": size, "embedding_size": size}
    shapes = {"q_proj": 2, "k_proj": 2, "v_proj": 2, "attn_out": 2, "ff_proj": 2, "up_proj": 2, "ff_out": 2}
    shapes |= {"attn_norm": 1, "ff_norm": 1}
    weights = {f"model.transformer.blocks.0.{name}.weight": torch.ones([4] * rank) for name, rank in shapes.items()}
    weights |= {"model.transformer.wte.weight": torch.ones(size, 4), "model.transformer.ln_f.weight": torch.ones(4)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "model.safetensors")
    model = load(tmp_path, device="cpu")
    assert (model.mask_token_id, model.eos_token_ids) == (126336, [126081, 126348])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_type", "sequential"),
        ("block_group_size", 4),
        ("activation_type", "swiglu"),
        ("layer_norm_type", "low_precision"),
        ("layer_norm_with_affine", False),
        ("attention_layer_norm", True),
        ("rope", False),
        ("alibi", True),
        ("multi_query_attention", True),
        ("clip_qkv", 8.0),
        ("input_emb_norm", True),
        ("scale_logits", True),
        ("include_qkv_bias", True),
        ("bias_for_layer_norm", True),
    ],
)
def test_a_config_key_that_is_not_covered_is_named_with_its_value(key: str, value: Any, tmp_path: Path) -> None:
    write_llada(tmp_path, {key: value})
    with pytest.raises(InputError, match=f"{key} is {value!r}; supported is "):
        load(tmp_path, device="cpu")


def test_a_mixture_of_experts_llada_is_refused_by_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llada", "hidden_size": 8, "num_experts": 4}))
    with pytest.raises(InputError, match="d_model"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize("change", [{"rope_scaling": {"factor": 2}}, {"use_sliding_window": True}])
def test_a_dream_config_that_is_not_covered_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    config = json.loads((OFFICIAL["dream"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=next(iter(change))):
        load(tmp_path, device="cpu")


def test_a_config_that_makes_no_network_is_an_error_about_the_config(tmp_path: Path) -> None:
    write_llada(tmp_path, {"pad_token_id": VOCABULARY + 1})
    with pytest.raises(InputError, match=r"config\.json: no network"):
        load(tmp_path, device="cpu")


def test_missing_and_unexpected_tensors_are_both_named(tmp_path: Path) -> None:
    _, weights = write_llada(tmp_path, {})
    weights["model.transformer.surprise.weight"] = weights.pop("model.transformer.ln_f.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"missing model\.norm\.weight; unexpected model\.transformer\.surprise"):
        load(tmp_path, device="cpu")


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    write_llada(tmp_path, {})
    (tmp_path / "config.json").write_text(json.dumps(LLADA_CONFIG | {"mlp_hidden_size": INNER + 1}))
    with pytest.raises(InputError, match=r"has shape \[.*48.*\], but the config.json asks for \[.*49.*\]"):
        load(tmp_path, device="cpu")


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_llada(tmp_path, {}, shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="model-00002-of-00002"):
        load(tmp_path, device="cpu")


def test_a_truncated_file_is_called_damaged(tmp_path: Path) -> None:
    write_llada(tmp_path, {})
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize("model_type", ["llada", "Dream", "diffusion_gemma"])
def test_pickled_weights_are_refused_with_what_was_found(model_type: str, tmp_path: Path) -> None:
    dream = json.loads((OFFICIAL["dream"] / "config.json").read_text())
    config = {"llada": LLADA_CONFIG, "Dream": dream}.get(model_type, {}) | {"model_type": model_type}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*safetensors"):
        load(tmp_path, device="cpu")


def test_a_dream_tokenizer_loads_without_its_remote_code(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(OFFICIAL["dream"] / name, tmp_path)
    letters = ["Ġ", *"abcdefghij"]
    (tmp_path / "vocab.json").write_text(json.dumps({one: i for i, one in enumerate([*letters, "ab"])}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    special = {"content": "<|mask|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
                "tokenizer_class": "DreamTokenizer",
                "added_tokens_decoder": {"12": special},
                "mask_token": "<|mask|>",
            }
        )
    )
    tokenizer = load(tmp_path, device="cpu").tokenizer
    assert tokenizer is not None
    assert tokenizer("abc<|mask|>", add_special_tokens=False)["input_ids"] == [11, 3, 12]


def test_a_masked_diffusion_network_without_a_mask_token_is_refused() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from demur.models import from_network

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))
    with pytest.raises(InputError, match="mask_token_id"):
        from_network(network, family="masked-diffusion")
    assert from_network(network, family="masked-diffusion", mask_token_id=15).mask_token_id == 15
