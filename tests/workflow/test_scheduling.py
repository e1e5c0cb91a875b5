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
