"""Learning to go on with a text: the reference's losses and steps, documents that share a sequence, bytes, chats."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

import runs
import tiny
import triarch
from material import loss_of
from reading import learned_from_text, read, rows_of
from triarch.data.sentences import blocks
from triarch.data.store import STARTS, TokenStore
from triarch.data.stretches import Stretches
from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.inputs.text.token_bytes import token_bytes
from triarch.inputs.text.train_vocabulary import save_vocabulary, train_vocabulary
from triarch.kinds import NextWordScores
from triarch.models import family
from triarch.objectives._base import IGNORED, Batch, Stretch
from triarch.objectives.chat import Chat
from triarch.objectives.clm import Clm
from triarch.objectives.distillation import Distillation
from triarch.training import plan
from triarch.training.learner import Learner
from triarch.training.model import make_network, set_dropout, start
from triarch.training.settings import Settings

S = tiny.SENTENCES
STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
BEGIN, END = 0, 2  # of the tiny GPT-2
TEXTS = ["\n".join(S[:4]) + "\n\n  — " + S[9], "", S[4], S[6] + "\r" + S[7] + "\n" * 3 + S[8]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_checkpoint(tmp_path_factory.mktemp("gpt2"), **tiny.MODELS["gpt2"], **STILL)


@pytest.fixture(scope="module")
def gpt2(folder):
    return triarch.load(folder)


@pytest.fixture
def made(gpt2):
    return Clm(gpt2.processor)


def ids_of(processor, text):
    return np.array(processor.encode(text, special_tokens=False, parse_special=False).ids)


def whole(processor, text):
    return Stretch(ids_of(processor, text), True, True)


# The loss


def test_a_document_is_guessed_from_its_first_token_to_its_end(made, gpt2):
    example = made.continued([whole(gpt2.processor, S[0])])
    ids = ids_of(gpt2.processor, S[0]).tolist()
    assert list(example.ids) == [BEGIN, *ids]
    assert list(example.target) == [*ids, END]
    inner = made.continued([Stretch(np.array(ids[3:9]), False, False)])
    assert list(inner.ids) == ids[3:8]
    assert list(inner.target) == ids[4:9]


def test_twenty_steps_are_the_references(folder):
    ours, theirs = triarch.load(folder), transformers.GPT2LMHeadModel.from_pretrained(folder)
    made = Clm(ours.processor)
    ways = [torch.optim.AdamW(model.train().parameters(), lr=1e-3) for model in (ours, theirs)]
    for step in range(20):
        examples = [made.continued([whole(ours.processor, S[(step + i) % 8])]) for i in range(3)]
        rows = [torch.tensor([*example.ids, example.target[-1]]) for example in examples]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)
        losses = loss_of(made, ours, examples), theirs(ids, attention_mask=labels != IGNORED, labels=labels).loss
        torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5, msg=lambda text, step=step: f"step {step}: {text}")
        for way, loss in zip(ways, losses, strict=True):
            way.zero_grad()
            loss.backward()
            way.step()


def test_documents_of_one_sequence_have_the_losses_that_each_has_alone(made, gpt2):
    documents = [whole(gpt2.processor, S[0]), whole(gpt2.processor, S[7]), Stretch(np.array([5, 6, 7]), False, False)]
    with torch.no_grad():
        scores = [made.forward(gpt2, made.batch([made.continued(some)])) for some in (documents[:1], documents)]
        packed = made.batch([made.continued(documents), made.continued(documents[1:])])
        together = made.losses(made.forward(gpt2, packed), packed)["clm"]
        batches = [made.batch([made.continued([one])]) for one in documents]
        alone = [made.losses(made.forward(gpt2, batch), batch)["clm"] for batch in batches]
    first, packed_logits = (found.logits.flatten(0, -2) for found in scores)
    torch.testing.assert_close(packed_logits[: len(first)], first)
    torch.testing.assert_close(together, alone[0] + 2 * alone[1] + 2 * alone[2], atol=1e-4, rtol=1e-6)


def test_asked_to_documents_look_at_those_before_them(gpt2):
    made = Clm(gpt2.processor, across=True)
    ids = [whole(gpt2.processor, S[7]), whole(gpt2.processor, S[8])]
    batch = made.batch([made.continued(ids)])
    assert batch.inputs.keys() == {"input_ids"}
    with torch.no_grad():
        logits = made.forward(gpt2, batch).logits.flatten(0, -2)
        torch.testing.assert_close(logits, gpt2(batch.inputs["input_ids"]).logits[0])
        alone = Clm(gpt2.processor)
        apart = alone.forward(gpt2, alone.batch([alone.continued(ids)])).logits.flatten(0, -2)
    assert (logits[len(ids[0].ids) + 1 :] - apart[len(ids[0].ids) + 1 :]).abs().max() > 0.1


def test_more_than_the_model_takes_is_refused(made):
    assert made.room == 64
    with pytest.raises(LimitExceeded, match="stretches of 65 tokens where 64 fit"):
        made.continued([Stretch(np.arange(3, 67), True, True)])


def test_a_vocabulary_without_an_end_is_refused():
    with pytest.raises(Unsupported, match="no end-of-text token"):
        Clm(tiny.load("bert-words").processor)


def test_a_teacher_of_next_words(gpt2, made):
    distilled = Distillation(gpt2.processor, inner=made, teacher=gpt2, alpha=1.0)
    assert distilled.READS == "texts"
    examples = [distilled.continued([whole(gpt2.processor, S[i])]) for i in range(2)]
    assert float(loss_of(distilled, gpt2, examples).detach()) == pytest.approx(0, abs=1e-6)


# Bytes


@pytest.mark.parametrize("name", ["gpt2", "xlm-roberta-words", "bert-words"])
def test_the_bytes_of_tokens_are_those_of_the_text(name):
    processor = tiny.load(name).processor
    text = "Ada lived in London,\n and 12 cafés" if name == "gpt2" else "in London and in Berlin"
    ids = processor.encode(text, special_tokens=False).ids
    sizes = token_bytes(processor)
    assert sizes[ids[1:]].sum() == len(text.encode()) - len(processor.decode(ids[:1]).strip())
    assert sizes[[i for i in range(len(sizes)) if i not in processor.ordinary_ids]].sum() == 0


def test_bits_per_byte_is_the_loss_of_the_whole_text_in_bits(gpt2, made):
    texts = ["Ada lived in London, in a café.", S[7]]
    examples = [made.continued([whole(gpt2.processor, text)]) for text in texts]
    batch = made.batch(examples)
    with torch.no_grad():
        scores = made.forward(gpt2, batch)
        found = made.measure(made.outcomes(scores, batch))
        nats = 0.0
        for example in examples:
            logits = gpt2(torch.tensor([list(example.ids)])).logits[0]
            nats += float(F.cross_entropy(logits, torch.tensor(list(example.target)), reduction="sum"))
    count = sum(example.length for example in examples)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / len("".join(texts).encode()), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert math.isnan(made.measure([])["bits_per_byte"])


def test_bytes_are_counted_with_fewer_tokens_than_the_mark_of_those_ignored(tmp_path):
    """A vocabulary of letters has fewer than a hundred, and -100 is no place in it."""
    processor = train_vocabulary(["cab"], "characters", 20, family("gpt2").reads)
    made = Clm(processor)
    ids = processor.encode("cab", special_tokens=False).ids
    words = torch.tensor([[*ids, IGNORED]])
    batch = Batch({}, {"words": words}, {made.NAME: 3.0}, [None])
    scores = NextWordScores(torch.zeros(3, len(processor.tokenizer.get_vocab())))
    ((*_, size),) = made.outcomes(scores, batch)
    assert size == 3


# Running text


def built(gpt2, path, texts=TEXTS):
    return TokenStore.build([{"text": text} for text in texts if text], gpt2.processor, path, exact=True)


def test_an_exact_store_holds_texts_to_the_letter(gpt2, tmp_path):
    store = built(gpt2, tmp_path / "store")
    edges = store.sentences[store.documents]
    found = [gpt2.processor.decode(store.tokens[a:b] & ~STARTS) for a, b in itertools.pairwise(edges)]
    assert found == [text for text in TEXTS if text]
    plain = TokenStore.build([{"text": text} for text in TEXTS if text], gpt2.processor, tmp_path / "store")
    assert plain.fingerprint != store.fingerprint


def test_of_a_file_the_last_line_end_alone_is_left_out(gpt2, tmp_path):
    (tmp_path / "a.txt").write_text("Ada\n\n lived.\n\n", encoding="utf-8")
    for source in (tmp_path / "a.txt", read(tmp_path / "a.txt")):
        store = TokenStore.build(source, gpt2.processor, tmp_path / "store", exact=True)
        assert gpt2.processor.decode(store.tokens & ~STARTS) == "Ada\n\n lived.\n"


def test_long_texts_are_held_in_parts_that_lose_nothing(monkeypatch):
    monkeypatch.setattr("triarch.limits.BLOCK_CHARACTERS", 60)
    lines = [*S, "", "", "x" * 200, " y"]
    parts = list(blocks(lines))
    assert "".join(parts) == "\n".join(lines)
    assert len(parts) > 10
    assert list(blocks([])) == []


@pytest.mark.parametrize("room", [1, 2, 7, 64])
def test_each_token_is_guessed_once(gpt2, tmp_path, room):
    made = Clm(gpt2.processor, max_tokens=room)
    drawn = Stretches(built(gpt2, tmp_path / "store"), made)
    examples = [drawn.draw(i, np.random.default_rng(i)) for i in range(len(drawn))]
    wanted = [id_ for text in TEXTS if text for id_ in [*ids_of(gpt2.processor, text).tolist(), END]]
    assert [id_ for example in examples for id_ in example.target] == wanted
    assert drawn.lengths.tolist() == [example.length for example in examples]
    assert max(drawn.lengths) == room
    pairs = [
        (before, after) for e in examples for before, after in zip(list(e.ids)[1:], list(e.target)[:-1], strict=True)
    ]
    assert all(before in (after, BEGIN) for before, after in pairs)


def test_short_documents_are_packed_and_long_ones_cut(gpt2, tmp_path):
    texts = [" ".join(S[:6]), S[7], S[8], S[4]]
    made = Clm(gpt2.processor, max_tokens=40)
    drawn = Stretches(built(gpt2, tmp_path / "store", texts), made)
    sizes = [len(ids_of(gpt2.processor, text)) + 1 for text in texts]
    packed, pieces = [], [[40] * (sizes[0] // 40), [sizes[0] % 40], *([size] for size in sizes[1:])]
    for piece in (size for part in pieces for size in part):
        if packed and sum(packed[-1]) + piece <= 40:
            packed[-1].append(piece)
        else:
            packed.append([piece])
    assert [drawn.draw(i, np.random.default_rng(0)).note for i in range(len(drawn))] == packed
    assert drawn.place(0) == "row 1, token 1"
    assert drawn.place(1) == "row 1, token 41"


def test_stretches_of_a_long_text_move_where_they_are_learned(gpt2, tmp_path):
    made = Clm(gpt2.processor, max_tokens=16)
    text = " ".join(S)
    store = built(gpt2, tmp_path / "store", [text, S[7]])
    drawn = Stretches(store, made, moving=True)
    framed = [BEGIN, *ids_of(gpt2.processor, text).tolist(), END]
    begins = set()
    counts = np.zeros(len(framed) - 1)
    for seed in range(300):
        example = drawn.draw(2, np.random.default_rng(seed))
        begin = next(i for i in range(len(framed)) if framed[i : i + 16] == list(example.ids))
        assert framed[begin + 1 : begin + 17] == list(example.target)
        begins.add(begin)
    assert begins == set(range(24, 40))
    for seed in range(60):
        for i in range(len(framed) // 16):
            example = drawn.draw(i, np.random.default_rng([seed, i]))
            begin = next(i for i in range(len(framed)) if framed[i : i + 16] == list(example.ids))
            counts[begin : begin + 16] += 1
    inner = counts[24 : 16 * (len(framed) // 16) - 24]
    assert abs(inner.mean() - 60) < 4
    assert np.array_equal(drawn.draw(2, np.random.default_rng(1)).ids, drawn.draw(2, np.random.default_rng(1)).ids)
    short = [i for i in range(len(drawn)) if len(drawn.draw(i, np.random.default_rng(0)).note) > 1]
    assert all(drawn.draw(i, np.random.default_rng(0)) == drawn.draw(i, np.random.default_rng(9)) for i in short)


# Runs


@pytest.fixture(scope="module")
def planned(folder, tmp_path_factory):
    where = tmp_path_factory.mktemp("plan")
    books = runs.write_books(where / "books")
    settings = Settings(data=[str(books)], model=str(folder), objective="clm", options={"max_tokens": 24})
    return plan.prepare(settings, pytest.fail, where / "run")


@pytest.mark.parametrize("micro_tokens", [1, 50])
def test_pieces_have_the_gradient_of_the_whole_batch(planned, micro_tokens):
    examples = [planned.train.examples.draw(i, np.random.default_rng(i)) for i in range(8)]
    found = []
    for size in (100_000, micro_tokens):
        Learner(planned.model.train(), planned.objective, micro_tokens=size).gradients(examples, (1, 2))
        found.append({name: tensor.grad for name, tensor in planned.model.named_parameters()})
        planned.model.zero_grad()
    for name, grad in found[0].items():
        assert (found[1][name] - grad).abs().max() <= 1e-6 * max(1.0, float(grad.abs().max())), name


def test_a_decoder_from_nothing_knows_its_end_and_goes_on_to_the_bit(tmp_path, monkeypatch):
    books = runs.write_books(tmp_path / "books")
    processor = train_vocabulary(S, "bpe", 300, family("gpt2").reads)
    save_vocabulary(processor, tmp_path / "tokenizer")
    given = {
        "family": "gpt2",
        "tokenizer": str(tmp_path / "tokenizer"),
        "objective": "clm",
        "config": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_positions": 32},
        "validation": str(books / "0.txt"),
        "batch_size": 4,
        "steps": 5,
        "save_every": 2,
        "note": lambda line: None,
    }
    found = triarch.train(str(books), output=tmp_path / "whole", **given)
    raw = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert (raw["bos_token_id"], raw["eos_token_id"]) == (processor.id("bos_token"), processor.id("eos_token"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(theirs(ids).logits, triarch.load(tmp_path / "whole")(ids).logits)
    measured = triarch.evaluate(tmp_path / "whole", str(books / "0.txt"), objective="clm", note=str)
    assert measured == pytest.approx({name: found[f"validation {name}"] for name in measured}, rel=1e-5)

    with monkeypatch.context() as patch, pytest.raises(runs.Killed):
        runs.after_step(patch, 3, runs.die)
        triarch.train(str(books), output=tmp_path / "parts", **given)
    triarch.train(str(books), output=tmp_path / "parts", **given, resume=True)
    assert runs.left_by(tmp_path / "parts") == runs.left_by(tmp_path / "whole")


def test_running_text_is_for_next_words_where_the_model_guesses_no_hidden_ones(folder):
    assert learned_from_text(model=str(folder)) is Clm
    assert learned_from_text(family="llama") is Clm
    assert learned_from_text(family="bert").NAME == "mlm"


def test_sizes_that_follow_from_others_follow_from_those_given(tmp_path):
    save_vocabulary(train_vocabulary(S, "bpe", 300, family("llama").reads), tmp_path)
    sizes = {"hidden_size": 24, "num_layers": 1, "num_heads": 3, "intermediate_size": 8, "max_positions": 16}
    settings = Settings(family="llama", tokenizer=str(tmp_path), config=sizes)
    config = make_network(settings, Clm, [], start(settings)).config
    assert (config.head_size, config.kv_heads) == (8, 3)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_dropout_is_set_in_attention_too(name):
    kind = family(name)
    model = kind.build(kind.tiny, next(iter(kind.heads)))
    set_dropout(model, 0.375)
    assert [block.attention.dropout for block in model.blocks] == [0.375] * 2


def test_low_rank_adapters_of_a_decoder_come_back(folder, tmp_path):
    books = runs.write_books(tmp_path / "books")
    given = {"model": str(folder), "objective": "clm", "steps": 4, "lora": 2, "lr": 1e-2, "note": lambda line: None}
    triarch.train(str(books), validation=str(books / "0.txt"), output=tmp_path / "adapter", **given)
    raw = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (raw["task_type"], raw["fan_in_fan_out"], raw["modules_to_save"]) == ("CAUSAL_LM", True, None)
    again, base = triarch.load(tmp_path / "adapter"), triarch.load(folder)
    assert again.architecture == "GPT2LMHeadModel"
    assert (again.blocks[0].attention.qkv.weight - base.blocks[0].attention.qkv.weight).abs().max() > 1e-4
    assert torch.equal(again.token.weight, base.token.weight)


# Conversations


def talking(folder, template, tmp_path):
    model = triarch.load(folder)
    model.processor.save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return triarch.load(tmp_path)


TEMPLATE = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + (eos_token if m.role == 'assistant' else '\\n') }}"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TALK = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Ada."},
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "In London."},
]


@pytest.fixture
def chat(folder, tmp_path):
    model = talking(folder, TEMPLATE, tmp_path / "talking")
    return Chat(model.processor), model


def test_only_what_the_assistant_says_is_learned(chat):
    made, model = chat
    (example,) = made.examples({"messages": TALK})
    target = np.array(example.target)
    assert (
        model.processor.decode(target[target != IGNORED]) == "Ada.</s> In London.</s>"
    )  # the first space is the template's
    ids = np.append(np.array(example.ids), target[-1])
    assert np.array_equal(target[target != IGNORED], ids[1:][target != IGNORED])
    with torch.no_grad():
        batch = made.batch([example])
        loss = made.losses(made.forward(model, batch), batch)["chat"]
        logits = model(torch.tensor([list(example.ids)])).logits[0]
    wanted = F.cross_entropy(logits, torch.tensor(target), ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(loss, wanted)
    assert batch.counts == {"chat": float((target != IGNORED).sum())}


def test_what_the_user_says_changes_no_target(chat):
    made, _ = chat
    other = [TALK[0] | {"content": "What?"}, *TALK[1:]]
    first, second = (np.array(made.examples({"messages": talk})[0].target) for talk in (TALK, other))
    assert first[first != IGNORED].tolist() == second[second != IGNORED].tolist()


def test_a_long_conversation_is_refused_and_never_cut(chat):
    made, _ = chat
    long = [TALK[0], {"role": "assistant", "content": " ".join(S)}]
    with pytest.raises(InvalidInput, match=r"the conversation has [0-9]+ tokens, at most 64 fit, and none is cut"):
        made.examples({"messages": long})
    with pytest.raises(InvalidInput, match="the assistant says nothing"):
        made.examples({"messages": TALK[:1]})


def test_a_template_is_needed(gpt2):
    with pytest.raises(Unsupported, match="chat template"):
        Chat(gpt2.processor).examples({"messages": TALK})


def test_conversations_are_told_by_their_column():
    rows = rows_of([{"messages": TALK, "source": "x"}, {"messages": TALK[:2], "tools": None}])
    assert rows.reading.kind == "chat"
    assert list(rows) == [{"messages": TALK}, {"messages": TALK[:2]}]
    with pytest.raises(InvalidInput, match=r"row 1: messages hold .*; wanted each with a role"):
        rows_of([{"messages": [{"content": "a"}]}])
    with pytest.raises(InvalidInput, match=r"row 2: messages are missing"):
        rows_of([{"messages": TALK}, {"messages": None}])


def test_conversations_train_and_bad_ones_are_named(chat, tmp_path):
    _, model = chat
    long = [TALK[0], {"role": "assistant", "content": " ".join(S)}]
    rows = [{"messages": TALK}, {"messages": long}, {"messages": TALK[:2]}]
    given = {"model": str(tmp_path / "talking"), "steps": 2, "output": tmp_path / "out"}
    with pytest.raises(InvalidInput, match="1 of 3 rows cannot be used: row 2: the conversation has"):
        triarch.train(rows, **given, note=lambda line: None)
    notes = []
    triarch.train(rows, **given, on_bad_row="skip", note=notes.append)
    assert any("1 of 3 rows left out: row 2: the conversation has" in note for note in notes)
    assert triarch.load(tmp_path / "out").processor.chat(TALK[:1]) == model.processor.chat(TALK[:1])
