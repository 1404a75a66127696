"""Text with gaps: what stands between two known words is never taken for nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from demur import refused
from demur.judges import REFUSAL_DICTIONARY
from demur.recording import Recording
from demur.recording import folder as files
from demur.recording.gaps import GAP, text_with_gaps
from demur.studies.study.derivers import text_signals
from made_up import MASK, write_recording

WORDS = ["<end>", "<mask>", "i", "surely", "cannot", "wait", "sorry"]
END, ONE, SURELY, CANNOT, WAIT, SORRY = 0, 2, 3, 4, 5, 6


def decode(tokens: Sequence[int]) -> str:
    return " ".join(WORDS[token] for token in tokens)


def text(tokens: list[int], known: list[int]) -> str:
    return text_with_gaps(decode, np.array(tokens), np.array(known, dtype=bool), [END])


def test_only_runs_of_known_tokens_are_read_together() -> None:
    assert text([ONE, CANNOT, WAIT], [1, 1, 1]) == "i cannot wait"
    assert text([ONE, SURELY, CANNOT, WAIT], [1, 0, 1, 1]) == f"i{GAP}cannot wait"
    assert text([ONE, SURELY, SURELY, WAIT], [0, 1, 0, 1]) == f"surely{GAP}wait"
    assert text([ONE], [0]) == text([], []) == ""


def test_the_text_ends_at_the_first_known_end_however_many_gaps_are_before_it() -> None:
    assert text([ONE, SURELY, WAIT, END, SORRY], [1, 0, 1, 1, 1]) == f"i{GAP}wait"
    assert text([ONE, END, CANNOT, END], [1, 0, 1, 1]) == f"i{GAP}cannot"
    assert text([END, ONE], [1, 1]) == ""


def test_an_opening_that_every_decoding_begins_with_stands_once() -> None:
    found = text_with_gaps(
        lambda tokens: "<think>" + decode(tokens), np.array([2, 3, 4]), np.array([1, 0, 1]) > 0, [END]
    )
    assert found == f"<think>i{GAP}cannot"


@pytest.mark.parametrize("entry", [entry for entry in REFUSAL_DICTIONARY if " " in entry])
def test_no_entry_of_the_dictionary_reaches_across_a_gap(entry: str) -> None:
    words = entry.split()
    assert refused(entry)
    for place in range(1, len(words)):
        parts = [" ".join(words[:place]), " ".join(words[place:])]
        if not any(map(refused, parts)):
            assert not refused(f"{parts[0]}{GAP}{parts[1]}")
            assert not refused(f"{parts[0]} {GAP} {parts[1]}")


@pytest.fixture
def canvas(tmp_path: Path) -> Recording:
    """One generation that ends as "i surely cannot wait", whose first and third words are committed first."""
    write_recording(tmp_path, 1, steps=3, response=4, words=WORDS)
    final = [ONE, SURELY, CANNOT, WAIT]
    # The last two positions lie in a block that is not reached at the first step: there the mask is predicted.
    predicted = [[ONE, MASK, CANNOT, MASK], [ONE, SORRY, CANNOT, WAIT], final]
    arrays = {
        "rows": np.array([0]),
        "tokens": np.array([final], dtype=np.int32),
        "committed_at": np.array([[1, 3, 1, 3]], dtype=np.int16),
        "predicted": np.array([predicted], dtype=np.int32),
        "phi": np.zeros((1, 3, 1, 2), dtype=np.float32),
    }
    manifest, table = files.read_manifest(tmp_path), files.read_shard_table(tmp_path, 0)
    files.write_shard(tmp_path, 0, arrays, table)
    files.write_table(tmp_path, table)
    files.write_manifest(tmp_path, {**manifest, "mask_token_id": MASK})
    return Recording(tmp_path)


def test_committed_and_predicted_texts_of_a_canvas_show_their_gaps(canvas: Recording) -> None:
    first, second, last = canvas.steps_text(0)
    gapped = ("i", "cannot")
    assert [text.committed.replace(" ", "") for text in (first, second)] == [GAP.join(gapped)] * 2
    assert first.predicted.replace(" ", "") == GAP.join(gapped)
    assert second.predicted == "i sorry cannot wait"
    assert last == ("i surely cannot wait",) * 2


def test_a_refusal_is_not_read_across_a_gap_of_the_canvas(canvas: Recording) -> None:
    assert text_signals(canvas).tolist() == [[1, 1, 1]]
