"""`Recording`: what was recorded, read back from its folder.

In: a folder that `record` has completed. Out: the table, phi or sigma, and the text of any step. Arrays are
read from the shards when asked for, so opening a recording costs what its table costs, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from demur.errors import InputError
from demur.files.seals import allow_unverified as allowing
from demur.files.staging import found
from demur.files.writing import disk_errors
from demur.looks import Looks
from demur.notebook import facts, sampler_words
from demur.provenance import Provenance
from demur.recording import folder as files
from demur.recording.compaction import counting
from demur.recording.gaps import text_with_gaps
from demur.recording.looked import both_means, looks_made
from demur.recording.proof import made_from, prove, require_belonging
from demur.signal import Signal
from demur.thought import MARKS, answer_of

if TYPE_CHECKING:
    import pandas as pd


class StepText(NamedTuple):
    """The text at one step: of the committed tokens, and of all predicted ones; gaps in it are `GAP`."""

    committed: str
    predicted: str

    @property
    def is_thought(self) -> bool:
        """Whether the predicted text holds no answer yet, a thought only."""
        return bool(self.predicted.strip()) and not answer_of(self.predicted).strip()


class StepTokens(NamedTuple):
    """Token ids at every step, int32 ``[steps, response]``; `is_committed` tells which are final."""

    predicted: np.ndarray
    is_committed: np.ndarray


class Recording:
    """A completed recording.

    allow_unverified : open recordings of demur 0.1 too, whose tables carry no hash.
    path : its folder. provenance : what it was made from. keep : "phi", "signal" or "looks". looks : the steps at which
        states are kept and the window, of a recording that keeps looks; else None. content : a hash of its table and
        of all shards, empty for recordings of demur 0.1.
    table : a row a prompt in the order of the prompt set, with the columns id, prompt, label, attack, goal,
        category, group, text, refused, tokens, prompt_tokens, seconds.
    """

    def __init__(self, path: str | Path, *, allow_unverified: bool = False) -> None:
        self.path = Path(path)
        with allowing(allow_unverified):
            self.manifest = files.read_manifest(self.path)
            self.provenance = made_from(self.path, self.manifest)
            if not self.manifest["complete"]:
                done = sum(len(files.read_shard_table(self.path, n)) for n in counting(self.path))
                raise InputError(
                    f"{self.path}: holds {done} of {self.provenance.count} prompts; "
                    f"run the command that began it once more, and it goes on from there"
                )
            self._whole_table, self._marks, self.content = prove(self.path, self.manifest, self.provenance.count)
        self.keep: str = self.manifest["keep"]
        self.looks = self._looks() if self.keep == "looks" else None
        self._temporary: Any = None  # keeps a temporary folder alive as long as the recording is

    def __len__(self) -> int:
        return self.provenance.count

    def __repr__(self) -> str:
        return f"Recording({str(self.path)!r}, prompts={len(self)}, steps={self.steps}, layers={list(self.layers)})"

    def _repr_html_(self) -> str:
        made, verdicts = self.provenance, self._whole_table["refused"].dropna()
        sizes = {
            "prompts": len(self),
            "refused": f"{int(verdicts.sum())} of {len(verdicts)}",
            "layers": list(self.layers),
        }
        made_by = {"model": made.model, "sampler": sampler_words(made.sampler)}
        return facts(f"Recording {self.path}", {**made_by, **sizes, "keeps": self.keep})

    @property
    def layers(self) -> tuple[int, ...]:
        """Indices of the recorded layers, in the order of phi's third axis."""
        return self.provenance.layers

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return int(self.provenance.sampler["steps"])

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a prompt; see the class."""
        return self._whole_table.drop(columns=["row", "shard"])

    @property
    def phi(self) -> np.ndarray:
        """Pooled states, float32 ``[prompts, steps, layers, width]``; all in memory at once."""
        return self._gather(self.phi_batches())

    @property
    def sigma(self) -> Signal:
        """The stored signal, float32 ``[prompts, steps]``, of a recording that keeps it in place of phi."""
        values = self._gather((arrays["rows"], self.kept_in(arrays, "sigma")) for arrays in self.shards())
        return Signal(values, Provenance.from_dict(self.manifest["signal"]))

    def phi_batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of rows int64 ``[n]`` and their phi ``[n, steps, layers, width]``, a shard at a time."""
        for arrays in self.shards():
            yield arrays["rows"], self.kept_in(arrays, "phi")

    @property
    def look_states(self) -> np.ndarray:
        """States at the looks, float32 ``[prompts, looks, means, layers, width]``; see `look_batches`."""
        return self._gather((rows, states) for rows, states, _ in self.look_batches())

    @property
    def looks_made(self) -> np.ndarray:
        """How many looks each answer has, int64 ``[prompts]``; at later ones its states stay as they are."""
        return self._gather((rows, made) for rows, _, made in self.look_batches())

    def look_batches(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Rows int64 ``[n]``, their states and how many looks they have, a shard at a time.

        states : float32 ``[n, looks, means, layers, width]``; the means are over all tokens so far and, where the
        response is longer than the window, over the latest ones. At look 0 both are the last prompt token's state.
        """
        for arrays in self.shards():
            yield arrays["rows"], *self.looked_at(arrays)

    def looked_at(self, arrays: files.Arrays) -> tuple[np.ndarray, np.ndarray]:
        """The states of a shard at the looks, and how many looks its answers have; see `look_batches`."""
        if self.looks is None:
            raise InputError(f"{self.path}: keeps {self.keep}, not the looks; record with keep='looks' to have them")
        return both_means(arrays), looks_made(arrays, self.looks, revises=self.manifest["revises"])

    def _looks(self) -> Looks:
        kept = self.manifest.get("looks") or {}
        try:
            steps = tuple(int(step) for step in kept["steps"])
            return Looks(steps, kept["window"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.path}: is damaged (it does not say its looks); record it again") from error

    def steps_tokens(self, prompt: int) -> StepTokens:
        """The token ids of prompt number `prompt` at every step."""
        place = self._whole_table.iloc[prompt]
        arrays = self._shard(int(place["shard"]))
        at = int(np.flatnonzero(arrays["rows"] == place["row"])[0])
        return self.tokens_of(arrays, at)

    def steps_text(self, prompt: int) -> list[StepText]:
        """The text at each step of prompt number `prompt`: committed, and predicted.

        Raises `InputError` where the model had no tokenizer.
        """
        return self.texts_of(self.steps_tokens(prompt))

    def all_steps_tokens(self) -> Iterator[tuple[int, StepTokens]]:
        """Pairs of a prompt's number and its `steps_tokens`, reading every shard once; in the shards' order."""
        for arrays in self.shards():
            for at, row in enumerate(arrays["rows"]):
                yield int(row), self.tokens_of(arrays, at)

    def all_steps_text(self) -> Iterator[tuple[int, list[StepText]]]:
        """Pairs of a prompt's number and its `steps_text`, reading every shard once; in the shards' order."""
        for row, tokens in self.all_steps_tokens():
            yield row, self.texts_of(tokens)

    def token_text(self, token: int) -> str:
        """The text of one token by itself, special tokens by their name; `InputError` without a tokenizer."""
        return str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def tokens_of(self, arrays: files.Arrays, at: int) -> StepTokens:
        """The token ids at every step of row `at` of a shard."""
        committed_at = arrays["committed_at"][at]
        is_committed = (committed_at > 0) & (committed_at <= np.arange(1, self.steps + 1)[:, None])
        if "predicted" in arrays:
            return StepTokens(arrays["predicted"][at], is_committed)
        if self.manifest["revises"]:
            raise InputError(f"{self.path}: keeps {self.keep} only, not the predictions of each step; keep='phi' does")
        return StepTokens(np.broadcast_to(arrays["tokens"][at], is_committed.shape), is_committed)

    def texts_of(self, tokens: StepTokens) -> list[StepText]:
        """The text of every step."""
        seen: dict[bytes, str] = {}  # of steps that are alike, as those behind an early end are, one text

        def text(row: np.ndarray, known: np.ndarray) -> str:
            key = row[known].tobytes() + known.tobytes()
            if key not in seen:
                seen[key] = self._text(row, known)
            return seen[key]

        committed = [text(row, known) for row, known in zip(*tokens, strict=True)]
        if not self.manifest["revises"]:
            return [StepText(text, text) for text in committed]
        # A position that a block has not reached yet is predicted as the mask itself: it is a gap too.
        mask = self.manifest.get("mask_token_id", self.tokenizer.mask_token_id)
        guessed = tokens.is_committed | (tokens.predicted != (-1 if mask is None else mask))
        predicted = [text(row, known) for row, known in zip(tokens.predicted, guessed, strict=True)]
        return [StepText(*texts) for texts in zip(committed, predicted, strict=True)]

    def thought_positions(self, tokens: StepTokens) -> np.ndarray:
        """Which positions of the last step are thought and not answer, bool ``[response]``."""
        from demur.models.decoding import thought_tokens

        predicted = tokens.predicted[-1]
        thought = np.zeros(len(predicted), dtype=bool)
        if not any(mark in self._text(predicted, ~thought) for mark in MARKS):
            return thought
        ended = np.isin(predicted, self.manifest["eos_token_ids"]).cumsum() > 0
        said = predicted[~ended].tolist()
        thought[: len(said)] = thought_tokens(self.tokenizer, said, str(self.manifest.get("opening", "")))
        return thought

    def _text(self, tokens: np.ndarray, known: np.ndarray) -> str:
        from demur.models import decode_response

        ends = self.manifest["eos_token_ids"]
        text = text_with_gaps(lambda run: decode_response(self.tokenizer, run, ends), tokens, known, ends)
        return str(self.manifest.get("opening", "")) + text

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the model, kept beside the tokens; `InputError` where it had none."""
        folder = found(self.path, files.TOKENIZER)
        if not folder.is_dir():
            raise InputError(f"{self.path}: was recorded without a tokenizer, so there is no text; use steps_tokens")
        from demur.models.tokenizer_files import read_tokenizer

        with disk_errors(folder):
            self._require_tokenizer()
            return read_tokenizer(folder)

    def _require_tokenizer(self) -> None:
        """Raise `InputError` where the files of the tokenizer are not those that were kept."""
        kept = self.manifest.get("tokenizer")
        if kept is None:  # of version 0.1, whose manifest was read unverified
            return
        there = files.tokenizer_hashes(self.path)
        if wrong := sorted(name for name in {*kept, *there} if kept.get(name) != there.get(name)):
            raise InputError(
                f"{self.path / files.TOKENIZER / wrong[0]}: is missing, damaged or not the recording's; "
                f"move it away and record again"
            )

    def kept_in(self, arrays: files.Arrays, name: str) -> np.ndarray:
        """The "phi" or the "sigma" of a shard; `InputError` where the recording keeps the other."""
        keep = "phi" if name == "phi" else "signal"
        if self.keep == "looks":
            raise InputError(
                f"{self.path}: keeps the states of {len(self.looks or ())} looks, not {name} at every step; record "
                f"with keep={keep!r} to have it, or read look_states"
            )
        if self.keep != keep:
            raise InputError(f"{self.path}: keeps {self.keep} only, not {name}; record with keep={keep!r} to have it")
        return arrays[name]

    def shards(self) -> Iterator[files.Arrays]:
        """Every shard; together they hold each row of the table once."""
        return (arrays for _, arrays in self.numbered_shards())

    def numbered_shards(self) -> Iterator[tuple[int, files.Arrays]]:
        """Every shard with its number."""
        return ((number, self._shard(number)) for number in self._marks)

    def _shard(self, number: int) -> files.Arrays:
        """The arrays of a shard, held against its hash and the rows that the table gives it."""
        arrays = files.read_shard_arrays(self.path, number, self._marks[number])
        rows = np.asarray(self._rows_of[number])
        path = self.path / files.SHARDS / f"{number:06d}.safetensors"
        require_belonging(path, arrays, rows, self.steps, len(self.layers), len(self.looks) if self.looks else None)
        return arrays

    @cached_property
    def _rows_of(self) -> dict[Any, np.ndarray]:
        """The rows of every shard, by its number."""
        return {number: np.asarray(rows) for number, rows in self._whole_table.groupby("shard").indices.items()}

    def _gather(self, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        whole, is_filled = np.zeros(0), np.zeros(len(self), dtype=bool)
        for rows, values in parts:
            if not is_filled.any():
                whole = np.zeros((len(self), *values.shape[1:]), values.dtype)
            whole[rows], is_filled[rows] = values, True
        if not is_filled.all():
            raise InputError(f"{self.path}: holds nothing for row {int(np.argmin(is_filled))}; record it again")
        return whole
