"""Record a finished study: large files in DVC's cache, small ones in Git's index."""

import subprocess
from pathlib import Path

import yaml
from dvc.repo import Repo

from busflow.errors import BusflowError
from busflow.files import write_text
from busflow.recording.study import DEMO, LEDGER, Study, dvc, snakemake


def record(study: Study) -> None:
    """Let DVC commit what the study has made, and hand the small files to Git. Runs nothing of the study.

    Raises BusflowError when Snakemake would still run something: a record of that would not be true.
    """
    plan = snakemake("--dry-run", "--nolock", "--configfile", study.overlay)
    if "Nothing to be done" not in plan.stdout + plan.stderr:
        raise BusflowError(
            f"study {study.name} is not finished, or not up to date: "
            f"run snakemake --configfile {study.overlay} first, then record it"
        )
    if study.name != DEMO:
        write_text(study.ledger, ledger_of(study))
    # Without links: new dates on the files would be work for Snakemake.
    dvc("commit", "--quiet", "--force", "--no-relink", study.ledger)
    files = [study.overlay, study.ledger, study.ledger.with_suffix(".lock"), *kept_in_git(study)]
    subprocess.run(["git", "add", "--force", "--", *map(str, files)], check=True)


def ledger_of(study: Study) -> str:
    """The ``dvc.yaml`` of a study: the demonstration's stages, with the configuration of this study."""
    config = yaml.safe_load((study.root / "results/config.yaml").read_text(encoding="utf-8"))
    left_out = {"paper", "grouped"} - config["protocols"].keys()
    lines = Path(LEDGER).read_text(encoding="utf-8").partition("\nstages:\n")[2].splitlines()
    of_no_use = tuple(end for name in left_out for end in (f"results/{name}", f"_{name}.png"))
    stages = "\n".join(line for line in lines if not line.endswith(of_no_use))
    base = "      - ${checkout}/config.yaml\n"
    stages = stages.replace(base, base + "      - ${checkout}/${overlay}\n")
    return f"""# Written by make record: the stages of {LEDGER} at the top, for this study.
vars:
  - results/config.yaml
  - overlay: {study.overlay}
    settings: results/config.yaml
    checkout: {"/".join(".." for _ in study.root.parts)}

stages:
{stages}
"""


def kept_in_git(study: Study) -> list[Path]:
    """The recorded files that DVC does not keep in its cache."""
    with Repo() as repo:
        ledger = str(study.ledger.absolute())
        return [
            Path(out.fs_path).relative_to(Path.cwd())
            for stage in repo.index.stages
            if stage.path == ledger
            for out in stage.outs
            if not out.use_cache
        ]
