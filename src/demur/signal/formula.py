"""The two signals as plain formulas: arrays in, arrays out.

In: phi `[..., steps, width]` and two anchors, or texts. Out: float32 values, one a step. Works block by block in
float64, on NumPy arrays and on torch tensors where they lie; torch itself is never imported here. What a phi
was made from, and where anchors come from, is left to `demur.signal.anchors`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError
from demur.judges.dictionary import refused as refused_by_dictionary

if TYPE_CHECKING:
    import torch

# One block in float64 must stay in a core's own cache; a device wants few large kernels instead.
_BLOCK_IN_MEMORY, _BLOCK_ON_DEVICE = 2**15, 2**24
# With fewer rows than this the product with the anchors is a matrix-vector one, at half the speed.
_ROWS_AT_ONCE = 8


@overload
def sri(
    phi: torch.Tensor, anchor_harmless: Any, anchor_harmful: Any, tau: float = ..., eps: float = ...
) -> torch.Tensor: ...
@overload
def sri(
    phi: ArrayLike, anchor_harmless: Any, anchor_harmful: Any, tau: float = ..., eps: float = ...
) -> NDArray[np.float32]: ...
def sri(phi: Any, anchor_harmless: Any, anchor_harmful: Any, tau: float = 0.1, eps: float = 1e-8) -> Any:
    """The step-wise refusal signal: 1 where a step complies, 0 where it refuses.

    phi : `[..., T, D]`, NumPy or torch, of any real dtype. Detached from any gradient.
    anchor_harmless, anchor_harmful : `[T, D]`; a phi of fewer steps uses their first rows.
    tau, eps : temperature and guard against zero, both above 0.

    Returns float32 `[..., T]` in [0, 1], of phi's kind and on its device; finite for every finite input.
    Raises `InputError` for shapes that do not fit and for the first value that is not finite.
    Source: arXiv 2602.02600, section 3.1.
    """
    return _evaluate(
        phi, anchor_harmless, anchor_harmful, lambda xp, logs: 1 / (1 + xp.exp(-_ratio(logs) / tau)), tau, eps
    )


@overload
def log_ratio(
    phi: torch.Tensor, anchor_harmless: Any, anchor_harmful: Any, tau: float = ..., eps: float = ...
) -> torch.Tensor: ...
@overload
def log_ratio(
    phi: ArrayLike, anchor_harmless: Any, anchor_harmful: Any, tau: float = ..., eps: float = ...
) -> NDArray[np.float32]: ...
def log_ratio(phi: Any, anchor_harmless: Any, anchor_harmful: Any, tau: float = 0.1, eps: float = 1e-8) -> Any:
    """What `sri` takes the sigmoid of, for where the signal itself is saturated; above 0 a step complies.

    `(log(d_harmful + eps) - log(d_harmless + eps)) / tau`, d being 1 - cosine; arguments and errors as in `sri`.
    """
    return _evaluate(phi, anchor_harmless, anchor_harmful, lambda xp, logs: _ratio(logs) / tau, tau, eps)


@overload
def sri_features(phi: torch.Tensor, anchor_harmless: Any, anchor_harmful: Any, eps: float = ...) -> torch.Tensor: ...
@overload
def sri_features(
    phi: ArrayLike, anchor_harmless: Any, anchor_harmful: Any, eps: float = ...
) -> NDArray[np.float32]: ...
def sri_features(phi: Any, anchor_harmless: Any, anchor_harmful: Any, eps: float = 1e-8) -> Any:
    """Two numbers a step that do not saturate as the signal does, float32 `[..., T, 2]`.

    First the log-ratio `log(d_harmful + eps) - log(d_harmless + eps)`, which says to which anchor phi is nearer,
    then `log(d_harmless + eps)`, which says how far it is from what answers to harmless prompts look like; d is
    1 - cosine. Arguments and errors as in `sri`.
    """

    def both(xp: Any, logs: Any) -> Any:
        return xp.stack([_ratio(logs), logs[..., 0]], -1)

    return _evaluate(phi, anchor_harmless, anchor_harmful, both, 1.0, eps)


def _ratio(log_distance: Any) -> Any:
    return log_distance[..., 1] - log_distance[..., 0]


def _evaluate(
    phi: Any, anchor_harmless: Any, anchor_harmful: Any, value_of: Callable[[Any, Any], Any], tau: float, eps: float
) -> Any:
    """`value_of(xp, log distances [rows, steps, 2])` as float32 of phi's kind; both are float64 inside."""
    tensor = _is_tensor(phi)
    phi = phi.detach() if tensor else np.asarray(phi)
    for name, value in (("tau", tau), ("eps", eps)):
        if not 0 < value < np.inf:
            raise InputError(f"{name} is {value}; expected a finite number above 0.")
    xp: Any = sys.modules["torch"] if tensor and not _in_memory(phi) else np
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        anchors = _unit_anchors(phi, anchor_harmless, anchor_harmful, eps)
        cosine = _cosines(xp, phi.reshape(-1, *phi.shape[-2:]), anchors, eps)
        # Rounding can put a cosine above 1, and the log of a negative distance is NaN.
        log_distance = xp.log((1 - cosine).clip(min=0) + eps)  # [rows, steps, 2]
        value = value_of(xp, log_distance)
        out = value.astype(np.float32) if xp is np else value.to(xp.float32)
    if bool(xp.isnan(out).any()):
        raise _not_finite(phi, out)
    out = sys.modules["torch"].as_tensor(out) if tensor else out
    return out.reshape(*phi.shape[:-1], *out.shape[2:])


def _cosines(xp: Any, rows: Any, anchors: NDArray[np.float64], eps: float) -> Any:
    """Rows [N, T, D] against unit anchors [T, D, 2] -> cosines [N, T, 2], the rows widened a block at a time."""
    wide, scale = _arithmetic(rows)
    like: Any = {} if xp is np else {"dtype": wide, "device": rows.device}
    there = anchors if xp is np else xp.tensor(anchors, **like)
    dot, size = xp.empty((*rows.shape[:2], 2), **like), xp.empty((*rows.shape[:2], 1), **like)
    for n, t in _blocks(rows.shape, _BLOCK_IN_MEMORY if xp is np else _BLOCK_ON_DEVICE):
        block = rows[n, t].to(wide) if _is_tensor(rows) else rows[n, t].astype(wide)
        block = block.numpy() if _is_tensor(block) and xp is np else block
        block, size[n, t] = _scaled_norm(xp, block, eps, scale=scale)
        dot[n, t] = (block.swapaxes(0, 1) @ there[t]).swapaxes(0, 1)
    return dot / size


def _arithmetic(rows: Any) -> tuple[Any, bool]:
    """The dtype to work in, and whether values must be scaled first for their squares to fit in it."""
    if not _is_tensor(rows):
        return np.float64, rows.dtype.itemsize >= 8
    torch: Any = sys.modules["torch"]
    # Apple's GPUs have no float64.
    wide = torch.float32 if rows.device.type == "mps" else torch.float64
    return wide, rows.dtype.itemsize >= wide.itemsize


def _scaled_norm(xp: Any, x: Any, eps: float, *, scale: bool) -> tuple[Any, Any]:
    """`x` [..., D] and `|x| + eps` [..., 1], both divided by max|x| where its square could overflow."""
    shift: Any = eps
    if scale:
        top = xp.amax(xp.abs(x), -1)[..., None]
        top = top + (top == 0)
        x, shift = x / top, eps / top
    square = _vecdot(x, x) if xp is np else xp.linalg.vecdot(x, x)
    return x, xp.sqrt(square)[..., None] + shift


# NumPy 2 has it as a loop over BLAS, at three times the speed.
_vecdot: Any = getattr(np, "vecdot", lambda x, y: np.einsum("...d,...d->...", x, y))


def _unit_anchors(phi: Any, harmless: Any, harmful: Any, eps: float) -> NDArray[np.float64]:
    """Both anchors [T, D] as `x / (|x| + eps)`, stacked to [T, D, 2] and checked against phi."""
    given = {"harmless": _to_memory(harmless), "harmful": _to_memory(harmful)}
    for name, anchor in given.items():
        _check_shapes(phi, anchor, name)
        if not np.isfinite(anchor).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(anchor))[0])
            raise InputError(f"the {name} anchor holds {anchor[index]} at {index}; fit the anchors on finite phi.")
    if given["harmless"].shape != given["harmful"].shape:
        raise InputError(
            f"the harmless anchor has shape {given['harmless'].shape} and the harmful one {given['harmful'].shape}; "
            "take both from one fit."
        )
    units = np.empty((*phi.shape[-2:], 2))
    for side, anchor in enumerate(given.values()):
        wide = anchor[: phi.shape[-2]].astype(np.float64)
        wide, size = _scaled_norm(np, wide, eps, scale=anchor.dtype.itemsize >= 8)
        np.divide(wide, size, out=units[..., side])
    return units


def _check_shapes(phi: Any, anchor: NDArray[Any], name: str) -> None:
    for what, array in (("phi", phi), (f"the {name} anchor", anchor)):
        kind = array.dtype.kind if isinstance(array, np.ndarray) else "c" if array.is_complex() else "f"
        if kind not in "fiu":
            raise InputError(f"{what} has dtype {array.dtype}; expected real numbers.")
    if phi.ndim < 2 or 0 in phi.shape[-2:]:
        raise InputError(f"phi has shape {tuple(phi.shape)}; expected [..., steps, width] with at least one of each.")
    if anchor.ndim != 2 or anchor.shape[1] != phi.shape[-1] or anchor.shape[0] < phi.shape[-2]:
        raise InputError(
            f"phi has {phi.shape[-2]} steps of width {phi.shape[-1]} and the {name} anchor has shape {anchor.shape}; "
            "expected [steps, width] with the same width and at least as many steps. Fit anchors on as many steps."
        )


def _blocks(shape: Sequence[int], elements: int) -> Iterator[tuple[slice, slice]]:
    """Cut [rows, steps, width] into blocks of about `elements` numbers, with rows enough for a matrix product."""
    rows, steps, width = shape
    n = max(1, min(rows, max(_ROWS_AT_ONCE, elements // (steps * width))))
    t = max(1, elements // (n * width))
    for row in range(0, rows, n):
        for step in range(0, steps, t):
            yield slice(row, row + n), slice(step, step + t)


def _not_finite(phi: Any, out: Any) -> InputError:
    """The error for the first phi behind a NaN in `out` [rows, steps, ...]: only such a phi can have made it."""
    row, step = (int(i) for i in np.argwhere(np.isnan(_to_memory(out)))[0][:2])
    lead = tuple(int(i) for i in np.unravel_index(row, tuple(phi.shape[:-2]))) if phi.ndim > 2 else ()
    values = _to_memory(phi[(*lead, step)])
    column = int(np.argwhere(~np.isfinite(values))[0][0])
    return InputError(
        f"phi holds {values[column]} at index {(*lead, step, column)}; expected finite numbers. "
        "Leave that generation out, or record it again in a wider dtype."
    )


def _to_memory(array: Any) -> NDArray[Any]:
    return array.detach().cpu().double().numpy() if _is_tensor(array) else np.asarray(array)


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _in_memory(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"


def text_signal(texts: Any, refused: Callable[[str], bool] = refused_by_dictionary) -> NDArray[np.float32]:
    """The text-level signal: 1 until a refusal appears in the text so far, 0 from that step on.

    texts : the text at each step, `[T]` strings or `[prompts][T]` of them, or booleans `[..., T]`
        saying at which steps a refusal stands in the text.
    refused : judge of one text; asked only up to the first refusal of a generation.

    Returns float32 `[T]`, `[prompts, T]` or the shape of the booleans. Raises `InputError` for a missing
    text and for generations of different lengths. Source: arXiv 2602.02600, section 3 (the baseline).
    """
    if not _is_list(texts) or len(texts) == 0:
        raise InputError(
            f"texts is {texts!r:.40}; expected a list with the text at each step, or a list of such lists."
        )
    verdicts = texts if _holds_booleans(texts) else _verdicts(texts, refused)
    return (~np.logical_or.accumulate(np.asarray(verdicts), axis=-1)).astype(np.float32)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _holds_booleans(texts: Any) -> bool:
    while _is_list(texts) and len(texts) and not isinstance(texts, np.ndarray):
        texts = texts[0]
    return isinstance(texts, bool) or getattr(texts, "dtype", None) == np.bool_


def _verdicts(texts: Any, refused: Callable[[str], bool]) -> NDArray[np.bool_]:
    generations = texts if _is_list(texts[0]) else [texts]
    lengths = sorted({len(generation) if _is_list(generation) else 0 for generation in generations})
    if len(lengths) != 1 or lengths[0] == 0:
        raise InputError(f"generations have {lengths} steps; expected lists of texts of one length, at least 1.")
    found = np.zeros((len(generations), lengths[0]), dtype=bool)
    for i, generation in enumerate(generations):
        for step, text in enumerate(generation):
            if not isinstance(text, str):
                raise InputError(f"generation {i} holds {text!r} at step {step + 1}; expected a text.")
            if refused(text):
                found[i, step] = True
                break
    return found if generations is texts else found[0]
