"""Prompts and prompt sets.

In: files, tables in memory, a Hub data set. Out: checked `Prompt`s, and the way back into a file. Every fault is an
`InputError` that names the source, the row and the mend. Nothing here knows of tokenizers or chat formats.
"""

from demur.prompts.files import file_rows
from demur.prompts.labels import label_of_set
from demur.prompts.options import ReadOptions
from demur.prompts.prompt import Message, Prompt, prompts_hash, write_prompts
from demur.prompts.read import as_prompts, hub_rows, read_prompts
from demur.prompts.rows import checked_rows

__all__ = [
    "Message",
    "Prompt",
    "ReadOptions",
    "as_prompts",
    "checked_rows",
    "file_rows",
    "hub_rows",
    "label_of_set",
    "prompts_hash",
    "read_prompts",
    "write_prompts",
]
