"""The same model with fresh weights: what a recipe gives without what its model knew before.

python recipes/fresh.py work/bart-french work/bart-fresh
"""

import argparse
from pathlib import Path

import torch

import triarch
from triarch import surgery


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = triarch.load(given.model)
    torch.manual_seed(given.seed)
    fresh = model.family.build(model.config, model.architecture)
    fresh.processor, fresh.sidecars = model.processor, model.sidecars
    surgery.save_new(fresh, given.output)
    print(given.output)


if __name__ == "__main__":
    main()
