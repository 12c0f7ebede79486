"""The typed errors. Each is one line — found / wanted / what to do — and knows its exit code and HTTP status.

Everything that a user, a file or a request can cause ends in one of these; any other exception is our own mistake.
Exit codes: 0 done, 1 failure, 2 wrong use, 3 done but some inputs failed, 4 not found or offline, 5 refused as unsafe
or corrupt, 130 Ctrl-C, 143 SIGTERM.
"""

SOME_FAILED = 3  # exit code of a run over many inputs in which some were answered and some were not


class TriarchError(Exception):
    """What every error of this library derives from."""

    exit_code = 1
    http_status = 500


class InvalidInput(TriarchError, ValueError):
    """A value from outside is not one that the callee takes."""

    exit_code = 2
    http_status = 400


class LimitExceeded(InvalidInput):
    """Larger than a bound of `limits.py`, or than the model can take when cutting was ruled out."""

    http_status = 413


class Unsupported(TriarchError):
    """Understood, but not something that this library, or this checkpoint, can do."""

    http_status = 400


class NotFound(TriarchError):
    """A file, folder, model, family or task that is not there."""

    exit_code = 4
    http_status = 404


class Offline(NotFound):
    """Needs the network, which is switched off or does not answer."""

    http_status = 503


class CorruptFile(TriarchError):
    """A file that breaks its own format."""

    exit_code = 5
    http_status = 422


class UnsafeFile(TriarchError):
    """A file that asks for something no model file needs: code, a path outside its folder, a device."""

    exit_code = 5
    http_status = 422


class CheckpointMismatch(InvalidInput):
    """The checkpoint and the model do not describe the same parameters; all differences are in one error."""

    exit_code = 5

    def __init__(self, head: str, missing: list[str], unexpected: list[str], misshaped: list[str], advice: str):
        self.missing, self.unexpected, self.misshaped = missing, unexpected, misshaped
        kinds = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
        parts = [f"{len(names)} {kind} ({some(names)})" for kind, names in kinds.items() if names]
        super().__init__(f"checkpoint does not fit {head}: {'; '.join(parts)}; {advice}")


def show(text: object, limit: int = 120) -> str:
    """Text from outside, safe to print on one line: control characters escaped, long text shortened."""
    shown = str(text)[: limit + 1]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def some(names: list[str], count: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    listed = ", ".join(show(name) for name in names[:count])
    return listed if len(names) <= count else f"{listed}, and {len(names) - count} more"
