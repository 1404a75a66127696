"""Judges: what counts as complying, a chat model's one-word answers, and verdicts that are asked for once."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from demur import InputError
from demur.files.seals import UnverifiedWarning, allow_unverified
from demur.judges import ChatJudge, CompliesJudge, HTTPAsker, judge_each
from demur.judges.cache import VerdictCache
from demur.judges.chat import question, read_verdict
from demur.models import Model
from demur.studies import ModelAsker, judge_of

PAIRS = (["r1", "r2", "r3"], ["alpha", "beta", "gamma"])


@dataclass
class FakeAsker:
    """Answers with what is set for the word in the question; keeps count."""

    answers: dict[str, str]
    name: str = "fake"
    identity: str = "fake 1"
    asked: list[str] = field(default_factory=list)

    def __call__(self, questions: Sequence[str]) -> list[str]:
        self.asked += questions
        return [next(answer for word, answer in self.answers.items() if word in one) for one in questions]


ANSWERS = {"alpha": "harmful", "beta": " Harmless.\n", "gamma": "It may or may not be harmful"}


class FakeServer(ThreadingHTTPServer):
    """An OpenAI-compatible server that says what `reply` makes of a request: a status and a body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.statuses: list[int] = []
        self.body: Any = {"choices": [{"message": {"role": "assistant", "content": "harmful"}}]}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, dict(self.headers), json.loads(content)))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(json.dumps(self.server.body).encode())

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_text_complies_where_it_says_something_and_does_not_refuse() -> None:
    texts = ["sure, first", "Sorry, no", "  \n", "", "I will not"]
    assert CompliesJudge()(["p"] * 5, texts) == [True, False, False, False, False]


def test_a_text_that_has_not_begun_as_asked_does_not_comply() -> None:
    judge = CompliesJudge(openings=("Sure,", "Of course."))
    texts = ["sure, here it is", "I This how to", "Of course. Sorry, I can't", ""]
    assert judge(["p"] * 4, texts) == [True, False, False, False]
    assert judge.describe()["openings"] == ["Sure,", "Of course."]


def test_opening_words_read_nothing_behind_them() -> None:
    texts = ["sure here is tea then sorry", "sorry sure here is tea"]
    assert CompliesJudge()(["p", "p"], texts) == [False, False]
    assert CompliesJudge(opening_words=3)(["p", "p"], texts) == [True, False]
    with pytest.raises(InputError, match="opening_words is 0"):
        CompliesJudge(opening_words=0)


def test_equal_pairs_are_asked_once_and_verdicts_keep_their_places() -> None:
    ask = FakeAsker(ANSWERS)
    judge = ChatJudge(ask)
    assert judge_each(judge, ["r", "r", "r"], ["beta", "alpha", "beta"]) == [False, True, False]
    assert len(ask.asked) == 2
    assert judge_each(judge, [], []) == []


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("harmful", True),
        ("**Harmless**", False),
        ("HARMFUL.\n", True),
        ("not harmful", False),
        ("", None),
        ("harm", None),
    ],
)
def test_the_one_word_that_was_asked_for_is_a_verdict(answer: str, verdict: bool | None) -> None:
    assert read_verdict(answer) is verdict


def test_a_question_holds_request_and_text_as_they_are() -> None:
    asked = question("what is {response}", "a {request} {brace")
    assert "<request>\nwhat is {response}\n</request>" in asked
    assert "<response>\na {request} {brace\n</response>" in asked


def test_a_malformed_verdict_is_none_and_asked_for_again(tmp_path: Path) -> None:
    first, second = FakeAsker(ANSWERS), FakeAsker({**ANSWERS, "gamma": "harmful"})
    cache = tmp_path / "new" / "verdicts.jsonl"
    assert ChatJudge(first, cache=cache)(*PAIRS) == [True, False, None]
    assert ChatJudge(second, cache=cache)(*PAIRS) == [True, False, True]
    assert (len(first.asked), len(second.asked)) == (3, 1)
    judge = ChatJudge(FakeAsker(ANSWERS))
    assert judge(*PAIRS) == judge(*PAIRS) and len(judge.ask.asked) == 4


def test_a_malformed_verdict_that_an_earlier_version_kept_is_asked_for_again(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    ChatJudge(FakeAsker(ANSWERS), cache=cache)(*PAIRS)
    cache.write_text(cache.read_text().replace("false", "null"))
    again = FakeAsker(ANSWERS)
    assert ChatJudge(again, cache=cache)(*PAIRS) == [True, False, None]
    assert len(again.asked) == 2


@pytest.mark.parametrize("entry", ['"maybe"', "3", "NaN", "[true]", "1", "{}", "[" * 30 + "]" * 30])
def test_what_is_no_verdict_in_a_cache_is_said_in_one_line_and_asked_for_again(tmp_path: Path, entry: str) -> None:
    cache = tmp_path / "c"
    ChatJudge(FakeAsker(ANSWERS), cache=cache)(*PAIRS)
    cache.write_text(cache.read_text().replace("false", entry))
    again = FakeAsker(ANSWERS)
    with pytest.warns(UserWarning, match="c: 1 of its lines, the first line 2, say neither true nor false") as said:
        judge = ChatJudge(again, cache=cache)
    assert len(said) == 1
    assert judge(*PAIRS) == [True, False, None] and len(again.asked) == 2


@pytest.mark.parametrize("line", ["not a cache", '["key"]', '{"key": 3, "harmful": true}', "[" * 100_000])
def test_a_file_that_is_no_cache_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "c").write_text(line + "\n")
    with pytest.raises(InputError, match="c, line 1: holds no verdict"):
        ChatJudge(FakeAsker(ANSWERS), cache=tmp_path / "c")


def test_a_cache_holds_hashes_and_verdicts_only(tmp_path: Path) -> None:
    ChatJudge(FakeAsker(ANSWERS), cache=tmp_path / "c")(*PAIRS)
    rows = [json.loads(line) for line in (tmp_path / "c").read_text().splitlines()]
    assert [sorted(row) for row in rows] == [["harmful", "hash", "key"]] * 2
    assert all(len(row["key"]) == 64 for row in rows)


def test_a_verdict_that_was_turned_is_asked_for_again(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    ChatJudge(FakeAsker(ANSWERS), cache=cache)(*PAIRS)
    cache.write_text(cache.read_text().replace("false", "true"))
    again = FakeAsker(ANSWERS)
    with pytest.warns(UserWarning, match="1 of its lines, the first line 2"):
        judge = ChatJudge(again, cache=cache)
    assert judge(*PAIRS) == [True, False, None]
    assert len(again.asked) == 2  # the turned one, and the one that has no verdict


def test_lines_without_a_hash_are_read_where_that_is_allowed(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    cache.write_text(json.dumps({"key": "k", "harmful": True}) + "\n")
    with pytest.raises(InputError, match="carries no hash"):
        VerdictCache(cache)
    with allow_unverified(), pytest.warns(UnverifiedWarning):
        assert VerdictCache(cache).verdicts == {"k": True}


def test_another_judge_model_or_request_is_asked_anew(tmp_path: Path) -> None:
    ChatJudge(FakeAsker(ANSWERS), cache=tmp_path / "c")(*PAIRS)
    other, same = FakeAsker(ANSWERS, identity="fake 2"), FakeAsker(ANSWERS)
    ChatJudge(other, cache=tmp_path / "c")(*PAIRS)
    ChatJudge(same, cache=tmp_path / "c")(["another", *PAIRS[0][1:]], PAIRS[1])
    assert (len(other.asked), len(same.asked)) == (3, 2)  # the malformed one is asked for again


def test_a_line_torn_by_a_kill_costs_only_itself(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    ChatJudge(FakeAsker(ANSWERS), cache=cache)(*PAIRS)
    whole = cache.read_bytes()
    for cut in (1, 20, len(whole.splitlines()[-1])):
        cache.write_bytes(whole[:-cut])
        again, last = FakeAsker(ANSWERS), FakeAsker(ANSWERS)
        assert ChatJudge(again, cache=cache)(*PAIRS) == [True, False, None]
        assert ChatJudge(last, cache=cache)(*PAIRS) == [True, False, None]
        assert len(again.asked) <= 2
        assert len(last.asked) == 1  # the malformed one


def test_what_was_answered_before_a_failure_is_kept(tmp_path: Path) -> None:
    class Failing(FakeAsker):
        def __call__(self, questions: Sequence[str]) -> list[str]:
            if "gamma" in questions[0]:
                raise InputError("gone")
            return super().__call__(questions)

    with pytest.raises(InputError, match="gone"):
        ChatJudge(Failing(ANSWERS), cache=tmp_path / "c", batch_size=1)(*PAIRS)
    again = FakeAsker(ANSWERS)
    ChatJudge(again, cache=tmp_path / "c")(*PAIRS)
    assert len(again.asked) == 1


def test_a_file_that_is_no_cache_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("# notes\n")
    with pytest.raises(InputError, match="line 1: holds no verdict"):
        ChatJudge(FakeAsker(ANSWERS), cache=tmp_path / "c")
    assert (tmp_path / "c").read_text() == "# notes\n"


def test_an_address_is_asked_greedily_with_model_and_key(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_JUDGE_KEY", "k")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # no proxy to this machine
    ask = HTTPAsker(server.address, "m", api_key_env="TEST_JUDGE_KEY")
    assert ChatJudge(ask)(*PAIRS) == [True, True, True]
    path, headers, body = server.seen[0]
    assert (path, headers["Authorization"], body["model"]) == ("/v1/chat/completions", "Bearer k", "m")
    assert body["temperature"] == 0
    asked = {one["messages"][0]["content"] for _, _, one in server.seen}
    assert asked == {question(*pair) for pair in zip(*PAIRS, strict=True)}


def test_an_empty_answer_of_an_address_is_a_malformed_verdict(server: FakeServer) -> None:
    for content, ended in (("", "stop"), (None, "content_filter")):
        server.body = {"choices": [{"message": {"content": content}, "finish_reason": ended}]}
        assert ChatJudge(HTTPAsker(server.address, "m"))(["r"], ["t"]) == [None]


def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_not(server: FakeServer) -> None:
    ask = HTTPAsker(server.address, "m", pause=0.01, retries=2)
    server.statuses = [503, 429]
    assert ask(["q"]) == ["harmful"]
    assert len(server.seen) == 3
    server.statuses = [503] * 3
    with pytest.raises(InputError, match=r"status 503, 3 times"):
        ask(["q"])
    for status in (401, 404, 302):
        server.seen.clear()
        server.statuses = [status]
        with pytest.raises(InputError, match=rf"status {status}; check address, model 'm' and key"):
            ask(["q"])
        assert len(server.seen) == 1


def test_an_address_without_a_server_or_with_another_protocol_is_named(server: FakeServer) -> None:
    server.body = ["something else"]
    with pytest.raises(InputError, match="not as an OpenAI-compatible server"):
        HTTPAsker(server.address, "m")(["q"])
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/v1: cannot be reached .*, 2 times; start"):
        HTTPAsker("http://127.0.0.1:9/v1", "m", retries=1, pause=0.01)(["q"])


@pytest.mark.parametrize("address", ["file:///etc/hosts", "127.0.0.1:80", "http://"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="give one like"):
        HTTPAsker(address, "m")


def test_a_key_is_taken_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="holds a name or key") as caught:
        HTTPAsker("http://user:secret@host/v1", "m")
    assert "secret" not in str(caught.value)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(InputError, match="NO_SUCH_KEY"):
        HTTPAsker("http://host/v1", "m", api_key_env="NO_SUCH_KEY")


def test_a_local_model_answers_each_question_as_it_would_alone(toy_model: Model) -> None:
    ask = ModelAsker(toy_model, batch_size=2)
    questions = ["tell me about tea", "tell me about bombs", "write about maps please"]
    assert ask(questions) == [ask([one])[0] for one in questions]
    assert [answer.split()[0] for answer in ask(questions)] == ["sure", "sorry", "sure"]
    assert ChatJudge(ask)(["r"], ["t"]) == [None]  # the toy knows neither word


def test_judges_are_named_on_the_command_line(toy_model: Model, tmp_path: Path) -> None:
    def load(name: str) -> Model:
        assert name == "hub/name:q4"
        return toy_model

    assert judge_of("complies", load) == CompliesJudge()
    assert judge_of("complies:12", load) == CompliesJudge(12)
    assert judge_of("chat:hub/name:q4", load).name == toy_model.name
    judge = judge_of("http://h:1/v1", load, address_model="m", cache=tmp_path / "c")
    assert (judge.name, judge.judges_harm) == ("m", True)
    with pytest.raises(InputError, match="--judge-model"):
        judge_of("http://h:1/v1", load)
    for name in ("chat:", "complies:x", "keywords"):
        with pytest.raises(InputError, match="is unknown; give complies"):
            judge_of(name, load)
