"""A GPT of letters on Shakespeare, ours beside nanoGPT's setting for a CPU, in one run.

    python recipes/prepare.py shakespeare --data DIR
    triarch tokenizer train work/data/shakespeare/*.txt --kind characters --family gpt2 --vocab-size 100 -o work/letters
    python benchmarks/nanogpt.py

nanoGPT itself is no package to install, so the peer here was written anew from what it publishes: GPT-2's layers
without biases, tied embeddings, fused queries, keys and values, torch's attention; windows drawn at random; AdamW with
betas 0.9 and 0.99 and a weight decay of 0.1 on matrices, gradients clipped at 1.0, a rate that rises to 1e-3 over 100
steps and falls along half a wave to 1e-4 at step 2,000; float32, not compiled. Ours is recipes/shakespeare.toml: the
same sizes of layers, windows and batches, and half as many steps, of Muon.

Each runs in a process of its own with the same threads, in turns. Seconds are those of the steps alone, without
measurements. Those of the processor, which tell more on a machine that is not quiet, are of the whole training, with
reading and writing. The loss on the last tenth is that of 20 batches of random windows, as nanoGPT estimates it, and
that of all windows that lie side by side, each with the same draws for both.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEPS, WARMUP, BATCH, CONTEXT, LAYERS, HEADS, WIDTH = 2000, 100, 12, 64, 4, 4, 128
RATE, LOWEST = 1e-3, 1e-4
TEXTS, RECIPE = Path("work/data/shakespeare"), Path("recipes/shakespeare.toml")


def letters(text: str, alphabet: str) -> np.ndarray:
    numbers = {letter: number for number, letter in enumerate(alphabet)}
    return np.array([numbers[letter] for letter in text], np.int64)


def held_out(logits_of, ids: np.ndarray) -> dict[str, float]:
    """The mean loss of random windows, and of all that lie side by side. `logits_of`: ids (B, T) -> (B, T, V)."""
    import torch
    import torch.nn.functional as F

    def loss_at(starts: np.ndarray) -> float:
        rows = torch.from_numpy(ids[starts[:, None] + np.arange(CONTEXT + 1)])
        return float(F.cross_entropy(logits_of(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()))

    draw = np.random.default_rng(0)
    with torch.inference_mode():
        drawn = [loss_at(draw.integers(len(ids) - CONTEXT, size=BATCH)) for _ in range(20)]
        whole = [loss_at(np.array([start])) for start in range(0, len(ids) - CONTEXT, CONTEXT)]
    return {"random": float(np.mean(drawn)), "all": float(np.mean(whole))}


# The peer


def peer(seed: int) -> dict[str, float]:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
            self.qkv, self.out = (nn.Linear(WIDTH, size * WIDTH, bias=False) for size in (3, 1))
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            B, T, D = x.shape
            parts = self.qkv(self.norms[0](x)).split(D, dim=2)
            q, k, v = (part.view(B, T, HEADS, D // HEADS).transpose(1, 2) for part in parts)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).contiguous().view(B, T, D)
            x = x + self.out(y)
            return x + self.down(F.gelu(self.up(self.norms[1](x))))

    class Model(nn.Module):
        def __init__(self, letters: int) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(letters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm, self.words = nn.LayerNorm(WIDTH, bias=False), nn.Linear(WIDTH, letters, bias=False)
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    residual = name.endswith(("out.weight", "down.weight"))
                    nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS if residual else 1))
            self.words.weight = self.token.weight

        def forward(self, ids: Tensor) -> Tensor:
            x = self.token(ids) + self.position(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.words(self.norm(x))

    torch.manual_seed(seed)
    used = time.process_time()
    texts = [(TEXTS / f"{part}.txt").read_text(encoding="utf-8") for part in ("train", "validation")]
    alphabet = "".join(sorted(set("".join(texts))))
    learned, measured = (letters(text, alphabet) for text in texts)
    model = Model(len(alphabet))
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99))

    def batch() -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(learned) - CONTEXT, (BATCH,)).tolist()
        x = torch.stack([torch.from_numpy(learned[start : start + CONTEXT]) for start in starts])
        y = torch.stack([torch.from_numpy(learned[start + 1 : start + 1 + CONTEXT]) for start in starts])
        return x, y

    begin = time.perf_counter()
    x, y = batch()
    for step in range(STEPS):
        wave = 0.5 * (1 + math.cos(math.pi * max(0, step - WARMUP) / (STEPS - WARMUP)))
        rate = RATE * (step + 1) / (WARMUP + 1) if step < WARMUP else LOWEST + wave * (RATE - LOWEST)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        x, y = batch()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # nanoGPT prints it at each step in this setting
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    model.eval()
    return {"seconds": seconds, "used": used} | held_out(model, measured)


# Ours


def ours(seed: int) -> dict[str, float]:
    import torch  # noqa: F401 - before the clock starts, as for the peer

    import triarch
    from triarch.training.settings import read_recipe

    recipe = read_recipe(RECIPE)
    with tempfile.TemporaryDirectory() as folder:
        used = time.process_time()
        given = {name: value for name, value in recipe.items() if name not in ("validation", "evaluate_every")}
        found = triarch.train(**given | {"output": folder, "seed": seed}, note=lambda line: None)
        used = time.process_time() - used
        model = triarch.load(folder)
    text = (TEXTS / "validation.txt").read_text(encoding="utf-8")
    ids = np.array(model.processor.encode(text, special_tokens=False, parse_special=False).ids)
    return {"seconds": found["seconds"], "used": used} | held_out(lambda rows: model(rows).logits, ids)


def alone(who: str, seed: int, threads: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--one", who, "--seed", str(seed)]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="each with a seed of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", choices=("ours", "peer"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps({"ours": ours, "peer": peer}[given.one](given.seed)))
        sys.exit()
    names = {"ours": "triarch", "peer": "nanoGPT's setting"}
    print(f"batches of {BATCH} x {CONTEXT} letters, float32, {given.threads} threads")
    for seed in range(given.seed, given.seed + given.rounds):
        for who, name in names.items():
            one = alone(who, seed, given.threads)
            losses = f"loss {one['random']:.4f} of 20 random batches, {one['all']:.4f} of all"
            spent = f"{one['seconds']:>8.1f} s{one['used']:>8.1f} s of the processor"
            print(f"  {name:<20}{spent}   {losses}   seed {seed}", flush=True)
