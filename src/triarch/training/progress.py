"""What a run shows while it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

NOTE_SECONDS = 30.0  # between lines of progress where stderr is no terminal


class Progress:
    """A bar on a terminal; elsewhere, such as in a file, a line now and then."""

    def __init__(self, done: int, total: int, note: Callable[[str], None]):
        self.done, self.total, self.note = done, total, note
        hidden = None if sys.stderr else True  # None: where stderr is no terminal
        self.bar = tqdm(total=total, initial=done, unit="step", disable=hidden, dynamic_ncols=True)
        self.first, self.start, self.told = done, time.monotonic(), time.monotonic()
        self.rate = 0.0  # tokens a second, averaged over about the last 20 steps

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def step(self, loss: float, tokens: int, seconds: float) -> None:
        rate = tokens / max(seconds, 1e-9)
        self.rate = rate if not self.rate else 0.95 * self.rate + 0.05 * rate
        self.done += 1
        self.bar.set_postfix_str(f"loss {loss:.4g}, {self.rate:,.0f} tokens/s", refresh=False)
        self.bar.update(1)
        now = time.monotonic()
        if self.bar.disable and now - self.told >= NOTE_SECONDS:
            left = (now - self.start) / (self.done - self.first) * (self.total - self.done)
            self.note(
                f"step {self.done:,} of {self.total:,}, loss {loss:.4g}, {self.rate:,.0f} tokens/s, {_clock(left)} left"
            )
            self.told = now

    def say(self, line: str) -> None:
        if self.bar.disable:
            self.note(line)
        else:
            self.bar.write(line, file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
