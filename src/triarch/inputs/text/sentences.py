"""Where sentences end, by simple rules, and texts in pieces of whole sentences.

A sentence ends after . ! ? or …, and the quotes and brackets that close there, where white space follows and then, past
opening quotes and brackets, anything but a lower-case letter; but not after a title such as "Mr." or a single initial.
After 。 ！ ？ it ends at once.
"""

import re
from collections.abc import Callable

TITLES = frozenset(
    ("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Messrs", "Mme", "Mlle", "Col", "Capt", "Lieut", "Lt", "Gen", "Sgt", "Rev")
)
END = re.compile(r"""[.!?…؟।][)\]}"'”’»*_]*(?=\s+[("'“‘«\[*_]*(\w))|[。！？][」』”’）]*""")
WORD = re.compile(r"\w{1,7}$")
BREAK = re.compile(r"\n\s*")
SPACE = re.compile(r"\s+")


def sentence_ends(text: str) -> list[int]:
    """Where sentences end within a paragraph, its own end left out: each character belongs to one sentence."""
    ends = []
    for found in END.finditer(text):
        after = found.group(1)
        if after and after.islower():
            continue
        if text[found.start()] == "." and (word := WORD.search(text, max(found.start() - 8, 0), found.start())):
            before = word.group()
            if before in TITLES or (len(before) == 1 and before.isupper() and before != "I"):
                continue
        if found.end() < len(text):
            ends.append(found.end())
    return ends


def pieces(text: str, size: Callable[[str], int], room: int) -> list[str]:
    """The text in pieces of like length, each of at most `room` by `size`; joined they are the text again.

    They end where a line or a sentence ends, where there is no such place at a space, and else anywhere: a piece that
    does not fit has a single character beside white space.
    """
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())  # white space is no piece by itself
    if (found := size(text)) <= room or last - first < 2:
        return [text]
    count = -(-found // room)
    wish = first + max((last - first) * (count // 2) // count, 1)
    ends = [*(match.end() for match in BREAK.finditer(text)), *sentence_ends(text)]
    choices = (ends, [match.end() for match in SPACE.finditer(text)], [wish])
    inner = next(inner for places in choices if (inner := [place for place in places if first < place < last]))
    at = min(inner, key=lambda place: abs(place - wish))
    return [*pieces(text[:at], size, room), *pieces(text[at:], size, room)]
