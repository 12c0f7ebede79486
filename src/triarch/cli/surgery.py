"""Give a trained model new parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from triarch.cli._output import json_option, pairs, to_json


@click.group()
def command() -> None:
    """Give a trained model new parts."""


@command.command("add-source-encoder")
@click.argument("bart")
@click.option("--tokenizer", required=True, help="Folder with the vocabulary of the new source language.")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder for the new model.")
@click.option("--layers", type=click.IntRange(min=1), default=6, show_default=True, help="Blocks of the new encoder.")
@click.option("--heads", type=click.IntRange(min=1), help="Heads of its attention; by default as BART's.")
@click.option("--intermediate-size", type=click.IntRange(min=1), help="Width of its network; by default as BART's.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest source; by default as BART's.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of its first weights.")
@json_option
def add_source_encoder(bart: str, tokenizer: str, output: Path, as_json: bool, **options: Any) -> None:
    """Let BART read another language: an encoder with fresh weights in the place of its token vectors.

    It is trained in two stages, first with little else, then all together:

    \b
    triarch surgery add-source-encoder facebook/bart-base --tokenizer french -o french-bart
    triarch train pairs.jsonl -m french-bart -o translator --objective seq2seq --stages @paper:5000 --stages all

    What else the first stage trains: nothing (@source), BART's positions and the queries, keys and values of its first
    layer (@paper), or its positions and token vectors (@course).
    """
    from triarch import surgery

    model = surgery.add_source_encoder(bart, tokenizer, **options)
    surgery.save_new(model, output)
    found = {
        "folder": str(output),
        "family": model.family.model_type,
        "architecture": model.architecture,
        "new parameters": sum(model.get_parameter(name).numel() for name in model.fresh),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "reads": f"{model.config.vocab_size:,} tokens, {model.config.max_tokens:,} at most",
        "writes": f"{model.config.target_vocab_size:,} tokens, {model.config.max_target_tokens:,} at most",
    }
    for line in [to_json(found)] if as_json else pairs(found):
        click.echo(line)
