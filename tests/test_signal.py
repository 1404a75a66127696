"""The signal's formulas, against the fixtures of the released code and against their own definition."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file

from demur.errors import InputError
from demur.signal import formula, log_ratio, sri, text_signal

FIXTURES = Path(__file__).parent / "fixtures"
CASES: dict[str, dict[str, Any]] = json.loads((FIXTURES / "signal.json").read_text())
TENSORS = load_file(FIXTURES / "signal.safetensors")
EVERY = [(case, tau) for case, about in CASES.items() for tau in about["taus"]]


def case_tensors(case: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return TENSORS[f"{case}/acts"], TENSORS[f"{case}/anchor_harmless"], TENSORS[f"{case}/anchor_harmful"]


def plain_sri(phi: np.ndarray, harmless: np.ndarray, harmful: np.ndarray, tau: float, eps: float) -> np.ndarray:
    """The definition, word for word, in float64."""

    def distance(anchor: np.ndarray) -> np.ndarray:
        x, m = (a / (np.linalg.norm(a, axis=-1, keepdims=True) + eps) for a in (phi, anchor))
        return np.maximum(1 - (x * m).sum(-1), 0)

    return 1 / (1 + np.exp(-(np.log(distance(harmful) + eps) - np.log(distance(harmless) + eps)) / tau))


def test_the_fixtures_hold_every_kind() -> None:
    assert {about["kind"] for about in CASES.values()} == {"random", "edge", "low_precision"}
    assert len(EVERY) == 27


@pytest.mark.parametrize(("case", "tau"), EVERY)
def test_sri_of_tensors_is_the_reference_in_float64(case: str, tau: float) -> None:
    sigma = sri(*case_tensors(case), tau=tau, eps=CASES[case]["eps"])
    assert isinstance(sigma, torch.Tensor) and sigma.dtype == torch.float32
    torch.testing.assert_close(sigma.double(), TENSORS[f"{case}/sigma64_tau{tau}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("case", "tau"), EVERY)
def test_sri_of_arrays_is_the_reference_in_float64(case: str, tau: float) -> None:
    sigma = sri(*(tensor.float().numpy() for tensor in case_tensors(case)), tau=tau)
    assert isinstance(sigma, np.ndarray) and sigma.dtype == np.float32
    np.testing.assert_allclose(sigma, TENSORS[f"{case}/sigma64_tau{tau}"].numpy(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", [case for case, about in CASES.items() if about["kind"] == "edge"])
def test_every_edge_is_finite_and_near_its_labelled_value(case: str) -> None:
    phi, harmless, harmful = (tensor.numpy() for tensor in case_tensors(case))
    for tau in CASES[case]["taus"]:
        sigma = sri(phi, harmless, harmful, tau)
        for value, row in zip(sigma, CASES[case]["rows"], strict=True):
            assert value == pytest.approx(row["sigma64"][str(tau)], abs=1e-6), row["label"]


@pytest.mark.parametrize("kind", ["numpy", "in memory", "on a device"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_blocks_of_every_kind_and_dtype_follow_the_definition(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A CPU tensor sent the way of device tensors stands in for a GPU.
    if kind == "on a device":
        monkeypatch.setattr(formula, "_in_memory", lambda phi: False)
    monkeypatch.setattr(formula, "_BLOCK_IN_MEMORY", 500)
    monkeypatch.setattr(formula, "_BLOCK_ON_DEVICE", 500)
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(3, 7, 9, 20, generator=generator).to(dtype)
    anchors = torch.randn(2, 12, 20, generator=generator)
    wide = phi.double().numpy(), *anchors[:, :9].double().numpy()
    if kind == "numpy":
        sigma = sri(phi.numpy() if dtype != torch.bfloat16 else phi.double().numpy(), *anchors.numpy())
    else:
        sigma = sri(phi, *anchors).numpy()
    np.testing.assert_allclose(sigma, plain_sri(*wide, 0.1, 1e-8), atol=1e-6, rtol=0)


def test_a_strided_view_gives_what_its_copy_gives() -> None:
    phi = np.random.default_rng(0).normal(size=(5, 6, 3, 16)).astype(np.float32)
    view, anchors = phi[::2, ::-1, 1], phi[:2, :, 0]
    np.testing.assert_array_equal(sri(view, *anchors), sri(view.copy(), *anchors))


def test_one_trajectory_and_an_empty_batch_keep_their_shape() -> None:
    anchors = np.eye(4)[:2, None].repeat(3, axis=1)
    assert sri(np.ones((3, 4)), *anchors).shape == (3,)
    assert sri(np.ones((0, 3, 4)), *anchors).shape == (0, 3)
    assert sri(np.ones((2, 0, 3, 4)), *anchors).shape == (2, 0, 3)


def test_a_gradient_does_not_travel_through_the_signal() -> None:
    phi = torch.randn(3, 4, requires_grad=True)
    assert not sri(phi, torch.ones(3, 4), -torch.ones(3, 4)).requires_grad


def test_swapping_the_anchors_mirrors_the_signal() -> None:
    phi, harmless, harmful = case_tensors("t32_d64")
    torch.testing.assert_close(sri(phi, harmful, harmless), 1 - sri(phi, harmless, harmful), atol=1e-6, rtol=0)


def test_log_ratio_is_the_logit_of_the_signal_and_does_not_saturate() -> None:
    phi, harmless, harmful = (tensor.numpy() for tensor in case_tensors("t32_d64"))
    value = log_ratio(phi, harmless, harmful, 0.5)
    np.testing.assert_allclose(1 / (1 + np.exp(-value.astype(np.float64))), sri(phi, harmless, harmful, 0.5), atol=1e-6)
    extreme = log_ratio(np.stack([harmless, harmful]), harmless, harmful, 0.01)
    assert np.isfinite(extreme).all() and (extreme[0] > 1000).all() and (extreme[1] < -1000).all()


def triples(dtype: type) -> st.SearchStrategy[np.ndarray]:
    width = np.dtype(dtype).itemsize * 8
    return arrays(dtype, (3, 2, 3), elements=st.floats(width=width, allow_nan=False, allow_infinity=False))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(triples(np.float16), triples(np.float32), triples(np.float64)),
    st.sampled_from([1e-3, 0.05, 0.1, 1.0, 10.0]),
)
def test_sri_is_finite_and_between_0_and_1_for_every_finite_input(triple: np.ndarray, tau: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sigma = sri(*triple, tau=tau)
        same = sri(torch.from_numpy(triple[0]), *triple[1:], tau=tau)
    assert ((sigma >= 0) & (sigma <= 1)).all()
    np.testing.assert_array_equal(sigma, same.numpy())


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(np.float32, size) for size in (1e-45, 1e-30, 1e20, 3e38)]
    + [(np.float64, size) for size in (5e-324, 1e-300, 1e300, 1.7e308)],
)
def test_a_large_phi_keeps_its_direction_and_a_tiny_one_has_none(dtype: type, size: float) -> None:
    anchors = np.eye(8)[:2, None] + 0.5
    phi = (np.full((1, 8), 0.4) + np.eye(8)[:1] * 0.5).astype(dtype) * dtype(size)
    expected = sri(np.full((1, 8), 0.4) + np.eye(8)[:1] * 0.5, *anchors) if size > 1 else 0.5
    np.testing.assert_allclose(sri(phi, *anchors), expected, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_first_value_that_is_not_finite_is_named(bad: float, dtype: torch.dtype) -> None:
    phi = torch.ones(2, 5, 3, 4, dtype=dtype)
    phi[1, 2, 1, 3] = phi[1, 4, 0, 0] = bad
    anchors = torch.eye(4)[:2, None].repeat(1, 3, 1)
    for given_phi in (phi, phi.numpy()):
        with pytest.raises(InputError, match=rf"phi holds {bad} at index \(1, 2, 1, 3\)"):
            sri(given_phi, *anchors)


def test_an_anchor_that_is_not_finite_is_named() -> None:
    anchor = np.ones((3, 4))
    anchor[1, 2] = np.nan
    with pytest.raises(InputError, match=r"the harmful anchor holds nan at \(1, 2\)"):
        sri(np.ones((3, 4)), np.ones((3, 4)), anchor)


@pytest.mark.parametrize(
    ("phi", "harmless", "harmful", "message"),
    [
        ((4, 8), (3, 8), (3, 8), "phi has 4 steps of width 8"),
        ((3, 8), (3, 7), (3, 7), "same width"),
        ((3, 8), (4, 8), (3, 8), "take both from one fit"),
        ((8,), (3, 8), (3, 8), r"phi has shape \(8,\)"),
        ((3, 0), (3, 0), (3, 0), "at least one of each"),
        ((3, 8), (1, 3, 8), (1, 3, 8), "harmless anchor has shape"),
    ],
)
def test_shapes_that_do_not_fit_are_named(phi: Any, harmless: Any, harmful: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sri(np.ones(phi), np.ones(harmless), np.ones(harmful))


@pytest.mark.parametrize("name", ["tau", "eps"])
@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_tau_and_eps_must_be_above_zero(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}"):
        sri(np.ones((3, 8)), np.ones((3, 8)), np.ones((3, 8)), **{name: value})


@pytest.mark.parametrize("phi", [np.ones((3, 8), complex), np.full((3, 8), "x"), torch.ones(3, 8, dtype=torch.cfloat)])
def test_what_is_no_real_number_is_refused(phi: Any) -> None:
    with pytest.raises(InputError, match="expected real numbers"):
        sri(phi, np.ones((3, 8)), np.ones((3, 8)))


TEXTS = ["Sure", "Sure, but I am", "Sure, but I am sorry", "Sure, but I am sorrowful"]


def test_text_signal_falls_at_the_first_refusal_and_stays_down() -> None:
    signal = text_signal(TEXTS)
    assert signal.dtype == np.float32
    np.testing.assert_array_equal(signal, [1, 1, 0, 0])


def test_text_signal_of_several_generations_has_a_row_each() -> None:
    np.testing.assert_array_equal(text_signal([TEXTS, ["fine"] * 4]), [[1, 1, 0, 0], [1, 1, 1, 1]])


def test_text_signal_takes_another_judge() -> None:
    np.testing.assert_array_equal(text_signal(TEXTS, refused=lambda text: "but" in text), [1, 0, 0, 0])


@pytest.mark.parametrize("kind", [list, np.array])
def test_text_signal_takes_verdicts(kind: Any) -> None:
    np.testing.assert_array_equal(text_signal(kind([[False, True, False], [False] * 3])), [[1, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a text", "texts is 'a text'"),
        ([["a", "b"], ["a"]], "lists of texts of one length"),
        ([["a", None]], "generation 0 holds None at step 2"),
        ([], "expected"),
        ([[]], "at least 1"),
        ([1, 2], "generation 0 holds 1 at step 1"),
        ([["a", "b"], "ab"], "lists of texts of one length"),
        (None, "texts is None"),
    ],
)
def test_text_signal_says_what_is_wrong_with_its_texts(texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        text_signal(texts)
