"""What ships with demur: three tiny models, the prompts of their toy world, and harmless prompts to control a guard by.

In: a name such as "demur/tiny-ar" or "demur/toy/test_harmful". Out: its path inside the package. What they are and
how they were made is told in the model card beside them.
"""

from __future__ import annotations

from pathlib import Path

from demur.errors import InputError

PREFIX = "demur/"
MODELS = ("tiny-ar", "tiny-diffusion", "tiny-block")
PROMPTS = "toy"
ROOMS = (PROMPTS, "controls")
_HOME = Path(__file__).parent


def is_bundled(name: str | Path) -> bool:
    """Whether a name is that of something bundled; a file or folder that is really there wins."""
    return str(name).startswith(PREFIX) and not Path(name).exists()


def bundled_model(name: str) -> Path:
    """The checkpoint folder of a bundled model; `InputError` naming those there are."""
    found = name.removeprefix(PREFIX)
    if found not in MODELS:
        raise InputError(f"{name}: no such bundled model; there are {', '.join(PREFIX + one for one in MODELS)}")
    return _HOME / found


def bundled_prompts(name: str) -> list[Path]:
    """The prompt files of "demur/toy" or "demur/controls", or the one of "demur/toy/SET".

    Raises `InputError` naming the sets there are.
    """
    room, _, wanted = name.removeprefix(PREFIX).rstrip("/").partition("/")
    chosen = [file for file in _files(room) if wanted in ("", file.stem)] if room in ROOMS else []
    if not chosen:
        known = ", ".join(f"{PREFIX}{one}/{file.stem}" for one in ROOMS for file in _files(one))
        raise InputError(
            f"{name}: no such bundled prompt set; there are {' and '.join(PREFIX + one for one in ROOMS)} "
            f"and their parts {known}"
        )
    return chosen


def _files(room: str) -> list[Path]:
    return sorted((_HOME / room).glob("*.jsonl"))
