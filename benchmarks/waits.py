"""How often a training batch makes the CPU wait for the GPU, and copies to it: no GPU needed.

One model of each kind of config/paper.yaml, narrow, on the pretended GPU of the tests, batches of two images.
The most of any batch but the first of a process; of the last, which ends a step of the optimiser, the
functions that cause them. A wait is a result that the CPU asks for, or a copy that blocks.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT), str(ROOT / "tests")]

from pretended import entries  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = {f"{task}/{model}": (task, model) for task, models in entries.KINDS.items() for model in models}
    parser.add_argument("models", nargs="*", metavar="task/model", help=f"default: {' '.join(kinds)}")
    parser.add_argument("--functions", action="store_true", help="name those that cause them")
    args = parser.parse_args()
    if unknown := sorted(set(args.models) - kinds.keys()):
        parser.error(f"{unknown[0]} is none of {', '.join(kinds)}")
    warnings.filterwarnings("ignore")
    print(f"{'':44}{'waits':>8}{'copies':>8}")
    for name in args.models or kinds:
        # Without mmengine's log.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            steps = entries.run(*kinds[name], Path(folder)).settled
        most = (max(getattr(step, kind).total() for step in steps) for kind in ("waits", "copies"))
        print(f"{name:44}" + "".join(f"{count:8}" for count in most), flush=True)
        if args.functions:
            waits, copies = steps[-1].waits, steps[-1].copies
            for where in sorted(waits | copies, key=lambda each: -waits[each]):
                print(f"    {where:110}{waits[where]:6}{copies[where]:6}")


if __name__ == "__main__":
    main()
