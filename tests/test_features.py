"""Features: what the signal is computed from before it saturates."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from demur.errors import InputError, ProvenanceError
from demur.signal import Anchors, Signal
from demur.signal.formula import log_ratio, sri_features
from test_anchors import FakeRecording, recording


@pytest.fixture
def anchors() -> Anchors:
    return Anchors.fit(recording(2, 10, seed=1), recording(9, 3, seed=2))


def test_features_are_the_log_ratio_and_the_log_distance_of_every_layer(anchors: Anchors) -> None:
    seen = recording(3, 4, seed=3)
    features = anchors.features(seen)
    assert features.shape == (7, 4, 2, 2) and features.dtype == np.float32
    phi = seen.phi.astype(np.float64)
    for place in range(2):
        mu = anchors.harmless[:, place].astype(np.float64)
        cosine = (phi[:, :, place] * mu).sum(-1) / (
            np.linalg.norm(phi[:, :, place], axis=-1) * np.linalg.norm(mu, axis=-1)
        )
        np.testing.assert_allclose(features[:, :, place, 1], np.log(1 - cosine), atol=1e-5)
        ratio = log_ratio(phi[:, :, place], anchors.harmless[:, place], anchors.harmful[:, place], tau=1.0)
        np.testing.assert_allclose(features[:, :, place, 0], ratio, atol=1e-6)


def test_the_sigmoid_of_the_log_ratio_over_tau_is_the_signal(anchors: Anchors) -> None:
    seen = recording(3, 4, seed=3)
    ratio = np.asarray(anchors.features(seen)[:, :, 1, 0], dtype=np.float64)
    np.testing.assert_allclose(1 / (1 + np.exp(-ratio / 0.1)), anchors.signal(seen), atol=1e-5)


def test_features_of_bare_phi_of_any_kind_and_of_fewer_steps_are_those_of_the_recording(anchors: Anchors) -> None:
    seen = recording(3, 4, seed=3)
    features = np.asarray(anchors.features(seen))
    np.testing.assert_allclose(anchors.features(seen.phi), features, atol=1e-6)
    tensor = anchors.features(torch.from_numpy(seen.phi[:, :2]))
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), features[:, :2], atol=1e-6)


def test_layers_are_chosen_by_index_wherever_they_stand_in_the_recording(anchors: Anchors) -> None:
    seen = recording(3, 4, seed=3)
    swapped = FakeRecording(seen.phi[:, :, ::-1], seen.refused, replace(seen.provenance, layers=(3, 1)))
    np.testing.assert_array_equal(anchors.features(swapped, layers=(1, 3)), anchors.features(seen))
    np.testing.assert_array_equal(anchors.features(seen, layers=[3]), anchors.features(seen)[:, :, 1:])


def test_features_know_what_they_were_made_from_and_are_no_signal(anchors: Anchors) -> None:
    seen = recording(3, 4, seed=3)
    features, sigma = anchors.features(seen), anchors.signal(seen)
    assert isinstance(features, Signal) and features.provenance is not None and sigma.provenance is not None
    assert features.provenance.layers == (1, 3)
    assert (
        len(
            {features.provenance.anchors, sigma.provenance.anchors, anchors.features(seen, eps=1e-6).provenance.anchors}
        )
        == 3
    )
    with pytest.raises(ProvenanceError, match="the anchors and the recording"):
        anchors.features(recording(3, 4, fingerprint="e" * 64))


def test_what_does_not_fit_is_named(anchors: Anchors) -> None:
    with pytest.raises(InputError, match=r"the anchors hold layers \[1, 3\], not layer 2"):
        anchors.features(recording(3, 4), layers=[2])
    lacking = FakeRecording(recording(3, 4).phi[:, :, :1], [True] * 7, replace(recording(3, 4).provenance, layers=(1,)))
    with pytest.raises(InputError, match=r"holds layers \[1\], not layer 3"):
        anchors.features(lacking)
    for shape in ((3, 4, 8), (3, 4, 1, 8), (3, 5, 2, 8)):
        with pytest.raises(InputError, match=r"layers \[1, 3\] and at most the 4 steps"):
            anchors.features(np.ones(shape))
    phi = np.ones((1, 4, 2, 8))
    phi[0, 2, 1, 5] = np.nan
    with pytest.raises(InputError, match="phi holds nan"):
        anchors.features(phi)


def test_one_step_alone_has_the_signal_it_has_in_its_generation(anchors: Anchors) -> None:
    seen = recording(3, 4, seed=3)
    sigma = np.asarray(anchors.signal(seen))
    for step in range(1, 5):
        np.testing.assert_allclose(anchors.score_step(seen.phi[:, step - 1, 1], step), sigma[:, step - 1], atol=1e-7)
    with pytest.raises(InputError, match="step is 5; the anchors have steps 1 to 4"):
        anchors.score_step(seen.phi[:, 0, 1], 5)


def test_features_stay_finite_where_the_signal_is_saturated() -> None:
    anchor = np.eye(2, 4, dtype=np.float32)
    features = sri_features(anchor[None], anchor, -anchor)  # phi is the harmless anchor itself
    assert np.isfinite(features).all() and (features[0, :, 0] > 17).all() and (features[0, :, 1] < -17).all()
