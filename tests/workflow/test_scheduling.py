"""How Snakemake goes about the jobs of a study."""

import yaml

from studies import copy_checkout, run, small_config


def test_jobs_are_looked_for_when_one_ends_and_at_no_other_time(tmp_path):
    """With its limit of starts it looks again every second, for each job that has ended."""
    checkout = copy_checkout(tmp_path / "checkout")
    (checkout / "config.yaml").write_text(yaml.safe_dump(small_config()))
    targets = [f"data/archives/{source}.json" for source in ("lin", "busi", "rodrigues")]
    said = run(checkout, "snakemake", "--cores", "1", "--verbose", *targets)
    ended, searches = said.count("Finished jobid"), said.count("Ready jobs:")
    assert ended >= len(targets) and searches <= ended, f"{searches} searches for {ended} jobs"


# That a file exists is answered; who then asks for its date learns that it is gone.
REMOVED_MEANWHILE = """
import os

stat = os.stat


def gone(path, *arguments, follow_symlinks=True, **options):
    if not follow_symlinks and str(path).endswith("results/tables/table1.csv"):
        raise FileNotFoundError(path)
    return stat(path, *arguments, follow_symlinks=follow_symlinks, **options)


os.stat = gone
"""


def test_the_rule_graph_is_drawn_while_files_of_the_study_come_and_go(tmp_path):
    checkout = copy_checkout(tmp_path / "checkout")
    (checkout / "config.yaml").write_text(yaml.safe_dump(small_config()))
    (checkout / "results/tables").mkdir(parents=True)
    (checkout / "results/tables/table1.csv").touch()
    # Python runs it first in every process. The Snakemake that starts the rule does not ask about the table.
    (checkout / "sitecustomize.py").write_text(REMOVED_MEANWHILE)
    run(checkout, "snakemake", "--cores", "1", "results/figures/fig1_workflow.svg")
