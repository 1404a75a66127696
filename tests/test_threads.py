"""Hidden states belong to the call that made them: threads, generators and processes that share a network."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import demur
from demur.errors import InputError
from demur.models import Model, load
from demur.samplers import Autoregressive, MaskedDiffusion, Sampler

FIXTURES = Path(__file__).parent / "fixtures"
CASES = [("ar/llama_gqa", Autoregressive(4)), ("llada/llada_mha", MaskedDiffusion(4, 8))]


def prompts(count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, 100, size=rng.integers(1, 12)).tolist() for _ in range(count)]


def phi(model: Model, sampler: Sampler, ids: list[int]) -> np.ndarray:
    steps = sampler.steps(model, torch.tensor([ids]), layers=("first", "last"))
    return torch.stack([step.phi[0] for step in steps]).numpy()


@pytest.mark.parametrize(("name", "sampler"), CASES)
def test_two_hundred_requests_of_eight_threads_give_what_each_gives_alone(name: str, sampler: Sampler) -> None:
    model = load(FIXTURES / name, device="cpu")
    requests = prompts(20) * 10
    alone = [phi(model, sampler, ids) for ids in requests[:20]] * 10
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda ids: phi(model, sampler, ids), requests))
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(("name", "sampler"), CASES)
def test_generators_taken_in_turns_give_what_each_gives_alone(name: str, sampler: Sampler) -> None:
    model = load(FIXTURES / name, device="cpu")
    several = prompts(3)
    alone = [phi(model, sampler, ids) for ids in several]
    running = [sampler.steps(model, torch.tensor([ids]), layers=("first", "last")) for ids in several]
    found = [[step.phi[0].numpy() for step in steps] for steps in zip(*running, strict=True)]
    np.testing.assert_allclose(found, np.stack(alone, axis=1), atol=1e-5)


def test_states_of_an_inner_call_are_not_those_of_the_outer() -> None:
    model = load(FIXTURES / "ar" / "llama_gqa", device="cpu")
    with torch.no_grad(), model.states([1]) as outer:
        model.network(torch.tensor([[5, 6, 7]]))
        seen = outer[0]
        phi(model, Autoregressive(2), [8, 9])
    assert outer[0] is seen and not model.decoder._forward_hooks


def test_recordings_made_in_threads_are_those_made_one_after_another() -> None:
    model = load(FIXTURES / "ar" / "llama_gqa", device="cpu")
    sets = [[{"token_ids": ids} for ids in prompts(12)[place::4]] for place in range(4)]
    alone = [demur.record(model, rows, steps=4, progress=False).phi for rows in sets]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda rows: demur.record(model, rows, steps=4, progress=False).phi, sets))
    for one, both in zip(alone, together, strict=True):
        np.testing.assert_allclose(both, one, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_works_or_is_refused_and_never_hangs(threads: int) -> None:
    model = load(FIXTURES / "ar" / "llama_gqa", device="cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expected = phi(model, Autoregressive(2), [5, 6, 7])
        child = os.fork()
        if child == 0:
            code = 9
            try:
                same = np.allclose(phi(model, Autoregressive(2), [5, 6, 7]), expected, atol=1e-5)
                code = 1 if same else 8
            except InputError as error:
                code = 2 if "spawn" in str(error) else 7
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
    finally:
        torch.set_num_threads(before)
    assert os.waitstatus_to_exitcode(status) == threads
