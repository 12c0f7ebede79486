"""Write a text from another one, as the checkpoint was taught to: any task that an encoder–decoder has.

triarch run text2text-generation "question: Who wrote it? context: Ada wrote it." -m google/flan-t5-small
"""

from __future__ import annotations

from triarch.tasks._writing import Writing


class Text2TextGeneration(Writing):
    """Text -> [{"generated_text"}], one for each sequence. A long text is read in pieces, whose answers are joined."""

    TRY = "Studies have shown that owning a dog is good for you."
    STARTERS = {"text2text-generation": "rewriting"}

    NAME = "generated"
    PARAMS = "text2text-generation"
