"""What is made of options: models, samplers, judges, prompts.

In: what was typed. Out: arguments of the library; `InputError` names the option that cannot be used.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from demur.cli.plugins import named
from demur.errors import InputError

if TYPE_CHECKING:
    from demur.judges import Judge
    from demur.models import Model
    from demur.prompts import Prompt, ReadOptions
    from demur.recording.engine import Engine
    from demur.samplers import Sampler


def chat_options(
    system: str | None,
    no_system: bool,
    template: str | None,
    template_arg: list[str] | None,
    mode: str | None = None,
    family: str | None = None,
) -> dict[str, Any]:
    """Arguments of `demur.load` for the chat format, the way of decoding and the family; only what was asked for."""
    if system is not None and no_system:
        raise InputError("--system and --no-system exclude each other; give one of them")
    found: dict[str, Any] = {} if mode is None else {"mode": mode}
    if system is not None or no_system:
        found["system"] = system
    if template is not None:
        found["template"] = template
    if family is not None:
        found["family"] = family
    if template_arg:
        from demur.models.templates import argument_of

        found["template_arguments"] = dict(argument_of(text) for text in template_arg)
    return found


def run_options(
    attention: str | None, compiled: bool, device_map: str | None, cache: str | None, tp_plan: str | None = None
) -> dict[str, Any]:
    """Arguments of `demur.load` for how a network is run; only what was asked for."""
    found = {"attention": attention, "compile": compiled, "device_map": device_map, "cache": cache}
    found |= {"tp_plan": tp_plan}
    return {name: value for name, value in found.items() if value}


def harden_options(harden: bool, rounds: int | None, longest: int | None) -> dict[str, Any]:
    """Arguments of `run_study` for the shipped material; only what was asked for."""
    given = {name: value for name, value in (("rounds", rounds), ("longest", longest)) if value is not None}
    if not harden:
        for name in given:
            raise InputError(f"--harden-{name} says how much material --harden uses; give --harden too")
        return {}
    from demur.studies.hardening import check_choices

    check_choices(given.get("rounds", 1), (), longest=longest)
    return {"harden": True, **{f"harden_{name}": value for name, value in given.items()}}


def read_options(column: list[str] | None, label: list[str] | None, encoding: str) -> ReadOptions:
    """How the prompt files are to be read."""
    from demur.prompts import ReadOptions

    labels: dict[str, list[str]] = {}
    for text in label or []:
        name, value = _pair("--label", "LABEL=VALUE", text)
        labels.setdefault(name, []).append(value)
    return ReadOptions(columns_of("--column", column), labels, encoding)


def columns_of(option: str, given: list[str] | None) -> dict[str, str | None]:
    """Columns by field; an empty column reads the field as missing."""
    pairs = (_pair(option, "FIELD=COLUMN", text) for text in given or [])
    return {name: column or None for name, column in pairs}


def _pair(option: str, form: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"{option} {text!r} is not of the form {form}")
    return name.strip(), value


def load_model(
    name: str,
    device: str,
    dtype: str,
    revision: str | None,
    chat: Mapping[str, Any] = MappingProxyType({}),
    say: Callable[[str], None] | None = None,
) -> Model:
    """A model by name; says so first, as libraries and weights take their time."""
    if say is not None:
        say(f"loading {name}")
    from demur.models import load

    return load(name, device=device, dtype=dtype, revision=revision, **chat)


def prompts_of(path: Path, column: list[str] | None, label: list[str] | None, encoding: str) -> list[Prompt]:
    from demur.prompts import read_prompts

    read = read_options(column, label, encoding)
    return read_prompts(path, columns=read.columns, labels=read.labels, encoding=read.encoding)


def responses_of(path: Path, rows: list[Prompt], column: list[str] | None, encoding: str) -> list[str]:
    from demur.recording import read_responses

    return read_responses(path, rows, columns=columns_of("--response-column", column), encoding=encoding)


def judge_of(
    name: str | None,
    model: str | None,
    key_env: str | None,
    cache: Path,
    device: str,
    dtype: str,
    engine: Engine | None = None,
) -> Judge | None:
    if name is None:
        return None
    from demur import studies

    return studies.judge_of(
        name,
        lambda one: load_model(one, device, dtype, None),
        address_model=model,
        api_key_env=key_env,
        cache=cache,
        engine=engine,
    )


def sampler_of(model: Model, name: str | None, arguments: list[str] | None, steps: int, seed: int) -> Sampler:
    """The sampler asked for; values of its arguments are read as JSON, and as text where they are none."""
    given = {"seed": seed, **dict(_argument(text) for text in arguments or [])}
    make = model.default_sampler if name is None else _sampler_class(name)
    try:
        made = make(steps=steps, **given)
    except TypeError as error:
        raise InputError(f"the sampler does not take these arguments: {error}") from error
    return made


def _sampler_class(name: str) -> Callable[..., Sampler]:
    """A sampler of demur's by name, or anybody's as MODULE:CLASS."""
    from demur import samplers

    if ":" in name:
        own = named(name, "--sampler")
        if not (isinstance(own, type) and issubclass(own, samplers.Sampler)):
            raise InputError(f"--sampler {name}: is no subclass of demur.samplers.Sampler")
        return own
    return samplers.SAMPLERS.find(name)


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--sampler-arg {text!r} is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def layer_of(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text.strip()


def open_page(page: Path) -> None:
    """Open a page in the browser where there is a screen; elsewhere a browser would take over the terminal."""
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
