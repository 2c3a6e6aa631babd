"""A private SLURM of one node: Debian's munged, slurmctld and slurmd, with all they keep in a folder."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
_TIMEOUT = 30  # seconds

_CONF = """\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=6
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ReturnToService=2
KillWait=15
MinJobAge=300
InactiveLimit=0
JobRequeue=1
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 Sockets=2 State=UNKNOWN
PartitionName=test Nodes=localhost Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def missing() -> str | None:
    """Why no private SLURM can be started here; None where it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "slurmd starts jobs for others, so it is run as root, which you are not"


@contextmanager
def private_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A running cluster with its files in `folder`; gives the environment variables by which commands find it.

    Raises RuntimeError with the end of its logs where it does not come up. All its processes end with the block.
    """
    folder.chmod(0o755)  # munged distrusts a socket in a folder that is open to others, and none else finds it
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(
        _CONF.format(folder=folder, host=socket.gethostname().split(".")[0], control=_port(), node=_port())
    )
    environment = {"SLURM_CONF": str(conf)}
    key = folder / "munge.key"
    subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
    files = [f"--{what}-file={folder}/munge.{what}" for what in ("log", "pid", "seed")]
    commands = (
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket", *files],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D", "-N", "localhost"],
    )
    daemons = []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as after an interrupt, clean up
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as out:
                daemon = subprocess.Popen(
                    command, env={**os.environ, **environment}, stdout=out, stderr=out, start_new_session=True
                )
            daemons.append(daemon)
            if command[0] == "munged":
                _wait_for(lambda: (folder / "munge.socket").exists(), folder)
        ask = ["sinfo", "--noheader", "--format", "%T"]
        _wait_for(lambda: _output(ask, environment).strip() in ("idle", "idle~"), folder)
        yield environment
    finally:
        _output(["scancel", "--user=root", "--full", "--signal=KILL"], environment)
        _output(["scancel", "--user=root"], environment)
        deadline = time.monotonic() + _TIMEOUT
        while _output(["squeue", "--noheader"], environment) and time.monotonic() < deadline:
            time.sleep(0.2)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(_TIMEOUT)
            except subprocess.TimeoutExpired:
                daemon.kill()
        signal.signal(signal.SIGTERM, before)


def _output(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )
    return done.stdout


def _wait_for(there: object, folder: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not there():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{f.name}:\n{f.read_text()[-2000:]}" for f in sorted(folder.glob("*.[lo][ou][gt]")))
            raise RuntimeError(f"the private SLURM did not come up within {_TIMEOUT} s\n{logs}")
        time.sleep(0.1)


def _port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
