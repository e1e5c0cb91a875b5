"""Loaded by each Python of the tested studies: a job keeps the GPUs of SLURM, and computes on the CPU.

SLURM's GPUs are device files of the tests, on which torch cannot compute.
"""

import wrapt


@wrapt.when_imported("busflow.engine.gpu_lease")
def take_them_for_real(gpu_lease) -> None:
    gpu_lease.require_cuda = lambda gpus: None
