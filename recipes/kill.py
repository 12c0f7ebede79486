"""Kill a training run again and again, and look whether it ends as one that was left in peace.

    python recipes/kill.py --kills 50

A tiny model is made on the spot and trained by the command line, in processes that SIGKILL ends at random points: about
half of the time goes into writing checkpoints. Each is followed by one with --resume. The table has a line for each
process: the checkpoint that it began with, how far it came, the newest checkpoint that it left, and whether a half
written one lay beside. At the end, or whenever a run gets to its end before that, model, checkpoints and log are
compared to the bit with those of the run that was left in peace. Anything amiss ends it with exit code 1.
"""

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from triarch.errors import TriarchError
from triarch.training import state

WORDS = ["good", "lovely", "great", "kind", "bad", "boring", "awful", "rude", "film", "book", "day", "song", "a", "the"]
STEPS = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="how often (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills (default: 0)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="triarch-kill-") as folder:
        wrong = trial(Path(folder), given.kills, random.Random(given.seed))
    print("\n".join(wrong) or "every run went on from a valid checkpoint, and ended as if it had not been killed")
    sys.exit(bool(wrong))


def trial(folder: Path, kills: int, rng: random.Random) -> list[str]:
    """What was amiss."""
    make_inputs(folder)
    begin = time.monotonic()
    run = start(folder, "peace")
    err = run.communicate()[1]
    if run.returncode:
        sys.exit(f"kill.py: the run that is left in peace fails: {err}")
    print(f"in peace: {STEPS} steps in {time.monotonic() - begin:.1f} s")
    print(f"{'kill':>4} {'from':>5} {'came to':>8} {'newest':>7}  half written")
    wrong: list[str] = []
    turn, saved, before = 0, 0, 0
    for kill in range(1, kills + 1):
        output = folder / f"killed-{turn}"
        run = start(folder, output.name, "--resume")
        wait(run, output, before + rng.randrange(8))
        time.sleep(rng.random() * 0.1)
        finished = newest(output)  # while it is still alive
        run.kill()
        said = run.communicate()[1]
        begun = [int(step) for step in re.findall(r"going on from step (\d+)", said)]
        left = newest(output)
        half = sorted(path.name for path in (output / "training" / "checkpoints").glob(".*"))
        came = last_step(output)
        print(f"{kill:4} {begun[0] if begun else 0:5} {came:8} {left:7}  {', '.join(half)}", flush=True)
        if "damaged" in said or "set aside" in said or run.returncode not in (0, -9):
            wrong.append(f"kill {kill}: exit {run.returncode}: {said.splitlines()[-1:]}")
        if begun and begun[0] < saved:
            wrong.append(f"kill {kill}: went on from step {begun[0]}, where step {saved} was on disk")
        if left < max(saved, finished):
            wrong.append(f"kill {kill}: the newest valid checkpoint is that of step {left}, step {finished} was there")
        saved, before = left, left
        if came == STEPS or kill == kills:
            wrong += end(folder, output)
            turn, saved, before = turn + 1, 0, 0
    return wrong


def end(folder: Path, output: Path) -> list[str]:
    run = start(folder, output.name, "--resume")
    err = run.communicate()[1]
    if run.returncode:
        return [f"{output.name}: exit {run.returncode}: {err}"]
    peace, found = what_is_left(folder / "peace"), what_is_left(output)
    different = sorted(name for name in peace.keys() | found.keys() if peace.get(name) != found.get(name))
    print(f"{output.name} at its end: {len(peace) - len(different)} of {len(peace)} parts are the same to the bit")
    return [f"{output.name} differs in {', '.join(different)}"] if different else []


def make_inputs(folder: Path) -> None:
    """A vocabulary, and texts of two labels."""
    (folder / "vocabulary").mkdir()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocabulary" / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    rng = random.Random(0)
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        for i in range(64):
            text = " ".join(rng.choices(WORDS[:4] if i % 2 else WORDS[4:8], k=2) + rng.choices(WORDS[8:], k=i % 9))
            file.write(json.dumps({"text": text, "label": "good" if i % 2 else "bad"}) + "\n")


def start(folder: Path, output: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "triarch", "train", "texts.jsonl"]
    command += ["--family", "bert", "--tokenizer", "vocabulary", "--output", output, *more]
    for name, size in {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "intermediate_size": 128}.items():
        command += ["--config", f"{name}={size}"]
    command += ["--steps", str(STEPS), "--batch-size", "4", "--lr", "1e-3", "--save-every", "2", "--average", "0.9"]
    command += ["--validation", "texts.jsonl", "--evaluate-every", "7", "--stages", "head:20", "--stages", "all"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **streams)  # type: ignore[call-overload, no-any-return]


def wait(run: subprocess.Popen[str], output: Path, step: int) -> None:
    """Until the log has gone past a step, or the process is done. The log is cut when a run goes on."""
    log = output / "training" / "log.jsonl"
    begin, first = time.time(), log.stat().st_mtime if log.exists() else 0
    while run.poll() is None and time.time() < begin + 120:
        if log.exists() and log.stat().st_mtime > first and last_step(output) > step:
            return
        time.sleep(0.002)


def lines(output: Path) -> list[dict]:
    """The log without times, and without the half line that a kill may leave."""
    log = output / "training" / "log.jsonl"
    found = []
    for line in log.read_bytes().splitlines() if log.exists() else []:
        try:
            found.append({name: value for name, value in json.loads(line).items() if name != "seconds"})
        except ValueError:
            continue
    return found


def last_step(output: Path) -> int:
    return max((line["step"] for line in lines(output)), default=0)


def newest(output: Path) -> int:
    """The newest step whose checkpoint is whole; 0 without any."""
    for path in sorted((output / "training" / "checkpoints").glob("step-????????"), reverse=True):
        try:
            return state.verified(path, int(path.name[5:])).step
        except (TriarchError, OSError):  # or it was removed just now
            continue
    return 0


def what_is_left(output: Path) -> dict[str, object]:
    tensors = sorted(output.rglob("*.safetensors"))
    sums = {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in tensors}
    return sums | {f"log, step {i}": line for i, line in enumerate(lines(output))}


if __name__ == "__main__":
    main()
