"""What the tour finds out: one model, a few dozen sentences, every number that is shown later.

Shapes: N sentences, D numbers in a vector, T tokens, L layers, H heads.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from triarch.errors import Unsupported
from triarch.family import EncoderNetwork
from triarch.tasks.embedding import normalized
from triarch.tasks.semantic_search import SemanticSearch
from triarch.tour.groups import cluster, principal_axes

if TYPE_CHECKING:
    from tokenizers import Encoding

    from triarch.tasks.embedding import Embedding

MEASURE_SECONDS, MEASURE_PASSES = 0.5, 3  # passes go on for so long, three at least; the fastest counts
MOST_LAYERS, MOST_HEADS = 12, 16  # of a larger model, as many are shown


@dataclass(frozen=True)
class Sentence:
    text: str
    topic: str  # for the count at the end; the model never sees it
    query: str | None = None  # a search that should find this sentence first


@dataclass(frozen=True)
class Search:
    query: str
    wanted: int  # the sentence that should come first
    rank: int  # where it came; 1 is first
    hits: list[tuple[int, float]]  # the first three: sentence, cosine


@dataclass(frozen=True)
class Group:
    topic: str  # that of most of its sentences
    members: list[int]
    strays: list[int]  # the members of another topic


@dataclass(frozen=True)
class Token:
    piece: str  # as the vocabulary spells it
    id: int
    segment: int  # which of the two sentences; 0 or 1
    text: str  # the characters that it stands for; empty for a special token
    span: tuple[int, int]  # where they stand in their sentence
    special: bool


@dataclass(frozen=True)
class Look:
    """One sentence pair, read together, from the inside."""

    sentences: tuple[int, int]
    tokens: list[Token]
    maps: np.ndarray  # (L, H, T, T): how much the token of a row looks at that of a column; rows sum to 1
    layers: list[int]  # which layers of the model these are
    chosen: tuple[int, int]  # layer and head, as in `maps`, in which the two sentences most look at one another
    looks: list[tuple[int, int, float]]  # in that head, across: from token, to token, how much


@dataclass(frozen=True)
class Pooled:
    """One sentence, read alone: the vectors of its tokens, and the one that they become."""

    pieces: list[str]
    vectors: np.ndarray  # (T, D)
    pooled: np.ndarray  # (D,)
    how: tuple[str, ...]  # names of layers/pooling.py


@dataclass(frozen=True)
class Speed:
    load_seconds: float
    sentences: float  # a second
    tokens: float  # a second
    where: str


@dataclass(frozen=True)
class Findings:
    name: str
    facts: dict[str, str]  # about the model
    takes_segments: bool
    vocabulary: str  # WordPiece, BPE, Unigram
    sentences: list[Sentence]
    vectors: np.ndarray  # (N, D) of length 1
    searches: list[Search]
    groups: list[Group]
    places: np.ndarray  # (N, 2)
    variance: float  # the share of it that the plane keeps
    look: Look
    split: list[tuple[str, list[str]]]  # words that the vocabulary does not hold whole, and their pieces
    pooled: Pooled
    speed: Speed

    @property
    def settled(self) -> int:
        """How many sentences lie in a group of their own topic."""
        return sum(len(group.members) - len(group.strays) for group in self.groups)

    @property
    def found_first(self) -> int:
        return sum(search.rank == 1 for search in self.searches)

    @property
    def closest(self) -> list[tuple[int, int, float]]:
        """The sentence pairs nearest in meaning: two sentences and their cosine."""
        return closest(self.vectors)


def find_out(
    embed: Embedding, name: str, sentences: list[Sentence], load_seconds: float, note: Callable[[str], None]
) -> Findings:
    """Everything, in the order in which it is shown."""
    if not isinstance(embed.model, EncoderNetwork):
        family = embed.model.family.model_type
        raise Unsupported(f"{family} does not lay its attention open, which the tour shows; choose a BERT-like encoder")
    texts = [sentence.text for sentence in sentences]
    note(f"reading {len(texts)} sentences")
    vectors = normalized(np.stack(embed(texts)))
    note("searching")
    searches = search(embed.model, sentences)
    note("grouping")
    groups = gather(sentences, cluster(vectors, len({sentence.topic for sentence in sentences})))
    places, variance = principal_axes(vectors, 2)
    note("looking inside")
    first, second, _ = closest(vectors, 1)[0]
    look, pooled = look_inside(embed, (first, second), texts), pool(embed, texts[first])
    note("measuring the speed")
    return Findings(
        name=name,
        facts=facts(embed.model),
        takes_segments=embed.processor.segments,
        vocabulary=type(embed.processor.tokenizer.model).__name__,
        sentences=sentences,
        vectors=vectors,
        searches=searches,
        groups=groups,
        places=places,
        variance=variance,
        look=look,
        split=split_words(embed, texts),
        pooled=pooled,
        speed=measure(embed, texts, load_seconds),
    )


def facts(model: Any) -> dict[str, str]:
    """What a newcomer wants to know of a model."""
    c = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "family": model.family.model_type,
        "layers": str(c.num_layers),
        "heads in each": str(c.num_heads),
        "numbers a token": str(c.hidden_size),
        "vocabulary": f"{c.vocab_size:,} pieces",
        "weights": f"{parameters / 1e6:.1f} million" if parameters >= 1e5 else f"{parameters:,}",
    }


def search(model: Any, sentences: list[Sentence]) -> list[Search]:
    """Every query that a sentence brings, over all sentences."""
    task = SemanticSearch(model, corpus=[sentence.text for sentence in sentences], top_k=len(sentences))
    found = []
    for wanted, sentence in enumerate(sentences):
        if sentence.query is not None:
            hits = [(hit["corpus_id"], hit["score"]) for hit in task(sentence.query)]
            rank = 1 + [number for number, _ in hits].index(wanted)
            found.append(Search(sentence.query, wanted, rank, hits[:3]))
    return found


def gather(sentences: list[Sentence], labels: list[int]) -> list[Group]:
    """Groups in the order of the topics, each named for the topic of most of its sentences."""
    groups = []
    for label in sorted(set(labels)):
        members = [number for number, own in enumerate(labels) if own == label]
        topic = Counter(sentences[number].topic for number in members).most_common(1)[0][0]
        groups.append(Group(topic, members, [n for n in members if sentences[n].topic != topic]))
    order = [sentence.topic for sentence in sentences]
    return sorted(groups, key=lambda group: (order.index(group.topic), group.members))


def closest(vectors: np.ndarray, count: int = 5) -> list[tuple[int, int, float]]:
    """The pairs of (N, D) with the highest cosine, each once, best first."""
    cosines = np.where(np.tri(len(vectors), dtype=bool), -2.0, vectors @ vectors.T)  # above the diagonal
    best = np.argsort(-cosines, axis=None, kind="stable")[:count]
    return [(int(i), int(j), float(cosines[i, j])) for i, j in zip(*np.unravel_index(best, cosines.shape), strict=True)]


def look_inside(embed: Embedding, sentences: tuple[int, int], texts: list[str]) -> Look:
    """The pieces of two sentences read together, and where each looks."""
    first, second = (texts[number] for number in sentences)
    encoding, _ = embed.processor.cut(first, second)
    tokens = read_tokens(encoding, (first, second))
    model: Any = embed.model
    with torch.inference_mode():
        attention = model.attention_maps(**_batch(embed, [encoding]))
    maps = [one[0, :MOST_HEADS].float().cpu().numpy() for one in attention]
    layers = np.unique(np.linspace(0, len(maps) - 1, min(len(maps), MOST_LAYERS)).round().astype(int)).tolist()
    stacked = np.stack([maps[layer] for layer in layers])
    chosen = meeting_head(stacked, tokens)
    return Look(sentences, tokens, stacked, layers, chosen, strongest(stacked[chosen], tokens))


def read_tokens(encoding: Encoding, texts: tuple[str, str]) -> list[Token]:
    """The tokens of a pair. Which sentence each is in is counted here: not every model takes segments."""
    tokens: list[Token] = []
    for piece, id_, (start, end), special in zip(
        encoding.tokens, encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True
    ):
        before = tokens[-1].segment if tokens else 0
        # A sentence ends with a special token, which belongs to it; so what comes next is of the second.
        ended = bool(tokens) and tokens[-1].special and any(not token.special for token in tokens)
        segment = 1 if ended else before
        tokens.append(
            Token(piece, id_, segment, "" if special else texts[segment][start:end], (start, end), bool(special))
        )
    return tokens


def across(tokens: list[Token]) -> tuple[list[int], list[int]]:
    """Positions of the words of the first and of the second sentence."""
    sides: tuple[list[int], list[int]] = ([], [])
    for position, token in enumerate(tokens):
        if not token.special:
            sides[token.segment].append(position)
    return sides


def meeting_head(maps: np.ndarray, tokens: list[Token]) -> tuple[int, int]:
    """The layer and head in which words of the two sentences most look at one another, both ways at once."""
    first, second = across(tokens)
    there = maps[:, :, first][:, :, :, second]  # (L, H, T first, T second)
    back = maps[:, :, second][:, :, :, first].swapaxes(2, 3)
    layer, head = np.unravel_index(np.argmax((there * back).sum((2, 3))), maps.shape[:2])
    return int(layer), int(head)


def strongest(attention: np.ndarray, tokens: list[Token], count: int = 5) -> list[tuple[int, int, float]]:
    """Of (T, T), the strongest looks from words of one sentence to words of the other."""
    first, second = across(tokens)
    looks = [(i, j, float(attention[i, j])) for a, b in ((first, second), (second, first)) for i in a for j in b]
    return sorted(looks, key=lambda look: -look[2])[:count]


def pool(embed: Embedding, text: str) -> Pooled:
    """The vectors of the tokens of a text's first window, and the one that they become."""
    job = embed.prepare(text, embed.options({}))
    with torch.inference_mode():
        vectors = embed.model.features(**_batch(embed, job.windows[:1])).float().cpu()  # (1, T, D)
        (pooled,) = embed.recipe.pool(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool)).numpy()
    return Pooled(job.windows[0].tokens, vectors[0].numpy(), pooled, embed.recipe.poolings)


def _batch(embed: Embedding, encodings: list[Encoding]) -> dict[str, torch.Tensor]:
    place = next(embed.model.parameters()).device
    return {name: tensor.to(place) for name, tensor in embed.processor.collate(encodings).items()}


def split_words(embed: Embedding, texts: list[str], count: int = 9) -> list[tuple[str, list[str]]]:
    """The words in most pieces, and one that the vocabulary cannot spell at all."""
    unknown = embed.processor.token("unk_token")
    split: dict[str, list[str]] = {}
    strange: dict[str, list[str]] = {}
    for word in (word.strip(".,;:!?") for text in texts for word in text.split()):
        pieces = embed.processor.encode(word, special_tokens=False).tokens if word else []
        if unknown in pieces:
            strange[word] = pieces
        elif len(pieces) > 1 and word.isalpha():
            split[word] = pieces
    longest = sorted(split.items(), key=lambda item: -len(item[1]))
    return [*longest[:count], *list(strange.items())[:1]]


def measure(embed: Embedding, texts: list[str], load_seconds: float) -> Speed:
    """The fastest of several passes over all texts: what slows a pass down is other programs."""
    tokens = sum(len(embed.processor.encode(text)) for text in texts)
    passes: list[float] = []
    while sum(passes) < MEASURE_SECONDS or len(passes) < MEASURE_PASSES:
        start = time.perf_counter()
        embed(texts)
        passes.append(time.perf_counter() - start)
    seconds = min(passes)
    device = next(embed.model.parameters()).device.type
    threads = torch.get_num_threads()
    where = f"cpu, {threads} thread{'s' * (threads > 1)}" if device == "cpu" else device
    return Speed(load_seconds, len(texts) / seconds, tokens / seconds, where)
