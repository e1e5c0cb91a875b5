"""GPUs of its own for each job, where several share a workstation or an allocation of SLURM's."""

import contextlib
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from time import sleep

import torch
from filelock import FileLock, Timeout

from busflow.errors import BusflowError

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICE = re.compile(r"\d+|(GPU|MIG)-.+")
POLL_SECONDS = 1.0

# Not TMPDIR, which users and studies set differently: all jobs of a machine must find the same locks. The
# host is in the name because machines may share their /tmp.
LOCKS = Path("/tmp") / f"busflow-gpus-{socket.gethostname()}"

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def lease(gpus: int) -> Iterator[None]:
    """Let CUDA_VISIBLE_DEVICES name GPUs that no other lease on this machine holds; wait for them if need be.

    Enter it before anything asks CUDA for a device, as the import of mmengine does. The GPUs are among those
    that CUDA_VISIBLE_DEVICES lists, up to the first invalid entry, or else among all of the machine. They are
    free again afterwards, also when the process was killed. A GPU that one process lists by index and
    another by UUID counts as two, and so do the indices of two CUDA_DEVICE_ORDERs.

    An allocation of SLURM's in which Snakemake runs (salloc) is shared out likewise, to its own jobs alone.
    Nothing changes in a job that asks for all that SLURM gave it, and in a process that torchrun
    started, which shares the GPUs of its parent.

    Args:
        gpus: how many; 0 hides all, so that the job runs on the CPU.

    Raises:
        BusflowError: there are fewer GPUs than that, torch can compute on none of them, or CUDA has started
            already.
    """
    before = os.environ.get(VISIBLE)
    with contextlib.ExitStack() as locks:
        try:
            if "LOCAL_RANK" not in os.environ:
                _choose(gpus, locks)
            if gpus:
                require_cuda(gpus)
            node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
            logger.info("on %s, GPUs %s", node, os.environ.get(VISIBLE, "all") or "none")
            yield
        finally:
            os.environ.pop(VISIBLE, None)
            os.environ.update({} if before is None else {VISIBLE: before})


def require_cuda(gpus: int) -> None:
    """Refuse a job of so many GPUs where torch would compute on the CPU without a word.

    Raises:
        BusflowError: torch sees no GPU; it says what torch was built for, and what CUDA says.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    hidden = f"; {VISIBLE} is '{os.environ[VISIBLE]}'" if VISIBLE in os.environ else ""
    reasons = "".join(f"; {str(warning.message).splitlines()[0]}" for warning in said)
    raise BusflowError(
        f"a job asks for {gpus} GPU{'s' * (gpus > 1)}, and torch {torch.__version__}, {build}, sees none"
        f"{hidden}{reasons}: see docs/gpus.md, or set compute.gpus to 0 in the config, which is the CPU"
    )


def _choose(gpus: int, locks: contextlib.ExitStack) -> None:
    """Set CUDA_VISIBLE_DEVICES; ``locks`` takes over the locks of its devices."""
    listed = os.environ.get(VISIBLE)
    if gpus == 0:
        os.environ[VISIBLE] = ""
        return
    if listed is None:
        devices = [str(index) for index in range(torch.cuda.device_count())]
    else:
        entries = (entry.strip() for entry in listed.split(","))
        devices = list(dict.fromkeys(takewhile(DEVICE.fullmatch, entries)))
    job = os.environ.get("SLURM_JOB_ID")
    if not devices or (job and gpus == len(devices)):
        return
    if gpus > len(devices):
        raise BusflowError(
            f"a job asks for {gpus} GPUs, and there are {len(devices)} ({','.join(devices)}): "
            f"lower compute.gpus in the config, or list more in {VISIBLE}"
        )
    taken = _take(gpus, devices, locks)
    if not taken:
        logger.info("waits for %d of the GPUs %s: other jobs hold them", gpus, ",".join(devices))
    while not taken:
        sleep(POLL_SECONDS)
        taken = _take(gpus, devices, locks)
    os.environ[VISIBLE] = ",".join(taken)
    # Where torch cannot count with NVML it counts with CUDA, which reads the variable once and for all.
    if listed is None and torch.cuda.device_count() != gpus:
        raise BusflowError(
            f"CUDA had started before it was told to use the GPUs {','.join(taken)} alone, as it does where "
            f"NVIDIA's libnvidia-ml is missing: install it, or list the machine's GPUs in {VISIBLE}"
        )


def _take(gpus: int, devices: list[str], locks: contextlib.ExitStack) -> list[str]:
    """So many of the devices, their locks now in ``locks``; none if fewer are free."""
    mask = os.umask(0)  # the locks are for all users
    try:
        LOCKS.mkdir(mode=0o1777, exist_ok=True)  # sticky: nobody removes another user's lock
        # One at a time: two jobs that want two each might for ever take one each and step back.
        with _lock("choosing"), contextlib.ExitStack() as attempt:
            taken = []
            for device in devices:
                with contextlib.suppress(Timeout):
                    attempt.enter_context(_lock(device).acquire(blocking=False))
                    taken.append(device)
                if len(taken) == gpus:
                    locks.enter_context(attempt.pop_all())
                    return taken
            return []
    finally:
        os.umask(mask)


def _lock(name: str) -> FileLock:
    """The kernel frees it when its process dies; filelock's fallback, files that stay behind, is refused.

    Within an allocation of SLURM's the lock is the allocation's: where each counts its own GPUs from 0, equal
    indices are different GPUs.
    """
    owner = [f"slurm{os.environ['SLURM_JOB_ID']}"] if "SLURM_JOB_ID" in os.environ else []
    file = "-".join([*owner, name.replace("/", "-")])
    return FileLock(LOCKS / f"{file}.lock", fallback_to_soft=False)
