"""Tiny checkpoints of every diffusion family, each with a tokenizer, as a user's folder would be."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import toy

DREAM = "dream/dream_gqa"
FIXTURES = Path(__file__).parent / "fixtures"
WHOLE: dict[str, Any] = {"steps": 8, "response_length": 8}
BLOCKS: dict[str, Any] = {"steps": 12, "response_length": 8, "block_length": 4}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6}


@dataclass(frozen=True)
class Checkpoint:
    """How a family's tiny checkpoint is made, loaded and run.

    fixture : its folder among the fixtures, or the kind of a random network. config : keys that are changed.
    options : of `demur.load`. sampler : arguments of its default sampler, small.
    """

    fixture: str
    sampler: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        if "/" in self.fixture:
            shutil.copytree(FIXTURES / self.fixture, folder, ignore=shutil.ignore_patterns("generate*", "forward*"))
        else:
            _random(self.fixture, folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | self.config))
        if self.fixture == DREAM:
            _dream_tokenizer(folder)
        else:
            toy.tokenizer().save_pretrained(folder)
        return folder


def _random(kind: str, folder: Path) -> None:
    """A random network under A2D's model types."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 256, **SIZES, **HEADS, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    made = Qwen2ForCausalLM(Qwen2Config(**sizes)) if kind == "qwen2" else LlamaForCausalLM(LlamaConfig(**sizes))
    with torch.no_grad():
        for one in made.parameters():
            if one.dim() > 1:
                one.normal_(0, 0.2)
    made.save_pretrained(folder)
    config = {"model_type": f"a2d-{kind}", "vocab_size": 256, **SIZES, **HEADS, "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(config | {"mask_token_id": 250, "tie_word_embeddings": False}))


def _dream_tokenizer(folder: Path) -> None:
    """A tokenizer of single bytes in the files of Dream's, whose own class is remote code."""
    vocabulary = {one: place for place, one in enumerate(sorted(ByteLevel.alphabet()))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = {500: "<|mask|>", 501: "<|endoftext|>", 502: "<|dlm_pad|>", 503: "<|im_start|>", 504: "<|im_end|>"}
    plain = {"special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    settings = {
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "tokenizer_class": "DreamTokenizer",
        "added_tokens_decoder": {str(place): {"content": name, **plain} for place, name in names.items()},
        "mask_token": "<|mask|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "chat_template": "{% for m in messages %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


LONGER = {"max_position_embeddings": 1024}
CODERS = {
    "architectures": ["DreamModel"],
    "auto_map": {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"},
    "transformers_version": "4.46.2",
    **LONGER,
}
CHECKPOINTS = {
    "llada": Checkpoint("llada/llada_mha", WHOLE),
    "dream": Checkpoint(DREAM, WHOLE, config=LONGER),
    # A pad of its own fills the response of DiffuCoder behind its end; Dream-Coder's is its end of sequence.
    "diffucoder": Checkpoint(DREAM, WHOLE, config=CODERS | {"pad_token_id": 502}),
    "dream-coder": Checkpoint(DREAM, WHOLE, config=CODERS),
    "lladamoe": Checkpoint("lladamoe/lladamoe_a", WHOLE, {"mask_token_id": 250}),
    "rnd1": Checkpoint("rnd1/rnd1_a", WHOLE),
    "a2d-mdlm-qwen3": Checkpoint("a2d/a2d_qwen3", WHOLE),
    "a2d-mdlm-qwen2": Checkpoint("qwen2", WHOLE),
    "a2d-mdlm-llama": Checkpoint("llama", WHOLE),
    "a2d-bd3lm-qwen3": Checkpoint("a2d/a2d_qwen3", BLOCKS, {"mode": "bd3lm"}),
    "a2d-bd3lm-qwen2": Checkpoint("qwen2", BLOCKS, {"mode": "bd3lm"}),
    "a2d-bd3lm-llama": Checkpoint("llama", BLOCKS, {"mode": "bd3lm"}),
    "sdar": Checkpoint("sdar/sdar_gqa", BLOCKS),
    "llada2.0": Checkpoint("llada2/llada20_mini", BLOCKS, {"mode": "2.0", "mask_token_id": 250}),
    "llada2.1": Checkpoint("llada21/llada21_mini", BLOCKS | {"steps": 24}, {"mode": "2.1", "mask_token_id": 250}),
    "fastdllm2": Checkpoint("fastdllm2/fastdllm2_gqa", BLOCKS | {"small_block_length": 2}, {"mask_token_id": 250}),
    "wedlm": Checkpoint("wedlm/wedlm_qwen2", BLOCKS),
}
