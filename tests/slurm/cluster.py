"""A real SLURM on one machine: a node with CPUs and two with fake GPUs, all state in one folder.

Each node is a PID namespace, so that killing it is a power cut: its daemon and all its jobs are gone at once.
Every daemon dies with the process that started it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

PACKAGES = "slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge slurmdbd mariadb-server"
DAEMONS = ["munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd"]
CLIENTS = [
    "mariadb",
    "munge",
    "sacctmgr",
    "sacct",
    "scontrol",
    "sinfo",
    "squeue",
    "sbatch",
    "srun",
    "scancel",
]
NODES = ["cpu1", "gpu1", "gpu2"]
ACCOUNT, GPU_TYPE, FEATURE, GPUS = "lab", "fake", "large", 2

Job = namedtuple("Job", "id rule wildcards state account partition node gpus memory start constraint")


def missing() -> str | None:
    """What this machine lacks for such a cluster, in a line; None: nothing."""
    if os.geteuid() != 0:
        return "a real SLURM is started by root only"
    if absent := [name for name in DAEMONS + CLIENTS if not shutil.which(name)]:
        return f"no {absent[0]} here: apt-get install --no-install-recommends {PACKAGES}"
    if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False).returncode:
        return "this machine allows no PID namespaces, which the nodes of a real SLURM are here"
    return None


def wait_until(what: str, holds: Callable[[], bool], seconds: float = 180) -> None:
    """Poll until it holds; fail, naming it, when the time is up."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"in {seconds} s not: {what}"
        time.sleep(0.2)


class Cluster:
    """Started by ``start``, gone after ``stop``; ``environment`` makes SLURM's commands speak to it.

    Args:
        folder: an empty one, with a short path: it holds sockets.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}
        commands = folder / "bin"
        path = [str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
            "PATH": os.pathsep.join(path),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(folder / "mysql.socket"),
        }
        for name in ("bin", "devices", "state", "spool", "logs"):
            (folder / name).mkdir()
        for node in NODES:
            (folder / "spool" / node).mkdir()
        # The jobstep plugin drops SLURM_CONF before it calls srun, which elsewhere reads /etc/slurm.
        wrapper = commands / "srun"
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        wrapper.chmod(0o755)
        for gpu in range(GPUS):
            os.mknod(folder / f"devices/gpu{gpu}", 0o666 | 0o020000, os.makedev(1, 3))
        self._configure()

    def start(self) -> None:
        """Start all daemons and wait until all nodes are ready."""
        folder = self.folder
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        files = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munge.pid",
            "seed-file": "seed",
        }
        options = [f"--{option}={folder / name}" for option, name in files.items()]
        self._spawn(
            "munged", "munged", "--foreground", "--force", f"--log-file={folder}/logs/munge", *options
        )

        database = ["--no-defaults", "--user=root", f"--datadir={folder}/mysql"]
        self.run("mariadb-install-db", *database, "--auth-root-authentication-method=socket")
        small = [
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            "--innodb-lock-wait-timeout=900",
        ]
        self._spawn(
            *("mariadbd", "mariadbd", *database, *small),
            *("--skip-networking", f"--socket={folder}/mysql.socket", f"--pid-file={folder}/mysql.pid"),
        )
        wait_until("mariadb answers", lambda: self.answers("mariadb", "--no-defaults", "-e", "select 1"))
        self._spawn("slurmdbd", "slurmdbd", "-D")
        wait_until("slurmdbd answers", lambda: self.answers("sacctmgr", "--noheader", "show", "cluster"))
        self.run("sacctmgr", "--immediate", "add", "cluster", "test")
        self.run("sacctmgr", "--immediate", "add", "account", ACCOUNT)
        self.run("sacctmgr", "--immediate", "add", "user", "root", f"account={ACCOUNT}")
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_until("all nodes are idle", lambda: all(self.state(node) == "idle" for node in NODES))

    def stop(self) -> None:
        """Kill all: nodes with their jobs first."""
        for daemon in reversed(self.daemons.values()):
            daemon.kill()
            daemon.wait()
        shutil.rmtree(self.folder / "mysql")

    def restart_controller(self) -> None:
        self.daemons["slurmctld"].terminate()
        self.daemons["slurmctld"].wait()
        self.start_controller()

    def start_controller(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D")
        wait_until("the controller answers", lambda: self.answers("scontrol", "ping"))

    def start_node(self, node: str) -> None:
        # A shell, because the first process of a namespace has to bury its orphans.
        start = f"slurmd -D -N {node} & wait"
        self._spawn(node, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", start)

    def crash_node(self, node: str) -> None:
        """Kill all that runs on a node."""
        self.daemons[node].kill()
        self.daemons[node].wait()

    def run(self, *command: str) -> str:
        """Standard output of a command that speaks to this cluster."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def answers(self, *command: str) -> bool:
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False, timeout=30)
        return done.returncode == 0

    def state(self, node: str) -> str:
        """idle, mixed, allocated, down and so on; an asterisk after it if the node does not answer."""
        return self.run("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%T").split()[0]

    def jobs(self) -> list[Job]:
        """All jobs ever, by accounting; one that was queued again counts each time it ran."""
        fields = "JobIDRaw,Comment,State,Account,Partition,NodeList,AllocTRES,Start,Constraints"
        lines = self.run(
            *("sacct", "--allocations", "--duplicates", "--parsable2", "--noheader", "--allusers"),
            *("--starttime=now-1days", f"--format={fields}"),
        ).splitlines()
        return [_job(*line.split("|")) for line in lines]

    def running(self, wildcards: str) -> Job | None:
        """The job of these wildcards that runs now, by the controller."""
        lines = self.run(
            "squeue", "--noheader", "--states=running", "--format=%i|%k|%T|%a|%P|%N||%S|%f"
        ).splitlines()
        jobs = [_job(*line.split("|")) for line in lines]
        return next((job for job in jobs if job.wildcards == wildcards), None)

    def _configure(self) -> None:
        sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ["slurmctld", "slurmdbd", *NODES]}
        facts = {
            "host": socket.gethostname().split(".")[0],
            "folder": self.folder,
            "type": GPU_TYPE,
            "feature": FEATURE,
            "gpus": GPUS,
            "ports": {name: server.getsockname()[1] for name, server in sockets.items()},
        }
        for server in sockets.values():
            server.close()
        for name in ("slurm.conf", "slurmdbd.conf"):
            template = Path(__file__).with_name(f"{name}.in").read_text()
            (self.folder / name).write_text(template.format(**facts))
        (self.folder / "slurmdbd.conf").chmod(0o600)
        devices = f"{self.folder}/devices/gpu[0-{GPUS - 1}]"
        (self.folder / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName=gpu[1-2] Name=gpu Type={GPU_TYPE} File={devices}\n"
        )

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / "logs" / name).open("a") as log:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", signal.SIGKILL.name.removeprefix("SIG"), *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _job(id, comment, state, account, partition, node, tres, start, constraint) -> Job:
    rule, _, wildcards = comment.removeprefix("rule_").partition("_wildcards_")
    allocated = dict(item.split("=") for item in tres.split(",") if item)
    gpus, memory = int(allocated.get("gres/gpu", 0)), allocated.get("mem")
    # sacct says after the state who cancelled the job.
    return Job(
        id, rule, wildcards, state.split()[0], account, partition, node, gpus, memory, start, constraint
    )
