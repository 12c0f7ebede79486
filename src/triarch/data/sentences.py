"""Running text -> paragraphs, and blocks of it that can be held, cut where sentences end.

A blank line ends a paragraph; other line ends count as spaces.
"""

from collections.abc import Iterable, Iterator

from triarch import limits
from triarch.inputs.text.sentences import sentence_ends


def parts(lines: Iterable[str], exact: bool) -> Iterator[str]:
    """Paragraphs; or `exact`: the lines as they are, with an end between any two, in parts that can be held."""
    return blocks(lines) if exact else paragraphs(lines)


def blocks(lines: Iterable[str]) -> Iterator[str]:
    """The text that lines make, to the letter, cut where a sentence ends, else before a space, where it is too long."""
    held: list[str] = []
    size = 0
    for number, line in enumerate(lines):
        held += ["\n", line] if number else [line]
        size += len(line) + 1
        if size > limits.BLOCK_CHARACTERS:
            *whole, rest = _blocks("".join(held))
            yield from whole
            held, size = [rest], len(rest)
    if held:
        yield from _blocks("".join(held))


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """The paragraphs that lines make, each on one line. One too long to be held is cut between sentences."""
    held: list[str] = []
    size = 0
    for line in lines:
        if line.strip():
            held.append(line)
            size += len(line) + 1
        if held and (not line.strip() or size > limits.BLOCK_CHARACTERS):
            *whole, rest = _blocks(" ".join(held))
            yield from whole
            held, size = [rest], len(rest)
            if not line.strip():
                yield rest
                held, size = [], 0
    if held:
        yield from _blocks(" ".join(held))


def _blocks(text: str) -> list[str]:
    """A text in blocks of at most BLOCK_CHARACTERS, cut at the end of a sentence, else at a space, else anywhere."""
    blocks, start = [], 0
    while len(text) - start > limits.BLOCK_CHARACTERS:
        block = text[start : start + limits.BLOCK_CHARACTERS]
        at = (sentence_ends(block) or [0])[-1] or max(block.rfind(" "), 0) or len(block)
        blocks.append(block[:at])
        start += at
    return [*blocks, text[start:]]
