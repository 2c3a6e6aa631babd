"""Programs run as processes of their own without each paying 6 CPU-seconds for the import of torch and Lightning.

One process, started by the first test that wants it, has imported the packages of others that training needs, and
forks itself for every program. All of our own code is imported by the fork, as in a process started afresh. It must
never compute with tensors itself: threads do not survive a fork.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

PACKAGES = (
    "hydra.main",
    "lightning",
    "rich",
    "tifffile",
    "torch",
    "torchmetrics",
    "torchvision.transforms.v2",
    "wandb",
)
SECONDS = 900  # longer, and a program is stuck


class WarmPython:
    """Starts programs as forks of one process; `stop` ends that."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def start(self, arguments: list[str], cwd: Path, environment: dict[str, str], out: int, err: int) -> "Fork":
        """`python ARGUMENTS`, a script or what `-c` or `-m` gives, with its output in two file descriptors."""
        return Fork(self, arguments, self.ask([arguments, str(cwd), environment], [out, err]))

    def ask(self, request: list, descriptors: Sequence[int] = ()) -> int | None:
        socket.send_fds(self.socket, [json.dumps(request).encode()], descriptors)
        return json.loads(self.socket.recv(64))

    def stop(self) -> None:
        self.socket.close()
        self.process.wait()


class Fork:
    """A program that runs: what tests use of `subprocess.Popen`."""

    def __init__(self, parent: WarmPython, arguments: list[str], pid: int) -> None:
        self.parent, self.args, self.pid = parent, arguments, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(os.WNOHANG)

    def wait(self) -> int:
        return self._ended(0)

    def _ended(self, how: int) -> int | None:
        if self.returncode is None:
            self.returncode = self.parent.ask([self.pid, how])
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


def serve(asked: socket.socket) -> None:
    """Forks for every request, until there is nobody to ask."""
    for package in PACKAGES:
        importlib.import_module(package)
    gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(asked, 1 << 20, 2)
        if not request:
            return
        match json.loads(request):
            case [int(pid), how]:
                ended, status = os.waitpid(pid, how)
                answer = os.waitstatus_to_exitcode(status) if ended else None
            case [arguments, cwd, environment]:
                answer = os.fork()
                if answer == 0:
                    asked.close()
                    os._exit(become(arguments, cwd, environment, *descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        asked.send(json.dumps(answer).encode())


def become(arguments: list[str], cwd: str, environment: dict[str, str], out: int, err: int) -> int:
    """What the interpreter does before a program, the program, what the interpreter does after; the exit status."""
    for to, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(descriptor, to)
        os.close(descriptor)
    atexit._clear()  # of what packages registered when imported: wandb would remove a folder that all forks share
    # Where the tests run in the background of a script, they were started with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(SECONDS)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    first, *rest = arguments
    path = str(Path(first).resolve().parent) if first not in ("-c", "-m") else cwd
    sys.path[:1] = [path, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = rest if first == "-m" else [first, *rest[1:]] if first == "-c" else arguments
    try:
        match first:
            case "-c":
                exec(rest[0], {"__name__": "__main__"})  # noqa: S102
            case "-m":
                runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
            case _:
                runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = 1 if isinstance(end.code, str) else end.code or 0
    except BaseException:
        status = 1
        traceback.print_exc()
    else:
        status = 0
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
