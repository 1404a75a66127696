"""Whether the model that vLLM will load is the one that the guards were made for.

In: guards, and the name and dtype that vLLM was given. Out: the model's identity and dtype; `ProvenanceError` where it
is another. The weights are read once by demur itself, on the CPU, and let go again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demur.engines.vllm.settings import KnownModel
from demur.errors import InputError, ProvenanceError
from demur.models import load
from demur.provenance import Provenance, require_comparable

DTYPES = ("float32", "bfloat16", "float16")


def verified(guards: Sequence[Any], name: str, revision: str | None, dtype: str) -> tuple[KnownModel, str]:
    """The model's identity, and the dtype in which it is the guards' model.

    guards : `demur.serve.guards.Watched`. dtype : as vLLM was given it; "auto" tries each.
    """
    made = provenance_of(guards)
    chat: dict[str, Any] = dict(made.chat_format)
    found = None
    for kind in DTYPES if dtype == "auto" else (dtype,):
        model = load(
            name,
            revision=revision,
            device="cpu",
            dtype=kind,
            system=chat.get("system"),
            template=chat.get("name"),
            template_arguments=chat.get("arguments"),
        )
        found = Provenance(model.name, model.fingerprint, made.sampler, made.layers, former=model.former_fingerprint)
        if made.same_model(found):
            return KnownModel(model.name, model.fingerprint, model.former_fingerprint), kind
    assert found is not None
    try:
        require_comparable(made, found, ("the guard", f"{name} in {dtype}"))
    except ProvenanceError as fault:
        raise ProvenanceError(
            f"{fault} The dtype counts: give vLLM the --dtype that the guard was recorded in, and the same weights."
        ) from None
    raise AssertionError("two models that differ are comparable")


def trusted(guards: Sequence[Any]) -> KnownModel:
    """The identity that the guards ask for, taken on trust."""
    made = provenance_of(guards)
    return KnownModel(made.model, made.fingerprint, made.former)


def provenance_of(guards: Sequence[Any]) -> Provenance:
    """What the guards were made from; `InputError` for one that does not know."""
    found: list[Provenance] = []
    for one in guards:
        made = one.source.provenance if hasattr(one.source, "provenance") else one.source.provenance_
        if made is None:
            raise InputError(f"{one.name}: does not know the model it was made for; fit it on recordings")
        found.append(made)
    return found[0]
