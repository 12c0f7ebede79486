"""What a page is made of, for the tests of pages."""

import re
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "br", "img", "link", "input", "hr"}
FETCHING = {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
ASKING = {"src", "srcset", "href", "xlink:href", "action", "data", "poster", "background"}


class Page(HTMLParser):
    """Fails on a tag that closes another than the last opened."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def asking(self):
        """The kinds of tags that ask for something from outside."""
        return {tag for tag, attrs in self.tags if tag in FETCHING or ASKING & attrs.keys()}

    def undescribed(self):
        """Pictures that say nothing to those who cannot see them."""
        return [attrs for attrs in self.all("svg") if attrs.get("role") != "img" or not attrs.get("aria-label")]

    def skipped(self):
        """Headings, as levels before and after, that come more than one level below the one before."""
        levels = [int(tag[1]) for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]
        return [(before, after) for before, after in pairwise([0, *levels]) if after > before + 1]


def asks_by_style(text):
    """Whether its styles ask for something from outside."""
    return re.search(r"url\(|@import|expression\(", text) is not None
