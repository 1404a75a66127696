"""Anchors and guards are shared as folders and on the Hub, here one on loopback, and read back only as they were."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from demur import Anchors
from demur.errors import InputError
from demur.files.manifests import read_manifest, write_manifest
from demur.guards import DirectionGuard, Guard, LinearGuard, ProbeGuard, SRIGuard, StreamingGuard, load_guard
from demur.provenance import Provenance
from demur.serve import load_guards
from demur.signal import Signal
from demur.signal.sums import AnchorCount
from fake_hub import FakeHub

RNG = np.random.default_rng(0)
MADE = Provenance(
    "owner/tiny", "f" * 64, {"name": "Autoregressive", "steps": 8}, (2, 4), {}, "p", 300, {"demur": "0.1.0"}
)
PLACES = (0.5, 1.0)
MEASURED = {"plain": (1, 64), "sounding dangerous": (3, 32)}


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    sides = RNG.normal(size=(2, 8, 2, 4)).astype(np.float32)
    counts = {side: AnchorCount(40, 20, 20) for side in ("harmless", "harmful")}
    return Anchors(sides[0], sides[1], (2, 4), counts, MADE)


@pytest.fixture(scope="module")
def direction() -> DirectionGuard:
    states = RNG.normal(size=(600, 2, 2, 4)).astype(np.float32)
    states[300:, ..., 0] += 2
    made = replace(MADE, anchors=f"states at {PLACES}")
    y = np.repeat([0, 1], 300)
    return DirectionGuard(places=PLACES).fit(Signal(states, made), y, calibration=Signal(states[:200], made))


@pytest.fixture(scope="module")
def stream(direction: DirectionGuard) -> StreamingGuard:
    states = RNG.normal(size=(500, 2, 2, 4)).astype(np.float32)
    looked = direction.place_errors(Signal(states, replace(MADE, anchors=f"states at {PLACES}")))
    watched = Signal(np.asarray(looked), direction.describe(MADE))
    held_out = Signal(np.asarray(watched)[300:], watched.provenance)
    return StreamingGuard(0.05, side="high").fit(
        Signal(np.asarray(watched)[:300], watched.provenance), calibration=held_out
    )


def test_a_guard_and_what_it_watches_come_back_from_a_folder(
    stream: StreamingGuard, direction: DirectionGuard, tmp_path: Path
) -> None:
    stream.save_pretrained(tmp_path, source=direction, measured=MEASURED)
    assert {path.name for path in tmp_path.iterdir()} == {
        "demur.json",
        "README.md",
        "streaming-guard.safetensors",
        "direction-guard.safetensors",
    }
    values = RNG.normal(size=(9, 2))
    for back in (StreamingGuard.from_pretrained(tmp_path), load_guard(tmp_path), Guard.from_pretrained(tmp_path)):
        assert isinstance(back, StreamingGuard)
        assert np.array_equal(back.step_scores(values), stream.step_scores(values))
        assert back.provenance_ == stream.provenance_
    assert DirectionGuard.from_pretrained(tmp_path).fingerprint == direction.fingerprint
    assert LinearGuard.from_pretrained(tmp_path).fingerprint == direction.fingerprint
    assert load_guard(tmp_path / "direction-guard.safetensors").summary() == direction.summary()
    with pytest.raises(InputError, match=r"holds streaming-guard and direction-guard; SRIGuard reads sri-guard"):
        SRIGuard.from_pretrained(tmp_path)
    assert "_hub_mixin_config" not in vars(stream) and clone(stream).get_params() == stream.get_params()


def test_anchors_come_back_from_a_folder(anchors: Anchors, tmp_path: Path) -> None:
    anchors.save_pretrained(tmp_path / "a")
    back = Anchors.from_pretrained(tmp_path / "a")
    assert back.fingerprint == anchors.fingerprint and back.provenance == MADE and back.counts == anchors.counts
    card = (tmp_path / "a" / "README.md").read_text()
    assert "# Anchors for owner/tiny" in card and "20 of 40 refused (50%), 20 left" in card
    assert "promises" not in card
    with pytest.raises(InputError, match="holds anchors; Guard reads"):
        load_guard(tmp_path / "a")


def test_the_card_says_what_the_guard_is_worth(
    stream: StreamingGuard, direction: DirectionGuard, tmp_path: Path
) -> None:
    stream.save_pretrained(tmp_path, source=direction, measured=MEASURED, license="apache-2.0")
    card = (tmp_path / "README.md").read_text()
    for said in (
        "base_model: owner/tiny",
        "library_name: demur",
        "license: apache-2.0",
        "fitted = demur.StreamingGuard.from_pretrained",
        "source = demur.DirectionGuard.from_pretrained",
        "At most 0.05 of further harmless generations",
        "set on 200 held-out harmless generations",
        f"between {stream.false_positive_low_:.2%} and {stream.false_positive_high_:.2%}",
        "| plain | 1 | 64 | 1.6% | 0.3% to 8.3% |",
        "| sounding dangerous | 3 | 32 | 9.4% | 3.2% to 24.2% |",
    ):
        assert said in card, said
    stream.save_pretrained(tmp_path)
    assert "None were given" in (tmp_path / "README.md").read_text()


def test_names_cannot_break_the_card(anchors: Anchors, tmp_path: Path) -> None:
    hostile = replace(MADE, model="x\n---\n# ![a](b) | <script>`")
    replace(anchors, provenance=hostile).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "\n# ![a]" not in card and "<script>" not in card


def test_measured_rates_come_from_the_rows_of_the_guard(stream: StreamingGuard, tmp_path: Path) -> None:
    detectors = ["ProbeGuard", "StreamingGuard on the probe"]
    table = pd.DataFrame({"detector": detectors, "kind": "plain", "hits": [9, 2], "count": 64})
    stream.save_pretrained(tmp_path, measured=table)
    assert [(row["hits"], row["count"]) for row in read_manifest(tmp_path / "demur.json")["measured"]] == [(2, 64)]
    for wrong, said in (
        (table.assign(detector=["A", "B"]), "the table is of A, B"),
        (table.drop(columns="hits"), "no column 'hits'"),
        ({"plain": (3, 2)}, "3 flagged of 2"),
        ({"plain": (0, 0)}, "0 flagged of 0"),
    ):
        with pytest.raises(InputError, match=said):
            stream.save_pretrained(tmp_path / "none", measured=wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_a_source_that_is_not_watched_is_refused(
    stream: StreamingGuard, direction: DirectionGuard, anchors: Anchors, tmp_path: Path
) -> None:
    for guard, source in ((stream, anchors), (direction, stream)):
        with pytest.raises(InputError):
            guard.save_pretrained(tmp_path / "none", source=source)
    assert not (tmp_path / "none").exists()


def test_a_folder_of_another_model_is_left_alone(anchors: Anchors, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds a config"):
        anchors.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def _edit(folder: Path, **values: Any) -> None:
    write_manifest(folder / "demur.json", {**read_manifest(folder / "demur.json"), **values})


def _other_anchors(folder: Path) -> None:
    back = Anchors.load(folder / "anchors.safetensors")
    replace(back, harmless=back.harmless + 1).save(folder / "anchors.safetensors")


FAULTS: dict[str, tuple[Any, str]] = {
    "no manifest": (lambda at: (at / "demur.json").unlink(), "holds no demur.json"),
    "no file": (lambda at: (at / "anchors.safetensors").unlink(), "lacks anchors.safetensors"),
    "another whole file": (_other_anchors, "is not the file that its demur.json lists"),
    "an edited manifest": (
        lambda at: (at / "demur.json").write_text((at / "demur.json").read_text().replace("anchors", "anchorz")),
        "demur.json",
    ),
    "a later format": (lambda at: _edit(at, format=2), "has format 2"),
    "a way out": (
        lambda at: _edit(at, files={"../anchors.safetensors": {"kind": "anchors", "hash": ""}}),
        "does not list files",
    ),
    "a pickle": (lambda at: _edit(at, files={"model.pkl": {"kind": "anchors", "hash": ""}}), "does not list files"),
    "no files": (lambda at: _edit(at, files={}), "does not list files"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_not_shared_so_is_refused(fault: str, anchors: Anchors, tmp_path: Path) -> None:
    anchors.save_pretrained(tmp_path / "a")
    spoil, said = FAULTS[fault]
    spoil(tmp_path / "a")
    with pytest.raises(InputError, match=said):
        Anchors.from_pretrained(tmp_path / "a")


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    server = FakeHub()
    yield server
    server.shutdown()


def run(hub: FakeHub, home: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process whose Hub is the one on loopback, as the client reads its environment once."""
    said = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    said |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "hf_fake", **environment}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env={**os.environ, **said}, capture_output=True, text=True, check=False
    )


PUSH_AND_PULL = """
import json, sys
from demur import Anchors, DirectionGuard, StreamingGuard, cli
from demur.errors import InputError
from demur.guards import load_guard

stream, direction, other = sys.argv[1:]
try:
    sys.argv = ["demur", "guard", "push", stream, "me/tiny-guard", "--source", direction]
    cli.main()
except SystemExit as end:
    assert not end.code
Anchors.load(other).push_to_hub("me/anchors", token="hf_fake")
pulls = {
    "guard": lambda: load_guard("me/tiny-guard").summary(),
    "source": lambda: DirectionGuard.from_pretrained("me/tiny-guard").fingerprint,
    "anchors": lambda: Anchors.from_pretrained("me/anchors", revision="main").fingerprint,
    "wrong class": lambda: Anchors.from_pretrained("me/tiny-guard"),
    "not there": lambda: load_guard("me/none"),
    "of something else": lambda: load_guard("me/other"),
    "changed": lambda: load_guard("me/changed"),
}
found = {}
for name, pull in pulls.items():
    try:
        found[name] = pull()
    except InputError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


def test_guards_are_pushed_to_a_hub_and_pulled_from_it(
    hub: FakeHub, stream: StreamingGuard, direction: DirectionGuard, anchors: Anchors, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in ("stream", "direction", "anchors")]
    for thing, path in zip((stream, direction, anchors), paths, strict=True):
        thing.save(path)
    # The Hub hands out a changed file under the manifest of the whole one.
    stream.save_pretrained(tmp_path / "changed")
    files = {path.name: path.read_bytes() for path in (tmp_path / "changed").iterdir()}
    name = "streaming-guard.safetensors"
    hub.repos["me/changed"] = {**files, name: files[name][:-1] + bytes([files[name][-1] ^ 1])}
    hub.repos["me/other"] = {"config.json": b"{}", "model.pkl": b"x"}

    ran = run(hub, tmp_path / "home", "-c", PUSH_AND_PULL, *paths)
    assert ran.returncode == 0, ran.stderr
    address, pulled = ran.stdout.splitlines()
    assert address.startswith(f"{hub.address}/me/tiny-guard")
    pushed = hub.repos["me/tiny-guard"]
    assert set(pushed) == {"demur.json", "README.md", name, "direction-guard.safetensors"}
    assert b'from_pretrained("me/tiny-guard")' in pushed["README.md"]
    found = json.loads(pulled)
    assert found["guard"] == json.loads(json.dumps(stream.summary()))
    assert (found["source"], found["anchors"]) == (direction.fingerprint, anchors.fingerprint)
    assert "holds streaming-guard and direction-guard; Anchors reads anchors" in found["wrong class"]
    assert "the Hugging Face Hub gave none" in found["not there"]
    assert "holds no demur.json" in found["of something else"]
    assert "is not the file that its demur.json lists" in found["changed"]
    assert not [asked for asked in hub.asked if ".pkl" in asked]

    commit = hub.commit_of("me/tiny-guard")
    show = ["-m", "demur", "guard", "show", f"me/tiny-guard@{commit}", "--json"]
    shown = json.loads(run(hub, tmp_path / "home", *show, HF_HUB_OFFLINE="1").stdout)  # from the cache
    assert shown["commit"] == commit and shown["threshold"] == stream.threshold_


def test_a_hub_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demur.sharing.places.is_reached", lambda: False)
    with pytest.raises(InputError, match=r"me/nothing-cached: .* it cannot be reached"):
        load_guard("me/nothing-cached")
    with pytest.raises(InputError, match="there is no such file"):
        load_guard("runs/missing.safetensors")
    with pytest.raises(InputError, match="name two commits"):
        StreamingGuard.from_pretrained("me/x@one", revision="two")


def test_a_push_that_the_hub_refuses_is_one_line(anchors: Anchors) -> None:
    with pytest.raises(InputError, match="no/such/name: cannot be pushed"):
        anchors.push_to_hub("no/such/name", token="hf_fake")


def test_probes_say_the_limits_of_each_kind(tmp_path: Path) -> None:
    states = RNG.normal(size=(300, 2, 1, 4)).astype(np.float32)
    guard = ProbeGuard(places=PLACES).fit(states, np.arange(300) % 2)
    guard.calibrate(states[::2], kinds=np.where(np.arange(150) % 2, "plain", "languages"))
    assert guard.summary()["kinds"] == guard.kinds_
    guard.save_pretrained(tmp_path)
    assert "plain: calibrated on 75, at most" in (tmp_path / "README.md").read_text()


def test_a_server_takes_a_shared_folder_with_what_its_guard_watches(
    stream: StreamingGuard, direction: DirectionGuard, tmp_path: Path
) -> None:
    stream.save_pretrained(tmp_path, source=direction)
    (watched,) = load_guards([tmp_path])
    assert watched.guard.threshold_ == stream.threshold_ and watched.source.fingerprint == direction.fingerprint
