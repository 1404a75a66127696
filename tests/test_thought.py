"""What of a response is thought, and what is the answer."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from demur import refused
from demur.judges import CompliesJudge
from demur.judges.chat import question
from demur.models import decode_response
from demur.models.decoding import thought_tokens
from demur.thought import answer_of, opening_of, thought_spans

HARMONY = (
    "<|channel|>analysis<|message|>I cannot<|end|><|start|>assistant<|channel|>final<|message|>Sure, here<|return|>"
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Sure, here.", "Sure, here."),
        ("  spaces stay  ", "  spaces stay  "),
        ("<think>I cannot</think>\n\nSure", "Sure"),
        ("<think>I cannot", ""),
        ("I cannot tell</think> Sure", "Sure"),
        ("<think>a</think>Sure<think>b</think>, here", "Sure, here"),
        ("[THINK]I cannot[/THINK]Sure", "Sure"),
        ("<|begin_of_thought|>x<|end_of_thought|><|begin_of_solution|>Sure<|end_of_solution|>", "Sure"),
        (HARMONY, "Sure, here"),
        ("<|channel|>analysis<|message|>I cannot", ""),
        ("<|channel|>fin", ""),
        ("<|channel|>final<|message|>Sure", "Sure"),
        ("<|channel|>commentary to=x<|message|>{}<|call|>", ""),
        ("<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>Sure<|END_RESPONSE|>", "Sure"),
        ("<think>nested [/THINK] mark</think>Sure", "Sure"),
    ],
)
def test_the_answer_is_what_no_thought_holds(text: str, answer: str) -> None:
    assert answer_of(text) == answer


def test_verdicts_and_judges_read_the_answer() -> None:
    text = "<think>I cannot tell.</think> Sure, here is the recipe."
    assert not refused(text)
    assert refused("<think>Easy.</think> I cannot help with that.")
    assert CompliesJudge()(["", ""], [text, "<think>Sure, first"]) == [True, False]
    assert "cannot tell" not in question("bake", text)
    assert "here is the recipe" in question("bake", text)


@pytest.mark.parametrize(
    ("beginning", "opening"),
    [
        ("<|im_end|>\n<|im_start|>assistant\n", ""),
        ("<|im_start|>assistant\n<think>\n", "<think>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("<|start|>assistant", ""),
        ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>"),
        ("<|start|>assistant<|channel|>final<|message|>", ""),
    ],
)
def test_a_template_that_opens_a_thought_is_seen(beginning: str, opening: str) -> None:
    assert opening_of(beginning) == opening


def test_spans_cover_the_marks() -> None:
    text = "a<think>b</think>c"
    assert [text[start:end] for start, end in thought_spans(text)] == ["<think>b</think>"]


def words(special: list[str]) -> PreTrainedTokenizerFast:
    known = ["<unk>", "<end>", "i", "cannot", "sure", "here", "analysis", "final", "assistant"]
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<end>")
    made.add_special_tokens({"additional_special_tokens": special})
    return made


def test_marks_that_are_special_tokens_survive_decoding_and_others_do_not() -> None:
    tokenizer = words(["<think>", "</think>", "<other>"])
    ids = tokenizer.convert_tokens_to_ids(["<think>", "i", "cannot", "</think>", "<other>", "sure", "<end>", "cannot"])
    text = decode_response(tokenizer, ids, [tokenizer.eos_token_id])
    assert text == "<think>i cannot</think>sure"
    assert not refused(text)
    assert thought_tokens(tokenizer, ids[:6]) == [True, True, True, True, False, False]


def test_channels_that_are_special_tokens_survive_decoding() -> None:
    tokenizer = words(["<|channel|>", "<|message|>", "<|start|>", "<|end|>"])
    names = (
        "<|channel|> analysis <|message|> i cannot <|end|> <|start|> assistant <|channel|> final <|message|> sure here"
    )
    text = decode_response(tokenizer, tokenizer.convert_tokens_to_ids(names.split()), [1])
    assert answer_of(text) == "sure here"


def test_a_thought_that_the_template_has_opened_ends_at_its_mark() -> None:
    tokenizer = words(["<think>", "</think>"])
    ids = tokenizer.convert_tokens_to_ids(["i", "cannot", "</think>", "sure"])
    assert not refused(decode_response(tokenizer, ids, [], "<think>"))
    assert answer_of(decode_response(tokenizer, ids[:2], [], "<think>")) == ""
    assert thought_tokens(tokenizer, ids, "<think>") == [True, True, True, False]
