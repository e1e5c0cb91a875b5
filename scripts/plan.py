"""Tell the price of a study before it starts: FLOPs, steps, hours on some GPUs, memory, disk, jobs."""

import argparse
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from busflow.cli import run
from busflow.config import read_study
from busflow.planning.study import rows_of
from busflow.planning.text import as_text
from busflow.recording.study import find_study, number_of_jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="demo", help="demo, or the name of an overlay in config/")
    study = find_study(parser.parse_args().study)
    config = read_study(study.overlay)
    logging.disable(logging.WARNING)  # what mmengine says of registries
    with ThreadPoolExecutor(1) as pool:
        jobs = pool.submit(number_of_jobs, study)  # Snakemake's own process
        rows = rows_of(config, Path(".snakemake/planned_networks.json"))
        print(as_text(config, rows, jobs.result()))


if __name__ == "__main__":
    run(main)
