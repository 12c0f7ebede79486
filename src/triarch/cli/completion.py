"""Print the script that completes verbs, tasks and options."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that completes verbs, tasks and options.

    \b
    bash  eval "$(triarch completion bash)"         in ~/.bashrc
    zsh   eval "$(triarch completion zsh)"          in ~/.zshrc
    fish  triarch completion fish | source          in ~/.config/fish/config.fish
    """
    from triarch.cli import COMPLETE

    made = get_completion_class(shell)
    assert made is not None  # click has all three
    click.echo(made(context.find_root().command, {}, "triarch", COMPLETE).source())
