"""Quantised checkpoints load, record and are proven as any other, and their quantisation is in the provenance.

Needs bitsandbytes and compressed-tensors, in an environment of its own: `make test-quantised`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from typer.testing import CliRunner

import demur
from demur import Recording
from demur.bundled import bundled_model
from demur.cli import app

PLAIN = bundled_model("demur/tiny-ar")
PROMPTS = ["tell me about tea", "how do i bake bread", "what is rain like in spring"]
METHODS = {"int8": "bitsandbytes", "nf4": "bitsandbytes", "packed": "compressed-tensors"}


def bits_and_bytes(folder: Path, **options: Any) -> None:
    settings = BitsAndBytesConfig(**options)
    AutoModelForCausalLM.from_pretrained(PLAIN, quantization_config=settings, device_map={"": "cpu"}).save_pretrained(
        folder
    )


def packed(folder: Path) -> None:
    """Weights of 8 bits in compressed-tensors' own form, a scale a channel."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )

    network = AutoModelForCausalLM.from_pretrained(PLAIN, dtype=torch.float32)
    weights = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    begun = {"config_groups": {"all": scheme}, "quantization_status": QuantizationStatus.INITIALIZED}
    apply_quantization_config(network, QuantizationConfig(**begun, ignore=["lm_head"], format="pack-quantized"))
    for module in network.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data = module.weight.abs().amax(1, keepdim=True) / 127
    compressor = ModelCompressor.from_pretrained_model(network, quantization_format="pack-quantized")
    compressor.compress_model(network)
    network.save_pretrained(folder)
    compressor.update_config(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("quantised")
    bits_and_bytes(root / "int8", load_in_8bit=True)
    bits_and_bytes(root / "nf4", load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    packed(root / "packed")
    for folder in root.iterdir():
        for file in PLAIN.iterdir():
            if file.suffix != ".safetensors" and not (folder / file.name).exists():
                shutil.copy(file, folder)
    return {name: root / name for name in METHODS}


@pytest.mark.parametrize("kind", METHODS)
def test_it_records_and_its_quantisation_is_in_the_provenance(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    model = demur.load(folders[kind], device="cpu")
    before = model.fingerprint
    recording = demur.record(model, PROMPTS, steps=8, out=tmp_path / "r")
    assert model.fingerprint == before == demur.load(folders[kind], device="cpu").fingerprint
    assert model.fingerprint != demur.load("demur/tiny-ar", device="cpu").fingerprint
    kept = recording.provenance.execution["quantization"]
    assert kept["quant_method"] == METHODS[kind]
    assert kept == json.loads((tmp_path / "r" / "manifest.json").read_text())["provenance"]["execution"]["quantization"]
    again = demur.record(demur.load(folders[kind], device="cpu"), PROMPTS, steps=8, out=tmp_path / "r")
    np.testing.assert_array_equal(again.phi, recording.phi)


@pytest.mark.parametrize("kind", METHODS)
def test_its_states_are_those_of_transformers_and_near_those_of_the_plain_weights(
    folders: dict[str, Path], kind: str
) -> None:
    model = demur.load(folders[kind], device="cpu")
    recording = demur.record(model, PROMPTS[:1], steps=8)
    prompt = model.encode(PROMPTS[0])
    (arrays,) = recording.shards()
    tokens = [token for token, at in zip(arrays["tokens"][0], arrays["committed_at"][0], strict=True) if at]
    network = AutoModelForCausalLM.from_pretrained(folders[kind], dtype=model.dtype)
    with torch.inference_mode():
        states = network(torch.tensor([[*prompt, *tokens]]), output_hidden_states=True).hidden_states[-1]
    expected = states[0, len(prompt) :].float().mean(0).numpy()
    close = 1e-4 if model.dtype == torch.float32 else 0.05
    np.testing.assert_allclose(recording.phi[0, -1, 0], expected, atol=close * np.abs(expected).max())
    plain = demur.record("demur/tiny-ar", PROMPTS[:1], steps=8)
    first, other = (one.phi[0, 0, 0] for one in (recording, plain))
    assert 0.5 < first @ other / np.linalg.norm(first) / np.linalg.norm(other) < 1 - 1e-7


@pytest.mark.parametrize("kind", METHODS)
def test_check_proves_it(folders: dict[str, Path], kind: str) -> None:
    ran = CliRunner().invoke(app, ["check", str(folders[kind]), "--quick", "--device", "cpu"])
    assert ran.exit_code == 0, ran.output


def test_another_quantisation_never_goes_on_with_a_recording(folders: dict[str, Path], tmp_path: Path) -> None:
    demur.record(demur.load(folders["nf4"], device="cpu"), PROMPTS, steps=4, out=tmp_path / "r")
    with pytest.raises(demur.InputError, match="holds another recording"):
        demur.record(demur.load(folders["int8"], device="cpu"), PROMPTS, steps=4, out=tmp_path / "r")
    assert len(Recording(tmp_path / "r")) == len(PROMPTS)
