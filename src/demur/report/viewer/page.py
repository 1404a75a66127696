"""`write_viewer`: one HTML file that plays the generations of a run step by step.

In: the folder of a run. Out: a file that loads nothing and runs no script but its own. Unless text is asked for, the
file holds neither prompts nor tokens, only how the positions of each response came about.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from demur.report.parts.groups import name_of
from demur.report.parts.labels import visible
from demur.report.parts.linked import write_page
from demur.report.parts.sample import sampled
from demur.report.study.page import environment, short_name
from demur.report.viewer.packing import Codes, Track, pack
from demur.report.viewer.played import Played, group_of, read_played

HERE = Path(__file__).parent
SCRIPTS = tuple(f"viewer{part}.js" for part in ("_data", "_chart", "_whole", "_list", "_address", ""))
STYLES = ("../parts/look.css", "viewer.css")
MOST_BYTES = 25_000_000
"""Of the whole file, which browsers open at once and mail still takes."""
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""What could end a script element or a line of it; JSON may spell every character this way."""


def write_viewer(run: str | Path, path: str | Path, *, show_text: bool = False) -> Path:
    """Write the viewer of a study or a recording to `path` as one self-contained HTML file, and return the path.

    show_text : put prompts, answers and tokens into the file, where a button reveals them; else they are not in it.
    """
    path = Path(path)
    page = viewer_page(read_played(run), show_text=show_text)
    write_page(path, page, also=[Path(run)])
    return path


def viewer_page(played: Played, *, show_text: bool = False) -> str:
    """The page of the viewer, with a sample of the generations where all would make more than `MOST_BYTES`."""
    page = _page(played, show_text)
    while (size := len(page.encode())) > MOST_BYTES and len(played.generations) > 1:
        most = max(1, int(0.97 * len(played.generations) * MOST_BYTES / size))
        played = played.only(sampled(group_of(played.generations), most))
        page = _page(played, show_text)
    return page


def _page(played: Played, show_text: bool) -> str:
    tracks = played.tracks
    codes = _codes(played, tracks, show_text)
    packed = pack(tracks, played.signals, played.text_signals, codes, revises=played.revises)
    script, style = _source(SCRIPTS), _source(STYLES)
    return (
        environment()
        .get_template("viewer/viewer.html")
        .render(
            model=short_name(played.model),
            sampler=played.sampler,
            generations=len(tracks),
            total=played.total,
            steps=played.steps,
            positions=len(tracks[0].committed_at),
            revises=played.revises,
            edits=any(track.edits for track in tracks),
            blank=_blank(played),
            thinks=any(played.thoughts),
            show_text=show_text,
            script=Markup(script),
            style=Markup(style),
            script_hash=_hash(script),
            style_hash=_hash(style),
            run=_json(_facts(played, tracks, codes) | {"offsets": packed.offsets}),
            records=Markup(packed.text),
            words=_json(_words(played, codes)) if show_text else None,
        )
    )


def _codes(played: Played, tracks: list[Track], show_text: bool) -> Codes:
    known = np.unique(np.concatenate([track.tokens for track in tracks])) if show_text else None
    return Codes(ends=played.eos_token_ids, blanks=played.blank_tokens(), tokens=known)


def _blank(played: Played) -> str:
    """What a position without a token is called."""
    from demur.models import FAMILIES
    from demur.samplers import SAMPLERS

    sampler = SAMPLERS.get(played.sampler)
    return "masked" if sampler and FAMILIES[sampler.family].has_masks else "not generated"


def _facts(played: Played, tracks: list[Track], codes: Codes) -> dict[str, Any]:
    """All that the script has to know beside the records and the words."""
    rows = played.generations
    falls = _falls(played.signals)
    return {
        "steps": played.steps,
        "response": len(tracks[0].committed_at),
        "revises": played.revises,
        "blank": _blank(played),
        "width": codes.width,
        "ends": codes.end_codes,
        "blanks": codes.blank_codes,
        "thoughts": {place: found for place, found in enumerate(played.thoughts) if found},
        "references": None if played.references is None else played.references.astype(float).round(4).tolist(),
        "limit": played.limit,
        "ids": [visible(one) for one in rows["id"]],
        "sets": _column(rows["set"]),
        "groups": _column(rows["group"].map(name_of, na_action="ignore")),
        "attacks": _column(rows["attack"]),
        "refused": [_verdict(one) for one in rows["refused"]],
        "flagged": [_verdict(one) for one in rows["flagged"]],
        "falls": falls.round(4).tolist(),
        "telling": int(falls.argmax()) if len(falls) else 0,
        "errors": [float(f"{one:.4g}") if np.isfinite(one) else None for one in rows["guard_error"].astype(float)],
    }


def _falls(signals: np.ndarray) -> np.ndarray:
    """How far the signal of each generation fell after any step, ``[generations]``; 0 where it never did."""
    known = np.where(np.isnan(signals), -np.inf, signals)
    fallen = np.maximum.accumulate(known, axis=1) - signals
    furthest: np.ndarray = np.nan_to_num(fallen, nan=0.0, neginf=0.0, posinf=0.0).astype(float).max(axis=1, initial=0.0)
    return furthest


def _column(values: pd.Series[Any]) -> dict[str, Any]:
    """A column as its distinct names, and for each row the number of its name; -1 where it has none."""
    numbers, names = pd.factorize(values)
    return {"names": [visible(name) for name in names], "of": numbers.tolist()}


def _verdict(value: Any) -> bool | None:
    return None if pd.isna(value) else bool(value)


def _words(played: Played, codes: Codes) -> dict[str, list[str]]:
    """The text of every code, prompt and answer."""
    assert codes.tokens is not None  # a file with text has a code for every token
    rows = played.generations
    return {
        "tokens": [visible(played.recordings[0].token_text(int(token))) for token in codes.tokens],
        "prompts": ["" if pd.isna(one) else visible(one) for one in rows["prompt"]],
        "answers": ["" if pd.isna(one) else visible(one) for one in rows["text"]],
    }


def _json(value: Any) -> Markup:
    return Markup(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(UNSAFE))


def _source(names: tuple[str, ...]) -> str:
    return "".join((HERE / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    """The name by which a content security policy allows `text`."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
