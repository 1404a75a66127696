"""Training a block diffusion model: the loss reads what the sampler reads, and the checkpoint is SDAR's layout."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

import demur

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import blocks
from checkpoint import save_sdar
from train import toy_tokenizer

PROMPTS = (5, 11, 16)


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return demur.load("demur/tiny-diffusion").tokenizer


@pytest.fixture(scope="module")
def network() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 1280, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    config = Qwen3Config(**sizes, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True)
    return blocks.make_block_causal(Qwen3ForCausalLM(config), blocks.LENGTH).eval()


def conversations() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(PROMPTS)
    prompts = torch.randint(10, 1280, (len(PROMPTS), longest))
    mask = torch.tensor([[0] * (longest - n) + [1] * n for n in PROMPTS])
    return prompts * mask, mask, torch.randint(10, 1280, (len(PROMPTS), 32))


def test_a_noisy_block_sees_what_it_sees_while_it_is_generated(network: Qwen3ForCausalLM, tokenizer: object) -> None:
    torch.manual_seed(1)
    prompts, mask, replies = conversations()
    with torch.no_grad():
        logits, clean, hidden, _ = blocks.noisy_logits(network, prompts, mask, replies, tokenizer)
        compared = 0
        for row, prompt in enumerate(PROMPTS):
            text = torch.cat([prompts[row, mask[row] == 1], clean[row, -39:]])
            copied = logits.shape[1]
            masked = torch.zeros(len(text), dtype=torch.bool)
            masked[-copied:] = hidden[row, -len(text) :]
            for first in range(prompt // 8 * 8, len(text), 8):
                read = text[: first + 8].clone()
                read[first:][masked[first : first + 8]] = tokenizer.mask_token_id
                wanted = network(read[None]).logits[0, first:]
                found = logits[row, first - len(text) :][: len(wanted)]
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
                compared += len(wanted)
    assert compared > 120


def test_each_block_masks_k_reply_tokens_and_weighs_them_by_1_over_k() -> None:
    torch.manual_seed(2)
    of = torch.tensor([[0] * 3 + [1] * 8 + [2] * 8] * 400)
    answers = torch.tensor([[False] * 5 + [True] * 14] * 400)
    hidden, weights = blocks.hidden_in_blocks(of, answers)
    assert not hidden[~answers].any()
    for block, own in ((1, 6), (2, 8)):
        counts = (hidden & (of == block)).sum(dim=1)
        assert set(counts.tolist()) == set(range(1, own + 1))
        torch.testing.assert_close(weights[of == block].view(400, 8), (1 / counts)[:, None].expand(400, 8))


def test_the_checkpoint_opens_as_sdar(network: Qwen3ForCausalLM, tmp_path: Path) -> None:
    save_sdar(network, toy_tokenizer(), tmp_path, 32, blocks.LENGTH)
    model = demur.load(tmp_path)
    assert model.samplers[0] == "BlockDiffusion"
    assert model.default_sampler().block_length == 8
    with torch.no_grad():
        ids = torch.randint(10, 1280, (1, 20))
        torch.testing.assert_close(model.network(ids).logits.float(), network(ids).logits, atol=0.02, rtol=0.05)


def test_it_begins_at_the_weights_of_the_masked_diffusion_model() -> None:
    prompts, mask, replies = conversations()
    begun = demur.load("demur/tiny-diffusion").network.float()
    grown = blocks.from_diffusion(begun, prompts, mask, replies)
    layer = grown.model.layers[0].self_attn
    torch.testing.assert_close(layer.q_proj.weight, begun.model.layers[0].self_attn.q_proj.weight)
    assert layer.q_norm.weight.unique().numel() == 1
    assert layer.q_norm.weight[0] != 1
