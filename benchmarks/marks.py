"""How often the rule for marks (`busflow/data/marks.py`) agrees with the eye on 100 images; its speed.

The images are 75 of BUSI, 15 of BUS-BRA and 10 of Rodrigues et al., drawn by chance from groups that the rule
was not chosen on, and looked at before it was asked. Run it where a study of these archives has been indexed.
"""

import argparse
import time
from pathlib import Path

import pandas as pd

from busflow.data.marks import find_marks
from busflow.files import read_csv
from busflow.metrics.shares import wilson

BY_EYE = Path(__file__).parents[1] / "tests/data/marks_by_eye.csv"


def share(name: str, hits: int, n: int) -> str:
    """A share with its Wilson interval, as one line."""
    low, high = wilson(hits, n)
    return f"{name} {hits}/{n} = {hits / n:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, default=Path("data/index/images.csv"))
    index = parser.parse_args().index
    eye = read_csv(BY_EYE).set_index("image_id")["marked"] == "true"
    images = read_csv(index) if index.exists() else pd.DataFrame({"image_id": []})
    if missing := set(eye.index) - set(images["image_id"]):
        print(f"{index} has {len(missing)} of the {len(eye)} real images not; index the real archives first")
        return

    start = time.perf_counter()
    rule = find_marks(images, threads=2).set_index("image_id")["marked"] == "true"
    seconds = time.perf_counter() - start
    print(f"{rule.sum()} of {len(rule)} images are marked; {len(rule) / seconds:.0f} images/s with decoding")
    for source, ids in eye.groupby(images.set_index("image_id")["source"]).groups.items():
        print(f"{source}: {eye[ids].sum()} of {len(ids)} by eye, {rule[ids].sum()} by the rule")
    rule = rule[eye.index]
    print(
        share("precision", (rule & eye).sum(), rule.sum()),
        share("recall", (rule & eye).sum(), eye.sum()),
        sep="\n",
    )
    print("missed:", *eye.index[eye & ~rule], "\nfalsely found:", *eye.index[rule & ~eye])


if __name__ == "__main__":
    main()
