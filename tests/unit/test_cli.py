"""How scripts end, and what is told from it."""

import subprocess
import sys

import pytest

from busflow.cli import told_why

ENDS = {
    "raise BusflowError('a GPU is full; lower micro_batch')": True,
    "raise OSError(errno.ENOSPC, 'full', 'results')": True,
    "raise InterruptedRunError('asked to stop')": False,  # it goes on, perhaps with more
    "os.kill(os.getpid(), signal.SIGKILL)": False,
    "raise MemoryError": False,
}


@pytest.mark.parametrize(("end", "told"), ENDS.items())
def test_a_script_that_ends_with_an_error_of_its_own_has_told_why(tmp_path, end, told):
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(
        "import errno, os, signal\n"
        "from busflow.cli import run\n"
        "from busflow.errors import BusflowError, InterruptedRunError\n"
        f"def main():\n    print('at work')\n    {end}\nrun(main)\n"
    )
    with log.open("w") as output:
        status = subprocess.run(
            [sys.executable, script], stdout=output, stderr=output, check=False
        ).returncode
    assert status and told_why(log) == told, log.read_text()


def test_of_what_left_no_log_nothing_is_told(tmp_path):
    assert not told_why(tmp_path / "none.log")
