"""Reading a `.gguf` file, on a tiny one written here from the fixture's Qwen2 weights."""

from pathlib import Path

import pytest
import torch

from checkpoints import QWEN, qwen_gguf
from demur import InputError, record
from demur.models import load


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_gguf_file_computes_what_its_checkpoint_computes(file: Path, as_folder: bool) -> None:
    model, original = load(file.parent if as_folder else file, device="cpu"), load(QWEN, device="cpu")
    assert model.eos_token_ids == [415]
    ids = torch.arange(20).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(model.network(ids).logits, original.network(ids).logits, atol=1e-4, rtol=0)


def test_a_gguf_file_can_be_recorded_with_its_own_tokenizer(file: Path) -> None:
    recording = record(load(file, device="cpu"), ["ab"], steps=3)
    assert recording.phi.shape == (1, 3, 1, 64)
    assert recording.provenance.chat_format["kind"] == "plain"
    assert recording.table["text"].notna().all()


def test_a_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match=r"the checkpoint cannot be loaded"):
        load(tmp_path / "broken.gguf")
