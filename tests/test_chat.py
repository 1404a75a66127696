"""Chat formats: the prompt that runs is the prompt given, or there is an error."""

import json
import logging
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from demur import InputError
from demur.models import ChatFormat
from demur.models import templates as limits
from demur.models.templates import argument_of, render

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
PARTS = (
    "{% for m in messages %}<{{ m['role'] }}>{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}</>{% endfor %}[A]"
)
THINKS = (
    CHATML + "{% if enable_thinking is not defined or enable_thinking %}<think>{% else %}<think></think>{% endif %}"
)


def tokenizer(template: object = CHATML) -> PreTrainedTokenizerFast:
    special = ["<unk>", "<pad>", "<|im_start|>", "<|im_end|>", "<s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({word: place for place, word in enumerate(special + alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="<|im_end|>", bos_token="<s>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    if template:
        made.chat_template = template
    return made


def text_of(made: ChatFormat, words: PreTrainedTokenizerFast, prompt: str, *history: dict[str, str]) -> str:
    return words.decode(made.encode(words, prompt, history))


def test_a_template_that_takes_parts_gets_parts() -> None:
    words = tokenizer(PARTS)
    made = ChatFormat.of(words)
    assert made.parts
    assert text_of(made, words, "bake") == "<system>You are a helpful assistant</><user>bake</>[A]"
    assert made.to_dict()["parts"] is True


def test_the_default_format_is_described_as_it_always_was() -> None:
    assert list(ChatFormat.of(tokenizer()).to_dict()) == ["kind", "system", "folded", "template_hash"]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['content'][:200] }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] | lower }}{% endfor %}",
        "always the same",
        "{% for m in messages %}{{ m['content'].split('\\n') | first }}{% endfor %}",
    ],
)
def test_a_template_that_loses_a_part_of_the_message_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="does not pass a user message on whole"):
        ChatFormat.of(tokenizer(template))


def test_a_message_that_the_template_changes_is_refused_by_itself() -> None:
    words = tokenizer("{% for m in messages %}{{ m['content'] | replace('secret', '') }}{% endfor %}")
    made = ChatFormat.of(words)
    with pytest.raises(InputError, match="leaves out or changes a part of the user message"):
        made.encode(words, "a secret cake")


@pytest.mark.parametrize(
    "template",
    [
        "{% for t in tools %}{{ t }}{% endfor %}{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "{{ 1 / 0 }}",
        "{% for m in messages %}",
        "{{ messages.__class__.__mro__ }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ raise_exception('no\nroles') }}",
    ],
)
def test_a_template_that_fails_is_an_error_of_one_line_with_the_mend(template: str) -> None:
    with pytest.raises(InputError, match=r"the chat template fails .*--template-arg NAME=VALUE") as caught:
        ChatFormat.of(tokenizer(template))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10**12 }}",
        "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ],
)
def test_a_template_that_runs_away_is_not_run(template: str) -> None:
    started = time.process_time()
    with pytest.raises(InputError, match="does not end within"):
        ChatFormat.of(tokenizer(template))
    assert time.process_time() - started < limits.SECONDS


def test_a_template_that_hangs_on_one_message_only_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    words = tokenizer(CHATML + "{% if 'cake' in messages[-1]['content'] %}" + loop + "{% endif %}")
    made = ChatFormat.of(words)
    monkeypatch.setattr(limits, "SECONDS", 0.2)
    with pytest.raises(InputError, match="TemplateTimeout"):
        made.encode(words, "cake")


def test_a_template_that_makes_far_too_much_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONGEST", 10)
    with pytest.raises(InputError, match="makes more than 10 characters"):
        render(tokenizer(), "{{ 'x' * 1000 }}", {}, [{"role": "user", "content": "a"}])


def test_named_templates_are_chosen_by_name() -> None:
    words = tokenizer({"tool_use": "x", "rag": CHATML})
    with pytest.raises(InputError, match=r"choose one of rag, tool_use by template=NAME"):
        ChatFormat.of(words)
    with pytest.raises(InputError, match="no chat template 'none'; choose one of rag, tool_use"):
        ChatFormat.of(words, template="none")
    made = ChatFormat.of(words, template="rag")
    assert text_of(made, words, "bake").endswith("user bake<|im_end|><|im_start|>assistant ")
    assert made.to_dict()["name"] == "rag"
    assert made != ChatFormat.of(tokenizer())


def test_a_template_can_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(CHATML)
    words = tokenizer(None)
    made = ChatFormat.of(words, template=str(tmp_path / "mine.jinja"))
    assert text_of(made, words, "bake").startswith("<|im_start|>system You are")
    (tmp_path / "mine.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="give a file of UTF-8 text"):
        ChatFormat.of(words, template=str(tmp_path / "mine.jinja"))
    with pytest.raises(InputError, match="there are no named ones"):
        ChatFormat.of(words, template="gone.jinja")


def test_arguments_reach_the_template_and_are_recorded() -> None:
    words = tokenizer(THINKS)
    assert ChatFormat.of(words).opening == "<think>"
    off = ChatFormat.of(words, template_arguments={"enable_thinking": False})
    assert off.opening == ""
    assert text_of(off, words, "bake").endswith("<think></think>")
    assert off.to_dict()["arguments"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"enable_thinkin": False}, "'enable_thinkin' is not read by the chat template"),
        ({"messages": []}, "'messages' is set by demur itself"),
        ({"enable_thinking": {1, 2}}, "give values that JSON can hold"),
    ],
)
def test_arguments_that_would_be_ignored_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ChatFormat.of(tokenizer(THINKS), template_arguments=arguments)


def test_options_of_a_template_are_refused_where_there_is_none() -> None:
    with pytest.raises(InputError, match="has no chat template, so"):
        ChatFormat.of(tokenizer(None), template_arguments={"enable_thinking": False})
    with pytest.raises(InputError, match="has no tokenizer files, so"):
        ChatFormat.of(None, template="rag")


def test_the_system_prompt_can_be_set_or_left_out() -> None:
    words = tokenizer()
    assert "system Be brief.<|im_end|>" in text_of(ChatFormat.of(words, "Be brief."), words, "bake")
    none = ChatFormat.of(words, None)
    assert text_of(none, words, "bake") == "<|im_start|>user bake<|im_end|><|im_start|>assistant "
    with pytest.raises(InputError, match="cannot be encoded"):
        ChatFormat.of(words, "half \ud83d")
    plain = tokenizer(None)
    assert text_of(ChatFormat.of(plain, None), plain, "bake") == "User: bake\nAssistant:"
    assert text_of(ChatFormat.of(plain), plain, "bake") == "You are a helpful assistant\n\nUser: bake\nAssistant:"


def test_a_conversation_runs_whole_and_its_system_message_replaces_the_default() -> None:
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    words = tokenizer()
    made = ChatFormat.of(words)
    whole = "<|im_start|>user one<|im_end|><|im_start|>assistant two<|im_end|><|im_start|>user three<|im_end|>"
    assert whole in text_of(made, words, "three", *turns)
    assert "helpful" in text_of(made, words, "three", *turns)
    own = text_of(made, words, "three", {"role": "system", "content": "Be brief."}, *turns)
    assert own.startswith("<|im_start|>system Be brief.<|im_end|><|im_start|>user one")
    assert "helpful" not in own
    plain = tokenizer(None)
    assert (
        text_of(ChatFormat.of(plain, None), plain, "three", *turns)
        == "User: one\nAssistant: two\nUser: three\nAssistant:"
    )


def test_a_system_message_is_folded_into_the_first_user_turn_where_there_is_no_role_for_it() -> None:
    words = tokenizer(
        "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }} {{ m['content'] }}]{% endfor %}"
    )
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]
    turns += [{"role": "assistant", "content": "two"}]
    made = ChatFormat.of(words)
    assert text_of(made, words, "three", *turns) == "[user Be brief.\n\none][assistant two][user three]"


def test_a_plain_prompt_begins_once_and_never_ends() -> None:
    words = tokenizer(None)
    words._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|im_end|>", special_tokens=[("<s>", 4), ("<|im_end|>", 3)]
    )
    ids = ChatFormat.of(words).encode(words, "bake")
    assert ids.count(4) == 1
    assert 3 not in ids


@pytest.mark.parametrize("name", ["chat_template.json", "processor_config.json"])
def test_the_template_of_a_processor_is_seen(tmp_path: Path, name: str) -> None:
    tokenizer(None).save_pretrained(tmp_path)
    (tmp_path / name).write_text(json.dumps({"chat_template": CHATML}))
    assert ChatFormat.of(PreTrainedTokenizerFast.from_pretrained(tmp_path)).kind == "template"
    (tmp_path / name).write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        ChatFormat.of(PreTrainedTokenizerFast.from_pretrained(tmp_path))


def test_a_model_without_a_template_is_told_of_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    tokenizer(None).save_pretrained(tmp_path)
    words = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "demur"):
        ChatFormat.of(words)
        ChatFormat.of(words)
    assert len([one for one in caplog.messages if "plain format" in one]) == 1


def test_an_argument_is_read_as_json_and_else_as_text() -> None:
    assert argument_of("enable_thinking=false") == ("enable_thinking", False)
    assert argument_of("name=Ann") == ("name", "Ann")
    with pytest.raises(InputError, match="not of the form NAME=VALUE"):
        argument_of("enable_thinking")
