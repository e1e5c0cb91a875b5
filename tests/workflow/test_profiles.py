"""What the cluster's profile asks SLURM for, without a SLURM."""

import re
from types import SimpleNamespace

import pytest
import yaml
from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file

from studies import ROOT, dry_run

PROFILES = ROOT / "workflow/profiles"


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Resources by rule, as Snakemake plans the demonstration with them on a cluster."""
    root = tmp_path_factory.mktemp("root")
    plan = dry_run("--workflow-profile", PROFILES / "slurm", "--config", f"root={root}").stdout
    jobs = re.findall(r"^(?:local)?rule (\w+):\n(?: .*\n)*? +resources: (.*)$", plan, re.MULTILINE)
    return {rule: dict(item.split("=", 1) for item in line.split(", ")) for rule, line in jobs}


def partition(**resources) -> str | None:
    """The partition that the profile sends a job to."""
    job = SimpleNamespace(name="job", threads=1, resources=resources)
    silent = SimpleNamespace(debug=lambda text: None, info=lambda text: None, warning=lambda text: None)
    return get_best_partition(read_partition_file(PROFILES / "slurm/partitions.yaml"), job, silent)


def test_only_jobs_that_ask_for_a_gpu_go_to_gpu_nodes():
    assert partition(gpu=1) == "gpu"
    assert partition(gpu=0) == partition() == "cpu"


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_a_training_asks_for_time_memory_and_a_warning_before_its_limit(asked, task):
    training, split = asked[f"train_{task}"], asked["split_images"]
    assert training["slurm_extra"] == "--signal=TERM@300" and "slurm_extra" not in split
    assert int(training["runtime"]) > int(split["runtime"]) > 0
    assert int(training["mem_mb"]) > int(split["mem_mb"]) > 0


def test_what_is_no_matter_of_one_machine_is_as_in_the_default_profile():
    default, slurm = (
        yaml.safe_load((PROFILES / name / "profile.yaml").read_text()) for name in ("default", "slurm")
    )
    general = {key: value for key, value in default.items() if key not in ("cores", "resources")}
    assert general.items() <= slurm.items()
