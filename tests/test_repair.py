"""A flagged block is filled in again: what stays, what may not return, what the guard sees, and when it is given up."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import demur
from demur.defenses import generate_guarded
from demur.errors import InputError
from demur.guards import DirectionGuard, StreamingGuard, states_of
from demur.models import Model
from demur.samplers import Autoregressive, BlockDiffusion, MaskedDiffusion, Sampler, Steps

FIXTURES = Path(__file__).parent / "fixtures"
PLACES = tuple(part / 8 for part in range(1, 9))


class Masked(MaskedDiffusion):
    """Remembers what its steps were asked for."""

    def steps(self, *arguments: Any, **options: Any) -> Steps:
        ASKED.append(options)
        return super().steps(*arguments, **options)


class Blocks(BlockDiffusion):
    def steps(self, *arguments: Any, **options: Any) -> Steps:
        ASKED.append(options)
        return super().steps(*arguments, **options)


ASKED: list[dict[str, Any]] = []
SAMPLERS = {
    "masked": (FIXTURES / "llada" / "llada_mha", Masked(8, 16, block_length=8)),
    "block": (FIXTURES / "sdar" / "sdar_gqa", Blocks(response_length=12, block_length=4, stop_ids=[])),
}


class Setting:
    """A tiny model, a sampler, and a streaming guard along a direction in its states that stops often."""

    def __init__(self, folder: Path, sampler: Sampler) -> None:
        self.model: Model = demur.load(folder, device="cpu")
        self.sampler = sampler
        train, held_out, harmful = (
            states_of(self.record(seed, low), PLACES) for seed, low in ((1, 1), (2, 1), (3, 30))
        )
        self.direction = DirectionGuard(places=PLACES).fit(train, harmful=harmful)
        self.guard = StreamingGuard(0.4, side="high").fit(self.direction.place_errors(train))
        self.guard.calibrate(self.direction.place_errors(held_out))
        self.prompts = rows(4, 1, 12) + rows(5, 30, 6)

    def record(self, seed: int, low: int) -> demur.Recording:
        return demur.record(self.model, rows(seed, low, 24), self.sampler, batch_size=24)

    def guarded(self, prompts: list[dict[str, Any]] | None = None, **options: Any) -> pd.DataFrame:
        ASKED.clear()
        asked = self.prompts if prompts is None else prompts
        return generate_guarded(self.model, asked, self.direction, self.guard, self.sampler, **options)


def rows(seed: int, low: int, count: int) -> list[dict[str, Any]]:
    """Prompts of random tokens, of lengths from 3 to 9."""
    draws = np.random.default_rng(seed)
    return [{"token_ids": draws.integers(low, low + 29, int(draws.integers(3, 10))).tolist()} for _ in range(count)]


@pytest.fixture(scope="module", params=list(SAMPLERS))
def given(request: pytest.FixtureRequest) -> Setting:
    return Setting(*SAMPLERS[request.param])


def test_what_is_not_flagged_is_as_ever_and_what_is_repaired_is_not_stopped(given: Setting) -> None:
    plain, repaired = given.guarded(), given.guarded(on_flag="repair", attempts=3)
    flagged = plain["stopped_at"] > 0
    assert 2 < flagged.sum() < len(plain)
    assert (repaired["flagged_at"] == plain["stopped_at"]).all()
    assert (repaired.loc[~flagged, ["stopped_at", "repairs"]] == 0).all(axis=None)
    assert (repaired.loc[~flagged, "tokens"] == plain.loc[~flagged, "tokens"]).all()
    assert (repaired.loc[flagged, "repairs"] > 0).any()
    assert (repaired["stopped_at"] > 0).sum() < flagged.sum()


def test_finished_blocks_stay_and_tokens_of_the_flagged_block_do_not_return(given: Setting) -> None:
    table = given.guarded(on_flag="repair", attempts=2, batch_size=32)
    again = [asked for asked in ASKED if "banned" in asked]
    assert len(again) == table["repairs"].max()
    first = again[0]
    assert len(first["banned"]) == (table["repairs"] > 0).sum()
    for forced, banned in zip(first["prefill"], first["banned"], strict=True):
        taken = (banned >= 0).any(dim=1).nonzero().squeeze(1)
        kept = (forced >= 0).nonzero().squeeze(1)
        assert len(taken) and (len(kept) == 0 or kept.max() < taken.min())
    # with the tokens banned the sampler does not predict them at their places
    row = {"token_ids": given.prompts[int(np.argmax(table["repairs"]))]["token_ids"]}
    ids = torch.tensor([row["token_ids"]])
    plain = list(given.sampler.steps(given.model, ids))[-1].committed
    banned = plain[:, :, None].clone()
    other = list(given.sampler.steps(given.model, ids, banned=banned))[-1]
    assert other.is_committed.any() and not (other.is_committed & (other.committed == plain)).any()


def test_a_generation_is_given_up_after_its_attempts(given: Setting) -> None:
    strict = StreamingGuard(0.4, side="high").fit(np.zeros((30, 8)) + np.linspace(0, 1e-6, 30)[:, None] - 50)
    strict.calibrate(np.zeros((30, 8)) - 50 + np.linspace(0, 1e-6, 30)[:, None])
    strict.provenance_ = given.guard.provenance_
    one = given.prompts[:2]
    for attempts in (1, 2):
        table = generate_guarded(
            given.model, one, given.direction, strict, given.sampler, on_flag="repair", attempts=attempts
        )
        assert (table["repairs"] == attempts).all() and (table["stopped_at"] > 0).all()


def test_a_batch_gives_what_its_rows_give_alone(given: Setting) -> None:
    together = given.guarded(on_flag="repair", batch_size=32)
    alone = pd.concat([given.guarded([one], on_flag="repair") for one in given.prompts], ignore_index=True)
    columns = ["stopped_at", "flagged_at", "repairs", "tokens"]
    assert together[columns].equals(alone[columns])


def test_the_block_of_a_step_by_hand() -> None:
    whole, halves = MaskedDiffusion(8, 16), MaskedDiffusion(8, 16, block_length=8)
    assert whole.block_at(7, 5) == (1, range(16))
    assert [halves.block_at(step, 5) for step in (1, 4)] == [(1, range(8))] * 2
    assert [halves.block_at(step, 5) for step in (5, 8)] == [(5, range(8, 16))] * 2
    blocks = BlockDiffusion(response_length=12, block_length=4)  # four blocks at most, four steps each
    assert [blocks.block_at(step, 6) for step in (1, 4)] == [(1, range(2))] * 2
    assert [blocks.block_at(step, 6) for step in (5, 13)] == [(5, range(2, 6)), (13, range(10, 14))]
    assert blocks.block_at(5, 8) == (5, range(4, 8))


def test_a_sampler_without_blocks_and_wrong_arguments_are_refused(given: Setting) -> None:
    with pytest.raises(InputError, match="Autoregressive cannot fill in a block again"):
        Autoregressive(8).block_at(1, 4)
    with pytest.raises(InputError, match="has no share of the steps"):
        MaskedDiffusion(8, 16, block_length=8, schedule="dynamic").block_at(1, 4)
    with pytest.raises(InputError, match="attempts"):
        given.guarded(on_flag="repair", attempts=0)
