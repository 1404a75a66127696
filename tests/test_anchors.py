"""Anchors and the signal made with them: fitting, filtering, provenance, files."""

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from demur.errors import InputError, ProvenanceError
from demur.files.arrays import read_arrays, write_arrays
from demur.provenance import Provenance
from demur.signal import Anchors, AnchorSums, Signal, sri

FIXTURES = Path(__file__).parent / "fixtures"
END_TO_END: dict[str, dict[str, Any]] = json.loads((FIXTURES / "end_to_end.json").read_text())
ACTS = load_file(FIXTURES / "end_to_end.safetensors")
EVERY = [(model, kind) for model in END_TO_END for kind in ("paper", "ref")]
MADE = Provenance("toy", "f" * 64, {"name": "Autoregressive", "steps": 4, "seed": 0}, (1, 3), prompts="ab", count=1)


@dataclass
class FakeRecording:
    """Batches of three rows, the last rows first: what a resumed recording may look like."""

    phi: np.ndarray
    refused: Any
    provenance: Provenance = MADE

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame({"refused": pd.array(self.refused, dtype="boolean")})

    def phi_batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = np.arange(len(self.phi))[::-1]
        for start in range(0, len(order), 3):
            rows = order[start : start + 3]
            yield rows, self.phi[rows]


def recording(refused: int, answered: int, seed: int = 0, **changes: Any) -> FakeRecording:
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(refused + answered, 4, 2, 8)).astype(np.float32)
    verdicts = rng.permutation([True] * refused + [False] * answered)
    return FakeRecording(phi, verdicts, replace(MADE, **changes))


@pytest.fixture
def anchors() -> Anchors:
    return Anchors.fit(recording(2, 10, seed=1), recording(9, 3, seed=2))


@pytest.mark.parametrize(("model", "kind"), EVERY)
def test_anchors_and_signal_of_the_fixtures_end_to_end(model: str, kind: str) -> None:
    about, acts = END_TO_END[model], ACTS[f"{model}/{kind}/acts"][:, :, None]
    n, m = len(about["harmless_refusal"]), len(about["harmful_refusal"])
    made = replace(MADE, layers=(3,))
    harmless = FakeRecording(acts[:n], about["harmless_refusal"], made)
    harmful = FakeRecording(acts[n : n + m], about["harmful_refusal"], made)
    test = FakeRecording(acts[n + m :], [None] * (len(acts) - n - m), made)
    anchors = Anchors.fit(harmless, harmful, minimum=3)
    np.testing.assert_allclose(anchors.harmless[:, 0], ACTS[f"{model}/{kind}/anchor_harmless"], atol=1e-5)
    np.testing.assert_allclose(anchors.harmful[:, 0], ACTS[f"{model}/{kind}/anchor_harmful"], atol=1e-5)
    for tau in about["taus"]:
        expected = ACTS[f"{model}/{kind}/sigma64_tau{tau}"]
        np.testing.assert_allclose(anchors.signal(test, tau=tau), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["t32_d64", "t1_d8", "t5_d3", "t64_d16", "t16_d128_one_kept", "bf16_t32_d64"])
def test_sums_give_the_anchors_of_the_fixtures(case: str) -> None:
    from safetensors.torch import load_file as load_tensors

    tensors = {name.removeprefix(f"{case}/"): t for name, t in load_tensors(FIXTURES / "signal.safetensors").items()}
    sums = AnchorSums(), AnchorSums()
    for side, name in zip(sums, ("harmless", "harmful"), strict=True):
        refused = tensors[f"{name}_refusal"].bool().numpy()
        side.update(tensors[f"{name}_acts"][:1, :, None].float(), refused[:1])
        side.update(tensors[f"{name}_acts"][1:, :, None].float().numpy(), refused[1:])
    anchors = Anchors.from_sums(*sums, minimum=1)
    wide = "_f32" if case.startswith("bf16") else ""
    np.testing.assert_allclose(anchors.harmless[:, 0], tensors[f"anchor_harmless{wide}"].numpy(), atol=1e-5)
    np.testing.assert_allclose(anchors.harmful[:, 0], tensors[f"anchor_harmful{wide}"].numpy(), atol=1e-5)


def test_fit_keeps_answered_harmless_and_refused_harmful_prompts_and_counts_them(anchors: Anchors) -> None:
    harmless, harmful = recording(2, 10, seed=1), recording(9, 3, seed=2)
    np.testing.assert_allclose(anchors.harmless, harmless.phi[~harmless.refused].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(anchors.harmful, harmful.phi[harmful.refused].mean(axis=0), atol=1e-6)
    assert anchors.layers == (1, 3)
    assert vars(anchors.counts["harmless"]) == {"seen": 12, "refused": 2, "kept": 10}
    assert vars(anchors.counts["harmful"]) == {"seen": 12, "refused": 9, "kept": 9}
    assert anchors.provenance is not None and anchors.provenance.count == 2


def test_verdicts_of_another_judge_replace_those_of_the_table() -> None:
    silent = [None] * 10
    harmless, harmful = replace(recording(0, 10), refused=silent), replace(recording(0, 10, seed=1), refused=silent)
    anchors = Anchors.fit(harmless, harmful, harmless_refused=[False] * 10, harmful_refused=[True] * 9 + [False])
    np.testing.assert_allclose(anchors.harmful, harmful.phi[:9].mean(axis=0), atol=1e-6)


def test_too_few_prompts_left_says_what_was_seen_and_what_to_do() -> None:
    with pytest.raises(InputError) as caught:
        Anchors.fit(recording(1, 99), recording(3, 97))
    message = str(caught.value)
    for part in ("8 a side", "1 of 100 refused (1%), 99 left", "3 of 100 refused (3%), 3 left"):
        assert part in message
    assert "hardly refuses harmful prompts: use more harmful prompts, others, or another model" in message


def test_a_model_that_refuses_everything_is_named_as_such() -> None:
    with pytest.raises(InputError, match="This model answers few harmless prompts: use more harmless prompts"):
        Anchors.fit(recording(12, 0), recording(12, 0))


def test_a_missing_verdict_is_an_error_and_never_a_guess() -> None:
    harmless = recording(0, 10)
    harmless.refused = [False, False, None, *[False] * 7]
    with pytest.raises(
        InputError, match=r"1 of 10 prompts of the harmless recording .* row 2\); give harmless_refused="
    ):
        Anchors.fit(harmless, recording(10, 0))


@pytest.mark.parametrize("verdicts", [[True] * 3, [1.0] * 10, [None] * 10])
def test_verdicts_that_do_not_fit_the_prompts_are_refused(verdicts: list[Any]) -> None:
    with pytest.raises(InputError, match="harmful_refused is"):
        Anchors.fit(recording(0, 10), recording(10, 0), harmful_refused=verdicts)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"fingerprint": "e" * 64, "model": "other"}, "model toy .* against other"),
        ({"sampler": {**MADE.sampler, "steps": 8}}, "sampler steps 4 against 8"),
        ({"layers": (1, 2)}, r"layers \[1, 3\] against \[1, 2\]"),
    ],
)
def test_recordings_made_otherwise_are_not_fitted_together(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ProvenanceError, match=named):
        Anchors.fit(recording(0, 10), recording(10, 0, **changes))


def test_signal_refuses_a_recording_of_another_model_or_sampler(anchors: Anchors) -> None:
    for changes in ({"fingerprint": "e" * 64}, {"sampler": {**MADE.sampler, "name": "MaskedDiffusion"}}):
        with pytest.raises(ProvenanceError, match="the anchors and the recording do not belong together"):
            anchors.signal(recording(1, 1, **changes))


def test_signal_is_in_the_order_of_the_table_and_of_the_highest_layer(anchors: Anchors) -> None:
    test = recording(3, 4, seed=5)
    signal = anchors.signal(test)
    assert isinstance(signal, Signal) and signal.dtype == np.float32
    assert signal.provenance == anchors.describe(MADE, 3) != anchors.describe(MADE, 3, tau=0.05)
    np.testing.assert_array_equal(signal, sri(test.phi[:, :, 1], anchors.harmless[:, 1], anchors.harmful[:, 1]))
    np.testing.assert_array_equal(signal, anchors.score(test.phi))
    np.testing.assert_array_equal(signal, anchors.score(torch.from_numpy(test.phi)).numpy())


def test_signal_finds_its_layer_by_index_in_a_recording_with_others(anchors: Anchors) -> None:
    test = recording(3, 4, seed=5)
    turned = FakeRecording(test.phi[:, :, ::-1], test.refused, replace(MADE, layers=(3, 1)))
    np.testing.assert_array_equal(anchors.signal(turned, layer=1), anchors.signal(test, layer=1))
    only = FakeRecording(test.phi[:, :, :1], test.refused, replace(MADE, layers=(1,)))
    np.testing.assert_array_equal(anchors.signal(only, layer=1), anchors.score(test.phi[:, :, 0], layer=1))
    with pytest.raises(InputError, match=r"holds layers \[1\], not layer 3"):
        anchors.signal(only)
    with pytest.raises(InputError, match=r"anchors hold layers \[1, 3\], not layer 2"):
        anchors.signal(test, layer=2)


def test_a_recording_that_lacks_rows_is_refused(anchors: Anchors) -> None:
    test = recording(3, 4)
    test.refused = [*test.refused, True]
    with pytest.raises(InputError, match=r"no phi for rows \[7\]"):
        anchors.signal(test)
    with pytest.raises(InputError, match="phi of 7 of its 8 prompts"):
        Anchors.fit(recording(0, 10), test)


def test_sums_refuse_what_does_not_fit_and_stay_as_they_were() -> None:
    sums, phi = AnchorSums(), recording(2, 2).phi
    sums.update(phi, [True] * 4)
    before = sums.mean(refused=True)
    bad = phi.copy()
    bad[1, 0, 0, 0] = np.inf
    for wrong, verdicts, message in (
        (phi[:, :3], [True] * 4, "expected one shape"),
        (phi, [True] * 3, "one boolean for each"),
        (phi, [1, 0, 1, 0], "one boolean for each"),
        (phi[:, :, 0], [True] * 4, "expected phi"),
        (bad, [True] * 4, r"rows \[1\] of the batch"),
    ):
        with pytest.raises(InputError, match=message):
            sums.update(wrong, verdicts)
    assert sums.seen == sums.refused == 4
    np.testing.assert_array_equal(sums.mean(refused=True), before)


def test_saved_anchors_come_back_as_they_were(anchors: Anchors, tmp_path: Path) -> None:
    anchors.save(tmp_path / "a.safetensors")
    loaded = Anchors.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(loaded.harmless, anchors.harmless)
    np.testing.assert_array_equal(loaded.harmful, anchors.harmful)
    assert (loaded.layers, loaded.counts, loaded.provenance) == (anchors.layers, anchors.counts, anchors.provenance)
    assert loaded.fingerprint == anchors.fingerprint


def test_the_fingerprint_follows_the_content(anchors: Anchors) -> None:
    moved = anchors.harmful.copy()
    moved[0, 0, 0] = np.nextafter(moved[0, 0, 0], np.float32(9))
    assert replace(anchors, harmful=moved).fingerprint != anchors.fingerprint
    assert replace(anchors, layers=(1, 2)).fingerprint != anchors.fingerprint
    assert replace(anchors, counts={}).fingerprint == anchors.fingerprint


def test_an_anchors_file_whose_parts_do_not_fit_is_named(anchors: Anchors, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    anchors.save(path)
    arrays, header = read_arrays(path, "anchors")
    for changed, about in (
        ({"harmless": arrays["harmless"]}, header),
        (arrays, {"kind": "anchors"}),
        (arrays, {**header, "layers": [1]}),
        ({**arrays, "harmless": arrays["harmless"] * np.nan}, header),
    ):
        write_arrays(path, changed, about)
        with pytest.raises(InputError, match=r"a\.safetensors: its header and arrays do not fit"):
            Anchors.load(path)


def test_a_signal_keeps_its_provenance_through_views_and_loses_it_in_arithmetic() -> None:
    signal = Signal(np.random.default_rng(0).random((4, 3)), MADE)
    for kept in (
        signal[1:],
        signal[:, :2],
        signal[[2, 0]],
        signal[np.array([True, False, True, False])],
        signal.copy(),
    ):
        assert isinstance(kept, Signal) and kept.provenance is MADE
    for dropped in (1 - signal, signal.mean(axis=1), signal.cumsum(axis=1)):
        assert type(dropped) is np.ndarray
    assert type(signal > 0.5) is np.ndarray and (signal > 0.5).dtype == bool
    assert isinstance(signal[0, 0], np.float32) and isinstance(signal.max(), np.float32)


def test_joined_signals_keep_what_they_have_in_common_and_others_are_refused() -> None:
    signal = Signal(np.random.default_rng(0).random((4, 3)), MADE)
    joined = np.concatenate([signal, signal[:2]])
    assert isinstance(joined, Signal) and joined.provenance is MADE and joined.shape == (6, 3)
    more = np.concatenate([signal, Signal(signal, replace(MADE, prompts="others", count=5))])
    assert more.provenance.count == MADE.count + 5 and more.provenance.prompts not in (MADE.prompts, "others")
    assert type(np.concatenate([signal, np.zeros((1, 3), dtype=np.float32)])) is np.ndarray
    assert getattr(np.concatenate([signal, signal], axis=1), "provenance", None) is None
    with pytest.raises(ProvenanceError, match="a signal and another that it is joined to do not belong together"):
        np.concatenate([signal, Signal(signal, replace(MADE, layers=(1,)))])


def test_a_signal_whose_steps_are_chosen_or_turned_round_knows_nothing_of_its_making() -> None:
    signal = Signal(np.random.default_rng(0).random((4, 4)), MADE)
    others = [signal[:, ::-1], signal[:, [0, 2, 1, 3]], signal[:, 1:], signal[..., ::2], signal.T, signal[:, 1]]
    others += [np.flip(signal, 1), np.roll(signal, 1), np.sort(signal), signal.astype(np.float64), signal[None]]
    others += [signal.reshape(2, 8), signal.reshape(8, 2), np.take(signal, [1, 0], axis=1)]
    assert [getattr(one, "provenance", None) for one in others] == [None] * len(others)
    assert signal.provenance is MADE


EDITS: dict[str, Callable[[Signal], Any]] = {
    "a value": lambda signal: signal.__setitem__((0, 0), 0.5),
    "rows of a view": lambda signal: signal[1:].__setitem__(0, 0.5),
    "fill": lambda signal: signal.fill(0.5),
    "sort": lambda signal: signal.sort(),
    "copyto": lambda signal: np.copyto(signal, 0.5),
    "out": lambda signal: np.multiply(signal, 2, out=signal),
    "add.at": lambda signal: np.add.at(signal, 0, 1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_in_place_is_forgotten_by_all_that_share_the_memory_and_by_no_copy(edit: str) -> None:
    signal = Signal(np.random.default_rng(0).random((4, 3)), MADE)
    rows, copied = signal[:3], signal.copy()
    EDITS[edit](signal)
    assert signal.provenance is None and rows.provenance is None
    assert copied.provenance is MADE
    copied[0] = 0.5
    assert copied.provenance is None


def test_arithmetic_in_place_leaves_a_plain_array() -> None:
    signal = Signal([[0.25, 0.5]], MADE)
    np.multiply(signal, 2, out=signal)
    signal *= 2
    assert type(signal) is np.ndarray
    np.testing.assert_array_equal(signal, [[1, 2]])


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copied_or_pickled_signal_knows_what_it_was_made_from(copied: Any) -> None:
    again = copied(Signal([[0.25, 0.5]], MADE))
    assert isinstance(again, Signal) and again.provenance == MADE and again.dtype == np.float32
    np.testing.assert_array_equal(again, [[0.25, 0.5]])


@pytest.mark.parametrize("wrong", ["runs/a", Path("runs/a"), np.zeros((3, 4)), 3])
def test_what_is_no_recording_is_named_with_the_mend(wrong: Any) -> None:
    anchors = Anchors.fit(recording(2, 10), recording(10, 2))
    mend = r"give demur\.Recording\(path\)" if isinstance(wrong, str | Path) else r"give a demur\.Recording"
    for do in (
        lambda: Anchors.fit(wrong, recording(10, 2)),
        lambda: Anchors.fit(recording(2, 10), wrong),
        lambda: anchors.signal(wrong),
    ):
        with pytest.raises(InputError, match=mend):
            do()


def test_swapped_recordings_are_asked_about_and_too_few_prompts_named_as_the_cause() -> None:
    with pytest.raises(InputError, match="100% against 0%; are the two swapped"):
        Anchors.fit(recording(12, 0), recording(0, 12))
    with pytest.raises(InputError, match=r"there are 5 harmless and 5 harmful ones; .*--limit below 8 is too low"):
        Anchors.fit(recording(0, 5), recording(5, 0))


def test_a_handful_of_refusals_among_hundreds_of_prompts_makes_no_anchor() -> None:
    harmless, harmful = recording(2, 300, seed=1), recording(10, 290, seed=2)
    with pytest.raises(InputError, match=r"10 of 300 refused \(3%\), 10 left. This model hardly refuses"):
        Anchors.fit(harmless, harmful)
    assert Anchors.fit(harmless, harmful, least_share=0.02).counts["harmful"].kept == 10
