"""What the paper says of its external validity (section 5.4), against tests on other sources."""

from collections.abc import Iterator

import pandas as pd

from busflow.audit.evidence import Claim, Evidence
from busflow.audit.verdicts import NOT_TESTABLE, UNDEFINED, holds
from busflow.protocols import GROUPED, PAPER, RULES
from busflow.tables.external import INTERNAL, SCORES

# Each task's models in words, and whose data the paper trains them on.
MODELS = {
    "classification": ("classifiers", ["lin", "busi", "rodrigues"]),
    "detection": ("detectors", ["lin"]),
    "segmentation": ("segmenters", ["busi"]),
}


def external_claims(evidence: Evidence) -> Iterator[Claim]:
    """That the models generalise, task by task, and that further experiments show it."""
    for task in MODELS:
        yield _generalises(evidence, task)
    yield Claim(
        "S5.rounds",
        "Additional rounds of experiments reinforce the final results",
        "5.4",
        "none is shown",
        UNDEFINED,
        "the paper prints one number per model: no second seed, fold or source",
    )


def _generalises(evidence: Evidence, task: str) -> Claim:
    words, sources = MODELS[task]
    name, score = next(iter(SCORES[task].items()))
    table = evidence.tables.get(f"external_{task}")
    ours = dict.fromkeys(RULES, "–")
    verdict, why = NOT_TESTABLE, f"no source with use: external tests {task} in this study"
    if table is not None:
        tests = table[table["test"] != INTERNAL]
        sure = tests[tests[f"{name}_drop_low"] > 0]
        verdict = holds(sure.empty)
        why = f"{score.title} drops on {len(sure)} of {len(tests)} tests by more than chance"
        ours = {
            split: _largest(tests[tests["protocol"] == protocol], name)
            for split, protocol in evidence.protocols.items()
        }
    return Claim(
        f"S5.external_{task}",
        f"The {words} generalise beyond the data of the study",
        "5.4",
        "addressed by large and diverse datasets, all of which are trained on",
        **evidence.judge(verdict, why, sources=sources, task=task),
        ours_paper_protocol=ours[PAPER],
        ours_grouped=ours[GROUPED],
    )


def _largest(tests: pd.DataFrame, name: str) -> str:
    """The greatest drop in words."""
    drops = tests.dropna(subset=f"{name}_drop")
    if drops.empty:
        return "–"
    row = drops.loc[drops[f"{name}_drop"].idxmax()]
    interval = f" [{row[f'{name}_drop_low']:.3f}, {row[f'{name}_drop_high']:.3f}]"
    return f"largest drop {row[f'{name}_drop']:.3f}{interval}, {row['label']} on {row['test']}"
