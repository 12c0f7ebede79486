"""Processes that start at once: forks of one that has imported torch and triarch, and has done nothing else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import triarch

SERVER = """
import json, os, sys, traceback
import torch._dynamo, triarch.training.finish
assert "huggingface_hub" not in sys.modules  # it reads the environment when it is imported
for line in sys.stdin:
    order = json.loads(line)
    if child := os.fork():
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.environ.clear()
    os.environ.update(order["environment"])
    for number in (1, 2):
        os.dup2(os.open(order["streams"][number - 1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if not order["sync"]:
        os.fsync = lambda descriptor: None
    sys.argv = ["-c", *order["arguments"]]
    code = 0
    try:
        exec(order["code"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)
"""
TRIARCH = "import sys; from triarch.cli import main; sys.exit(main())"


class Forks:
    """The process that forks. Of its children one runs at a time."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(Path(triarch.__file__).parents[1])}
        command = [sys.executable, "-c", SERVER]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)

    def start(
        self,
        code: str,
        *arguments: object,
        out: str | os.PathLike[str] = os.devnull,
        err: str | os.PathLike[str] = os.devnull,
        environment: dict[str, str] | None = None,
        sync: bool = True,
    ) -> "Fork":
        """Run code with these arguments; `out` and `err` are files that its streams are appended to.

        Without `sync` files are not waited for: what is not on disk yet is in memory, which no test takes away.
        """
        order = {
            "code": code,
            "arguments": [*map(str, arguments)],
            "streams": [os.fspath(out), os.fspath(err)],
            "environment": dict(os.environ) if environment is None else environment,
            "sync": sync,
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return Fork(self, int(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Fork:
    """One child."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self.forks, self.pid = forks, pid

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code, or the signal that ended it as a negative number."""
        return int(self.forks.process.stdout.readline())
