"""What the engine puts in the place of ordinary layers, as the rooms above it see it."""

from torch import nn

from triarch.errors import InvalidInput


class Brick(nn.Module):
    """Computes what the layer that it replaces computes, faster or in another precision."""

    @property
    def rounded(self) -> bool:
        """Whether it holds its weights in fewer bits than were loaded, so that `plain` cannot give them back."""
        return False

    def plain(self) -> nn.Module:
        """The ordinary layer with the ordinary weights; the brick is not used after that."""
        raise NotImplementedError(f"{type(self).__name__} has no plain()")


def plain(model: nn.Module) -> None:
    """Put the ordinary layers back, with the parameters that optimizers may hold. Raises as `check_exact` does."""
    check_exact(model)
    found: dict[Brick, nn.Module] = {}
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if isinstance(child, Brick):
                setattr(module, name, found.get(child) or found.setdefault(child, child.plain()))


def check_exact(model: nn.Module) -> None:
    """Raises InvalidInput for a model that does not hold all bits of the weights that were loaded."""
    if any(isinstance(module, Brick) and module.rounded for module in model.modules()):
        raise InvalidInput(
            'the weights were rounded by precision="bfloat16"; load the model without precision to save or train it'
        )
