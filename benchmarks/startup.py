"""How long it takes until something happens: `import`, and the command line's help, beside the reference's import.

    python benchmarks/startup.py

Each is the best of five processes. Limits of the house: `import triarch` under 0.1 s, `triarch --help` under 0.3 s,
both beyond the interpreter's own start; exits with 1 when one is missed.
"""

import subprocess
import sys
import time

LIMITS = {"import triarch": 0.1, "triarch --help": 0.3}
COMMANDS = {
    "python alone": ["-c", "pass"],
    "import triarch": ["-c", "import triarch"],
    "triarch --help": ["-m", "triarch", "--help"],
    "triarch run --help": ["-m", "triarch", "run", "--help"],
    "triarch.pipeline, with torch": ["-c", "import triarch; triarch.pipeline; import triarch.checkpoint"],
    "torch alone": ["-c", "import torch"],
    "transformers' pipeline": ["-c", "from transformers import pipeline"],
}


def seconds(arguments: list[str]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    found = {name: seconds(arguments) for name, arguments in COMMANDS.items()}
    late = False
    for name, value in found.items():
        own = value - found["python alone"]
        missed = own > LIMITS.get(name, float("inf"))
        late |= missed
        limit = f"   limit {LIMITS[name]} s{', MISSED' if missed else ''}" if name in LIMITS else ""
        print(f"{name:32}{value:7.3f} s   {own:7.3f} s beyond python{limit}")
    sys.exit(late)


if __name__ == "__main__":
    main()
