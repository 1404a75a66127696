"""`load`: from a name to a `Model`.

In: a Hub id, a checkpoint folder, a `.gguf` file or a folder that holds one, an adapter, or the name of a bundled
model. Out: a `Model` in eval mode on its device, every weight of which came from the files. Faults of the checkpoint
are `InputError`s that name it and the mend. Diffusion checkpoints are told by the `model_type` of their config and
built by a module each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from demur.bundled import bundled_model, is_bundled
from demur.errors import InputError
from demur.models.adapter import base_of, is_adapter, merged, without_adapter
from demur.models.chat import SYSTEM_PROMPT, ChatFormat
from demur.models.checkpoint import Built, in_mode
from demur.models.end_tokens import end_tokens, in_vocabulary, token_ids, vocabulary_size
from demur.models.execution import (
    Execution,
    attend,
    compile_blocks,
    quantisation_in,
    quantisation_of,
    require_in_memory,
    settle,
    try_split,
)
from demur.models.families import require_autoregressive
from demur.models.fingerprint import files_hash, network_hash, network_stamp
from demur.models.formats.a2d import build_a2d
from demur.models.formats.causal import build_causal, reading
from demur.models.formats.diffusion_gemma import build_diffusion_gemma
from demur.models.formats.dream import build_dream
from demur.models.formats.fast_dllm import build_fast_dllm
from demur.models.formats.gguf import build_gguf
from demur.models.formats.llada import build_llada
from demur.models.formats.llada2 import build_llada2
from demur.models.formats.llada_moe import build_llada_moe
from demur.models.formats.rnd1 import build_rnd1
from demur.models.formats.sdar import build_sdar
from demur.models.formats.wedlm import build_wedlm
from demur.models.hub import hub_folder
from demur.models.in_memory import from_network, is_network
from demur.models.json_file import read_json, read_json_if_there
from demur.models.model import Model
from demur.models.tokenizer_files import TOKENIZER_FILES, has_tokenizer, read_tokenizer
from demur.models.traits import DEFAULT, FAMILIES, Family
from demur.models.weight_files import has_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILDERS: dict[str, Callable[[Mapping[str, Any], Path, str | torch.dtype, torch.device], Built]] = {
    "llada": build_llada,
    "Dream": build_dream,
    "diffusion_gemma": build_diffusion_gemma,
    "sdar": build_sdar,
    "llada2_moe": build_llada2,
    "lladamoe": build_llada_moe,
    "Fast_dLLM_Qwen": build_fast_dllm,
    "a2d-qwen3": build_a2d,
    "a2d-qwen2": build_a2d,
    "a2d-llama": build_a2d,
    "wedlm": build_wedlm,
    "rnd1": build_rnd1,
}
"""Who builds the network of a diffusion checkpoint, by the `model_type` in its config.json."""


class Source(NamedTuple):
    """Where a checkpoint lies: a folder, the `.gguf` file in it if that is the model, and whether it is the Hub's."""

    folder: Path
    gguf_file: str | None = None
    from_hub: bool = False


def load(
    name_or_path: str | Path | torch.nn.Module,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    gguf_file: str | None = None,
    trust_remote_code: bool = False,
    family: Family | None = None,
    mode: str | None = None,
    mask_token_id: int | None = None,
    attention: str | None = None,
    compile: bool = False,
    device_map: str | Mapping[str, Any] | None = None,
    cache: str | None = None,
    tp_plan: str | None = None,
    system: str | None = SYSTEM_PROMPT,
    template: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
) -> Model:
    """Load a model by Hub id, checkpoint folder, or `.gguf` file (or a folder that holds one).

    A transformers network in memory is taken as it is, with its `tokenizer`: as `from_network`, which has more options.
    Only family, system, template and template_arguments go with one; what says where and how to load is refused.

    name_or_path : "demur/tiny-ar" and "demur/tiny-diffusion" are the bundled models, which need no network. The
        folder or Hub id of a PEFT adapter loads its base model and merges the adapter into it.
    revision : Hub revision; ignored for local files.
    device : "auto" takes a GPU where there is one. dtype : "auto" is float32 on a CPU and the checkpoint's
        own elsewhere; or a name such as "bfloat16".
    gguf_file : which file of a folder or Hub repository to read, where it holds several.
    trust_remote_code : run Python code that comes with the checkpoint. Off, because it is somebody's code;
        LLaDA, Dream and DiffusionGemma checkpoints never need it.
    family : by default told by the checkpoint. "autoregressive" loads one that is refused because it looks as if
        it filled masks.
    mode : how a checkpoint is decoded whose config does not tell: "2.0" or "2.1" for LLaDA-2, which must be said, and
        "mdlm" (the default) or "bd3lm" for A2D.
    mask_token_id : of a diffusion model, by default the checkpoint's or that of the official ones.
    attention : transformers' implementation, such as "eager", "sdpa" or "flash_attention_2"; by default its choice.
    compile : compile each block with torch.compile. device_map : in place of a device, "auto" or a mapping from modules
        to devices spreads a checkpoint over several (needs accelerate). cache : of an autoregressive model,
        transformers' "dynamic" or "static"; by default the network's choice. These four change results by rounding
        alone, are kept in the provenance, and are proven by `demur.check` with the same arguments.
    tp_plan : "auto" splits a network over the processes that torchrun started, by transformers' own plan; `record` is
        then called in all of them alike. See docs/scale.md.
    system, template, template_arguments : of the chat format, see `ChatFormat.of`; system=None for no system prompt.

    A folder without tokenizer files loads too; then only prompts given as token ids can be used.
    Raises `InputError` for an unknown model, a folder that is no checkpoint, an architecture that transformers does
    not know, weights that are pickled, missing, left over or of other shapes than the config asks for.
    """
    chat: dict[str, Any] = {"template": template, "template_arguments": template_arguments}
    if isinstance(name_or_path, torch.nn.Module):
        loading: dict[str, Any] = {"revision": revision, "gguf_file": gguf_file, "trust_remote_code": trust_remote_code}
        loading |= {"mode": mode, "mask_token_id": mask_token_id is not None}
        loading |= {"device": device != "auto" and device, "dtype": dtype != "auto" and dtype}
        loading |= {"attention": attention, "compile": compile, "device_map": device_map, "cache": cache}
        loading |= {"tp_plan": tp_plan}
        _require_no_loading(loading)
        return _in_memory(name_or_path, tokenizer, family, ChatFormat.of(tokenizer, system, **chat))
    if tokenizer is not None:
        raise InputError(
            f"{name_or_path}: brings its own tokenizer; leave tokenizer out, which is for networks in memory"
        )
    name, place = str(name_or_path), _device(device)
    execution = Execution(attention, compile, device_map, cache, tp_plan)
    execution.require_cache(name)
    source = _resolve(name, revision, gguf_file, code=trust_remote_code)
    base, tokens = source, source
    if source.gguf_file is None and is_adapter(source.folder):
        base = _base(source, code=trust_remote_code)
        tokens = source if has_tokenizer(source.folder) else base
    execution.require_placeable(name, device, is_plain=_is_plain(source))
    built = _built(name, base, _dtype(dtype, place), place, family, execution, trust_remote_code=trust_remote_code)
    if source.gguf_file is None and is_adapter(source.folder):
        built = replace(built, network=merged(built.network, source.folder))
    built = in_mode(built, mode, name)
    network = (built.network if execution.is_placed else built.network.to(place)).eval()
    require_in_memory(network, name)
    attend(network, attention, name)
    if quantisation := quantisation_in(network):
        with reading(base.folder):
            settle(network)
    if tp_plan is not None:
        try_split(network, name)
    tokenizer = _tokenizer(tokens, built, trust_remote_code=trust_remote_code)
    chat_format = ChatFormat.of(tokenizer, system, **chat)
    made = from_network(
        network,
        tokenizer,
        name=name,
        family=built.family,
        revision=revision,
        mask_token_id=_mask_token(built, mask_token_id, tokenizer),
        logits_shifted=built.logits_shifted,
        samplers=built.samplers,
        eos_token_ids=in_vocabulary([*built.eos_token_ids, *end_tokens(network, tokenizer)], vocabulary_size(network)),
        sampler_defaults=built.sampler_defaults,
        chat_format=chat_format,
        content_before=None if base is not source or is_adapter(source.folder) else _content_before(source, network),
    )
    if compile:
        compile_blocks(made)
    if cache is not None and not made.traits.left_to_right:
        raise InputError(
            f"{name}: is no autoregressive model, and its sampler has a cache of its own or none; leave cache out"
        )
    if tp_plan is not None:
        network_hash(network)  # while all processes are here
    made.execution = execution.describe() | ({"quantization": quantisation} if quantisation else {})
    options: dict[str, Any] = {"revision": revision, "gguf_file": gguf_file, "family": family, "mode": mode}
    options |= {"mask_token_id": mask_token_id}
    options |= {"attention": attention, "compile": compile, "device_map": device_map, "cache": cache}
    options |= {"tp_plan": tp_plan}
    options |= {"trust_remote_code": trust_remote_code}
    made.loading = {
        "name_or_path": name if is_bundled(name) else _absolute(name),
        "dtype": str(made.dtype).removeprefix("torch."),
        **options,
        "system": system,
        "template": None if template is None else _absolute(template),
        "template_arguments": template_arguments,
    }
    return made


def _absolute(name: str) -> str:
    """The same path from any working folder; a name of another kind as it is."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def checkpoint_folder(model: Model) -> Path:
    """The folder of safetensors that a loaded model came from, for another engine to load the same weights.

    Raises `InputError` for `.gguf` files, adapters, networks made in memory, and weights edited since.
    """
    if model.content_before is None:
        raise InputError(f"{model.name}: is an adapter or a network in memory; another engine needs a plain checkpoint")
    if not model.former_fingerprint:
        raise InputError(f"{model.name}: its weights were edited since they were loaded; save them as a checkpoint")
    source = _resolve(model.name, model.revision, None, code=False)
    if source.gguf_file is not None:
        raise InputError(f"{model.name}: is a .gguf file; another engine needs a folder of safetensors")
    return source.folder


def _mask_token(built: Built, given: int | None, tokenizer: Any) -> int | None:
    """The mask token that was asked for, or the checkpoint's, or the tokenizer's where only that names one."""
    found = built.mask_token_id if given is None else given
    named = getattr(tokenizer, "mask_token_id", None)
    return named if found is None and FAMILIES[built.family].has_masks and isinstance(named, int) else found


def _require_no_loading(options: Mapping[str, Any]) -> None:
    if given := [name for name, value in options.items() if value]:
        raise InputError(
            f"{', '.join(given)}: say how to load, and the network is in memory; leave {given[0]} out, or change the "
            f"network itself, as by network.to(...)"
        )


def _in_memory(network: torch.nn.Module, tokenizer: Any, family: Family | None, chat_format: ChatFormat) -> Model:
    if not is_network(network):
        raise InputError(
            f"the network is a {type(network).__name__} without a config of transformers; give one of its classes, or "
            f"set its config as docs/extending.md shows"
        )
    return from_network(network, tokenizer, family=family, chat_format=chat_format)


def _built(
    name: str,
    source: Source,
    dtype: str | torch.dtype,
    device: torch.device,
    family: Family | None,
    execution: Execution,
    *,
    trust_remote_code: bool,
) -> Built:
    """The network of a checkpoint with what its format says of it."""
    folder, gguf_file, _ = source
    config = {} if gguf_file else _settings(folder)
    build = BUILDERS.get(str(config.get("model_type")))
    if build is not None:
        built = build(config, folder, dtype, device)
        if family not in (None, built.family):
            raise InputError(f"{name}: is a {built.family} model, not {family}; leave family out")
        return built
    if family not in (None, DEFAULT):
        raise InputError(
            f"{name}: no {family} format of demur's has model_type {config.get('model_type')!r}; load it with its own "
            f"code and hand it to demur.models.from_network(family={family!r})"
        )
    if gguf_file is not None:
        return Built(build_gguf(folder, gguf_file, dtype), DEFAULT, [])
    tokens = read_json_if_there(folder / "tokenizer_config.json")
    require_autoregressive(name, config, tokens, asked=family is not None)
    if quantisation_of(config, folder) and execution.tp_plan is not None:
        raise InputError(f"{name}: is quantised, which is not supported with tp_plan; leave tp_plan out")
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "device_map": execution.device_map}
    options |= {"tp_plan": execution.tp_plan}
    if not is_adapter(folder):
        return Built(build_causal(config, folder, dtype, **options), DEFAULT, [])
    with without_adapter(folder) as alone:
        return Built(build_causal(config, alone, dtype, **options), DEFAULT, [])


def _is_plain(source: Source) -> bool:
    """Whether transformers loads this by itself: a folder of safetensors in one of its own causal classes."""
    if source.gguf_file is not None or is_adapter(source.folder):
        return False
    return str(read_json_if_there(source.folder / "config.json").get("model_type")) not in BUILDERS


def _settings(folder: Path) -> dict[str, Any]:
    """The config of a folder; its generation config too must be sound, for transformers passes over a broken one."""
    generation = read_json_if_there(folder / "generation_config.json")
    config = read_json(folder / "config.json")
    for file, values in (("generation_config.json", generation), ("config.json", config)):
        try:
            token_ids(values.get("eos_token_id"), values.get("pad_token_id"), values.get("bos_token_id"))
        except InputError as error:
            raise InputError(f"{folder / file}: {error}") from error
    return config


def _base(source: Source, *, code: bool) -> Source:
    """Where the base model of an adapter lies."""
    base = base_of(source.folder)
    if base is None:
        return source
    try:
        found = _resolve(base, None, None, code=code)
    except InputError as error:
        raise InputError(f"{source.folder}: is an adapter, and its base model cannot be loaded: {error}") from error
    if found.gguf_file is None and is_adapter(found.folder):
        raise InputError(f"{source.folder}: is an adapter of an adapter ({base}); merge the inner one into its base")
    return found


def _tokenizer(source: Source, built: Built, *, trust_remote_code: bool) -> Any:
    folder, gguf_file, _ = source
    if gguf_file is not None:
        return read_tokenizer(folder, gguf_file=gguf_file)
    if not has_tokenizer(folder):
        return None
    options = _tokenizer_options(read_json_if_there(folder / "config.json"), built)
    return read_tokenizer(folder, built.tokenizer_class, trust_remote_code=trust_remote_code, **options)


def _tokenizer_options(config: Mapping[str, Any], built: Built) -> dict[str, Any]:
    """A plain config for a model type that transformers does not know, of which it would else warn at length."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    ours = config.get("model_type") in BUILDERS
    known = config.get("model_type") in CONFIG_MAPPING or built.tokenizer_class != "AutoTokenizer"
    return {} if known or not ours else {"config": PreTrainedConfig()}


def _resolve(name: str, revision: str | None, gguf_file: str | None, *, code: bool) -> Source:
    """The folder of a name, fetched from the Hub where it is none here, and the `.gguf` file within it, if any."""
    path = bundled_model(name) if is_bundled(name) else Path(name).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"{name}: is a file but no .gguf; give its folder, a .gguf file or a Hub id")
        return Source(path.parent, path.name)
    if path.is_dir():
        if gguf_file is not None and not (path / gguf_file).is_file():
            raise InputError(f"{path}: holds no file {gguf_file}")
        return Source(path, gguf_file or _gguf_in(path))
    looks_local = name.startswith(("/", ".", "~")) or name.count("/") != 1 or name.endswith(".gguf")
    if looks_local:
        raise InputError(f"{name}: no such folder or .gguf file, and no Hub id of the form owner/name")
    return Source(hub_folder(name, revision, gguf_file, code=code), gguf_file, from_hub=True)


def _gguf_in(folder: Path) -> str | None:
    """The one `.gguf` file of a folder that is the model: beside a config.json only where no safetensors are."""
    if is_adapter(folder) or has_weights(folder):
        return None
    files = sorted(file.name for file in folder.glob("*.gguf"))
    if not files and not (folder / "config.json").is_file():
        raise InputError(f"{folder}: is no checkpoint folder; expected a config.json with weights, or a .gguf file")
    if len(files) > 1:
        raise InputError(f"{folder}: holds {len(files)} .gguf files ({', '.join(files)}); name one with gguf_file")
    return files[0] if files else None


def _content_before(source: Source, network: Any) -> Callable[[], str]:
    """The content of a checkpoint as demur 0.1 told it: the Hub's commit, or a hash over the files."""
    first = network_stamp(network)
    known: list[str] = []

    def content() -> str:
        if network_stamp(network) != first:
            return ""
        if not known:
            folder, gguf_file, from_hub = source
            known.append(folder.name if from_hub else files_hash(_files_before(folder, gguf_file)))
        return known[0]

    return content


def _files_before(folder: Path, gguf_file: str | None) -> list[Path]:
    if gguf_file is not None:
        return [folder / gguf_file]
    settings = [folder / name for name in ("config.json", "generation_config.json", *TOKENIZER_FILES)]
    files = [file for file in [*settings, folder / "chat_template.jinja"] if file.is_file()]
    return [*sorted(folder.glob("*.safetensors")), *files]


def _device(device: str) -> torch.device:
    if device != "auto":
        try:
            found = torch.device(device)
        except RuntimeError as error:
            raise InputError(f"device {device!r} is unknown; give auto, cpu, cuda, cuda:1 or mps") from error
        _require_there(found)
        return found
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _require_there(device: torch.device) -> None:
    """Raise `InputError` for a GPU that this machine or this build of torch does not have."""
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(f"device {str(device)!r}: torch finds {count} CUDA devices here; give auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps': torch finds none here; give auto or cpu")


def _dtype(dtype: str | torch.dtype, device: torch.device) -> str | torch.dtype:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise InputError(f"dtype {dtype!r} is unknown; give auto, float32, bfloat16 or float16")
    return found
