"""Snakemake, called as a user calls it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def snakemake(*arguments: str | Path, check: bool = True, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run snakemake in the checkout; with ``check``, show its output when it fails."""
    command = [sys.executable, "-m", "snakemake", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def dry_run(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess:
    """Plan only. Positional targets come before the options."""
    return snakemake(*arguments, "--dry-run", "--nolock", check=check)
