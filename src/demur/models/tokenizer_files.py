"""A tokenizer from its files, without running anything that came with them.

In: a folder, of a checkpoint or of a recording. Out: transformers' tokenizer, or None where the folder has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import InputError
from demur.models.json_file import read_json_if_there, require_tokenizer_files

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


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def read_tokenizer(
    folder: Path, class_name: str = "AutoTokenizer", *, trust_remote_code: bool = False, **options: Any
) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, by one of transformers' classes.

    options : further arguments of `from_pretrained`. Code that the folder names runs only with `trust_remote_code`;
    without it, and for damaged files, an `InputError` names the folder.
    """
    import transformers

    require_tokenizer_files(folder)
    try:
        tokenizer: PreTrainedTokenizerBase = getattr(transformers, class_name).from_pretrained(
            folder, trust_remote_code=trust_remote_code, **options
        )
    except Exception as error:  # tokenizer backends raise bare Exceptions
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{folder}: the tokenizer files cannot be loaded: {reason}") from error
    template = read_json_if_there(folder / "chat_template.json").get("chat_template")
    if not tokenizer.chat_template and template:
        tokenizer.chat_template = template  # where processors keep it, and tokenizers do not look
    return tokenizer
