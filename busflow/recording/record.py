"""Record a finished study: large files in DVC's cache, small ones in Git's index."""

import subprocess
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from busflow.errors import BusflowError
from busflow.files import write_text
from busflow.recording.coverage import not_on_record
from busflow.recording.ledger import ledger_of
from busflow.recording.study import DEMO, Study, dvc, made_by, snakemake


def record(study: Study) -> None:
    """Let DVC commit what the study has made, and hand the small files to Git. Runs nothing of the study.

    Raises BusflowError when Snakemake would still run something, or when the study makes what its
    ``dvc.yaml`` does not list: a record of that would not be true.
    """
    plan = snakemake("--dry-run", "--nolock", "--configfile", study.overlay)
    if "Nothing to be done" not in plan.stdout + plan.stderr:
        raise BusflowError(
            f"study {study.name} is not finished, or not up to date: "
            f"run snakemake --configfile {study.overlay} first, then record it"
        )
    made = made_by(study)
    if study.name != DEMO:
        write_text(study.ledger, ledger_of(study, made))
    outputs = _outputs(study)
    if missing := not_on_record(made, outputs):
        raise BusflowError(f"{missing[0]} is made by the study, but no stage of {study.ledger} lists it")
    # Without links: new dates on the files would be work for Snakemake.
    dvc("commit", "--quiet", "--force", "--no-relink", study.ledger)
    kept_in_git = [path for path, is_cached in outputs.items() if not is_cached]
    files = [study.overlay, study.ledger, study.ledger.with_suffix(".lock"), *kept_in_git]
    subprocess.run(["git", "add", "--force", "--", *map(str, files)], check=True)


def _outputs(study: Study) -> dict[Path, bool]:
    """The outputs of a study's ``dvc.yaml``, and whether DVC keeps them in its cache."""
    try:
        with Repo() as repo:
            return {
                Path(out.fs_path).relative_to(Path.cwd()): out.use_cache
                for stage in repo.index.stages
                if stage.path == str(study.ledger.absolute())
                for out in stage.outs
            }
    except DvcException as error:
        raise BusflowError(
            f"{study.ledger} does not fit study {study.name}: {' '.join(str(error).split())}. "
            "config.yaml keeps all tasks and protocols: a study with fewer is an overlay, config/<name>.yaml"
        ) from error
