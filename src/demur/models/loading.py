"""`load`: from a name to a `Model`.

In: a Hub id, a checkpoint folder, a `.gguf` file or a folder that holds one, or the name of a bundled model. Out: a
`Model` in eval mode on its device. Faults of the checkpoint are `InputError`s that name it and the mend.
Diffusion checkpoints are told by the `model_type` of their config and built by a module each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from demur.bundled import bundled_model, is_bundled
from demur.errors import InputError
from demur.models.checkpoint import Built
from demur.models.diffusion_gemma import build_diffusion_gemma
from demur.models.dream import build_dream
from demur.models.fingerprint import files_hash
from demur.models.in_memory import from_network
from demur.models.llada import build_llada
from demur.models.model import Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)
WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.gguf")

BUILDERS: dict[str, Callable[[Mapping[str, Any], Path, str | torch.dtype, torch.device], Built]] = {
    "llada": build_llada,
    "Dream": build_dream,
    "diffusion_gemma": build_diffusion_gemma,
}
"""Who builds the network of a diffusion checkpoint, by the `model_type` in its config.json."""
DIFFUSION_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")


def load(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    gguf_file: str | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """Load a model by Hub id, checkpoint folder, or `.gguf` file (or a folder that holds one).

    name_or_path : "demur/tiny-ar" and "demur/tiny-diffusion" are the bundled models, which need no network.

    revision : Hub revision; ignored for local files.
    device : "auto" takes a GPU where there is one. dtype : "auto" is float32 on a CPU and the checkpoint's
        own elsewhere; or a name such as "bfloat16".
    gguf_file : which file of a folder or Hub repository to read, where it holds several.
    trust_remote_code : run Python code that comes with the checkpoint. Off, because it is somebody's code;
        LLaDA, Dream and DiffusionGemma checkpoints never need it.

    A folder without tokenizer files loads too; then only prompts given as token ids can be used.
    Raises `InputError` for an unknown model, a folder that is no checkpoint, or an architecture that
    transformers does not know.
    """
    source, gguf_file = _resolve(str(name_or_path), gguf_file)
    place = _device(device)
    config = {} if gguf_file else _config(source, revision)
    if config.get("model_type") in BUILDERS:
        return _load_diffusion(str(name_or_path), source, config, revision, _dtype(dtype, place), place)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    network = _network(source, options, _dtype(dtype, place)).to(place).eval()
    tokenizer = _tokenizer(source, options)
    commit = getattr(network.config, "_commit_hash", None)
    content = commit or files_hash(_checkpoint_files(Path(source), gguf_file))
    return from_network(network, tokenizer, name=str(name_or_path), content=str(content), revision=revision)


def _load_diffusion(
    name: str,
    source: str,
    config: Mapping[str, Any],
    revision: str | None,
    dtype: str | torch.dtype,
    device: torch.device,
) -> Model:
    folder = _local_folder(source, revision)
    built = BUILDERS[config["model_type"]](config, folder, dtype, device)
    return from_network(
        built.network,
        _tokenizer(str(folder), _tokenizer_options(config, built), built.tokenizer_class),
        name=name,
        content=files_hash(_checkpoint_files(folder, None)) if Path(source).is_dir() else folder.name,  # its commit
        family=built.family,
        revision=revision,
        mask_token_id=built.mask_token_id,
        logits_shifted=built.logits_shifted,
        eos_token_ids=built.eos_token_ids,
        sampler_defaults=built.sampler_defaults,
    )


def _tokenizer_options(config: Mapping[str, Any], built: Built) -> dict[str, Any]:
    """A plain config for a model type that transformers does not know, of which it would else warn at length."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    known = config["model_type"] in CONFIG_MAPPING or built.tokenizer_class != "AutoTokenizer"
    return {} if known else {"config": PreTrainedConfig()}


def _config(source: str, revision: str | None) -> dict[str, Any]:
    """A checkpoint's config.json as it stands; empty where there is none, which transformers then explains."""
    from transformers import PreTrainedConfig

    try:
        return dict(PreTrainedConfig.get_config_dict(source, revision=revision)[0])
    except (OSError, ValueError):
        return {}


def _local_folder(source: str, revision: str | None) -> Path:
    """The checkpoint's folder: the one given, or the Hub's files of this revision in the local cache."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(DIFFUSION_FILES)))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{source}: the Hugging Face Hub gave no files: {error} Check your connection, and for gated models "
            f"the licence and token."
        ) from error


def _resolve(name: str, gguf_file: str | None) -> tuple[str, str | None]:
    """A folder or Hub id for transformers, and the `.gguf` file within it, if any."""
    path = bundled_model(name) if is_bundled(name) else Path(name).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"{name}: is a file but no .gguf; give its folder, a .gguf file or a Hub id")
        return str(path.parent), path.name
    if path.is_dir():
        return str(path), gguf_file or _gguf_in(path)
    looks_local = name.startswith(("/", ".", "~")) or name.count("/") != 1 or name.endswith(".gguf")
    if looks_local:
        raise InputError(f"{name}: no such folder or .gguf file, and no Hub id of the form owner/name")
    return name, gguf_file


def _gguf_in(folder: Path) -> str | None:
    if (folder / "config.json").is_file():
        return None
    files = sorted(file.name for file in folder.glob("*.gguf"))
    if not files:
        raise InputError(f"{folder}: is no checkpoint folder; expected a config.json with weights, or a .gguf file")
    if len(files) > 1:
        raise InputError(f"{folder}: holds {len(files)} .gguf files ({', '.join(files)}); name one with gguf_file")
    return files[0]


def _network(source: str, options: dict[str, Any], dtype: str | torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    if "gguf_file" in options:
        _need_gguf()
    try:
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    except Exception as error:  # a damaged file can fail anywhere in its reader
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(source).is_dir():
            raise InputError(f"{source}: the checkpoint cannot be loaded: {reason}") from error
        raise InputError(
            f"{source}: no folder of this name here, and the Hugging Face Hub gave no model: {reason} "
            f"Check the name, your connection, and for gated models the licence and token."
        ) from error


def _need_gguf() -> None:
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
    except ImportError as error:
        raise InputError("reading .gguf files needs two more packages: pip install 'demur[gguf]'") from error


def _tokenizer(
    source: str, options: dict[str, Any], class_name: str = "AutoTokenizer"
) -> PreTrainedTokenizerBase | None:
    import transformers

    folder = Path(source)
    if folder.is_dir() and "gguf_file" not in options and not any((folder / n).is_file() for n in TOKENIZER_FILES):
        return None
    try:
        return getattr(transformers, class_name).from_pretrained(source, **options)
    except Exception as error:  # tokenizer backends raise bare Exceptions
        raise InputError(f"{source}: the tokenizer files cannot be loaded: {error}") from error


def _checkpoint_files(folder: Path, gguf_file: str | None) -> list[Path]:
    """The files that decide what a local model computes."""
    if gguf_file is not None:
        return [folder / gguf_file]
    weights = next((found for p in WEIGHT_PATTERNS if (found := sorted(folder.glob(p)))), [])
    settings = [folder / name for name in ("config.json", "generation_config.json", *TOKENIZER_FILES)]
    return [*weights, *(file for file in [*settings, folder / "chat_template.jinja"] if file.is_file())]


def _device(device: str) -> torch.device:
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise InputError(f"device {device!r} is unknown; give auto, cpu, cuda, cuda:1 or mps") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(dtype: str | torch.dtype, device: torch.device) -> str | torch.dtype:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise InputError(f"dtype {dtype!r} is unknown; give auto, float32, bfloat16 or float16")
    return found
