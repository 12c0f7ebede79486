"""Rotary positions: queries and keys are turned by an angle that grows with the position.

Su et al. 2021, RoFormer, https://arxiv.org/abs/2104.09864. A head of size E has E / 2 angles; the frequency of each is
how far it turns from one token to the next. The kinds below `Rotary` change the frequencies, so that a model reads
longer texts than it was trained on.

Shapes: B sequences, T tokens, H heads, E size of a head.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]  # cosines and signed sines, as `rotate` takes them


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """The frequencies of section 3.2.2: theta ** (-2i / E)."""

    size: int  # E
    theta: float

    def __call__(self, places: Tensor, lengths: Tensor | int, dtype: torch.dtype) -> Rotation:
        """Positions (T,) or (B, T), and how long the text of each is so far -> the rotation, once for all layers."""
        if isinstance(lengths, int):
            frequencies = _frequencies(self, self.kind(lengths), places.device)
        else:
            found, which = lengths.unique(return_inverse=True)
            frequencies = torch.stack([_frequencies(self, self.kind(n), places.device) for n in found.tolist()])[which]
        angles = places[..., None].float() * frequencies  # (T, E/2) or (B, T, E/2)
        cos, sin = angles.cos() * self.magnitude, angles.sin() * self.magnitude
        cos, sin = torch.cat([cos, cos], -1).to(dtype), torch.cat([-sin, sin], -1).to(dtype)
        return (cos[:, None], sin[:, None]) if places.ndim == 2 else (cos, sin)  # (B, 1, T, E) or (T, E)

    @property
    def magnitude(self) -> float:
        """What cosines and sines are multiplied by, and with it, squared, the scores of attention."""
        return 1.0

    def reach(self, positions: int) -> int:
        """How many tokens a model whose config says `positions` reads."""
        return positions

    def kind(self, length: int) -> int:
        """Texts of lengths with the same number here have the same frequencies."""
        return 0

    def frequencies(self, kind: int) -> Tensor:
        """(E / 2,), in float32 and in the order of operations that models were trained with."""
        return self._plain(self.theta)

    def _plain(self, theta: float) -> Tensor:
        return 1.0 / theta ** (torch.arange(0, self.size, 2, device="cpu").float() / self.size)


@dataclass(frozen=True, kw_only=True)
class Linear(Rotary):
    """Positions are pressed together. Chen et al. 2023, https://arxiv.org/abs/2306.15595"""

    factor: float

    def reach(self, positions: int) -> int:
        return max(positions, int(positions * self.factor))

    def frequencies(self, kind: int) -> Tensor:
        return self._plain(self.theta) / self.factor


@dataclass(frozen=True, kw_only=True)
class Dynamic(Rotary):
    """A larger theta, the longer a text is beyond what the model was trained on.

    Peng et al. 2023, section 3.3 and appendix B.1, https://arxiv.org/abs/2309.00071
    """

    factor: float
    trained: int  # tokens

    def reach(self, positions: int) -> int:
        return max(positions, int(positions * self.factor))

    def kind(self, length: int) -> int:
        return max(length, self.trained)

    def frequencies(self, kind: int) -> Tensor:
        stretch = self.factor * kind / self.trained - (self.factor - 1)
        return self._plain(self.theta * stretch ** (self.size / (self.size - 2)))


@dataclass(frozen=True, kw_only=True)
class Llama3(Rotary):
    """Slow frequencies are divided, fast ones kept, those between blended. Grattafiori et al. 2024, section 3.4.3,
    https://arxiv.org/abs/2407.21783"""

    factor: float
    trained: int
    low: float  # turns within `trained` tokens, below which a frequency is slow
    high: float  # and above which it is fast

    def frequencies(self, kind: int) -> Tensor:
        plain = self._plain(self.theta)
        turns = self.trained * plain / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return plain * kept + plain / self.factor * (1 - kept)


@dataclass(frozen=True, kw_only=True)
class Yarn(Rotary):
    """Slow frequencies are divided, fast ones kept, on a ramp along the head; and attention is sharpened.

    Peng et al. 2023, sections 3.2 and 3.4, https://arxiv.org/abs/2309.00071
    """

    factor: float
    trained: int
    fast: float  # turns within `trained` tokens, at which the ramp begins
    slow: float  # and at which it ends
    sharpness: float
    truncate: bool = True  # the ramp begins and ends at whole numbers

    @property
    def magnitude(self) -> float:
        return self.sharpness

    def reach(self, positions: int) -> int:
        return max(positions, int(self.trained * self.factor))

    def frequencies(self, kind: int) -> Tensor:
        first, last = self._turning(self.fast), self._turning(self.slow)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, self.size - 1)
        index = torch.arange(self.size // 2, device="cpu").float()
        divided = ((index - first) / ((last - first) or 0.001)).clamp(0, 1)
        plain = self._plain(self.theta)
        return plain / self.factor * divided + plain * (1 - divided)

    def _turning(self, turns: float) -> float:
        """Which of the frequencies makes so many turns within `trained` tokens."""
        return self.size * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(self.theta))


@dataclass(frozen=True, kw_only=True)
class LongRope(Rotary):
    """A divisor for each frequency, found by search; others for texts longer than the model was first trained on.

    Ding et al. 2024, https://arxiv.org/abs/2402.13753
    """

    trained: int
    short: tuple[float, ...]  # E / 2 each
    long: tuple[float, ...]
    sharpness: float

    @property
    def magnitude(self) -> float:
        return self.sharpness

    def kind(self, length: int) -> int:
        return int(length > self.trained)

    def frequencies(self, kind: int) -> Tensor:
        divisors = torch.tensor(self.long if kind else self.short, device="cpu")
        exponents = torch.arange(0, self.size, 2, device="cpu").float() / self.size
        return 1.0 / (divisors * self.theta**exponents)


@lru_cache(maxsize=256)  # decoding asks for the same ones at every token
def _frequencies(rotary: Rotary, kind: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or no training could use them later
        return rotary.frequencies(kind).to(device)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """(B, H, T, E): the first half of a head and the second are the two coordinates of its angles."""
    cos, sin = rotation
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
