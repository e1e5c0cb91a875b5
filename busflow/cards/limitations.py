"""What limits a model, as far as it follows from the study's data."""

from collections.abc import Iterator

from busflow.cards.study import Study, Trained, straddling
from busflow.cards.words import NOT_KNOWN, counted, listed, share
from busflow.labels import LABELS


def limitations(study: Study, trained: Trained) -> list[str]:
    """One sentence for each limit that the files show."""
    return [
        *_of_study(study, trained),
        *_of_split(study, trained),
        *_of_classes(study, trained),
        *_of_sources(study, trained),
        f"{NOT_KNOWN}age, sex, ethnicity and symptoms of the patients, scanners and their settings (no file "
        "of the study tells), so that no subgroup was looked at.",
        f"{NOT_KNOWN}how the labels of the sources were agreed on; errors in them are learnt and scored.",
        "No reader used the model: its use beside a person, and any clinical benefit, were not studied.",
    ]


def _of_study(study: Study, trained: Trained) -> Iterator[str]:
    if notice := study.config["study"].get("notice"):
        yield f"Notice of the study: {notice}"
    if len(trained.seeds) == 1:
        yield "One training: how much the scores vary from seed to seed is not known."
    if fold := study.config["protocols"][trained.protocol].get("fold"):
        yield f"Tested on fold {fold[0]} of {fold[1]} alone; the other folds have models of their own."


def _of_split(study: Study, trained: Trained) -> Iterator[str]:
    split = study.splits[trained.protocol, trained.task]
    if torn := straddling(split):
        leakage = study.leakage.get(trained.protocol, {}).get("same_group")
        known = f" {share(leakage)} of the test images have relatives in training." if leakage else ""
        yield (
            f"{counted(torn, 'group')} of related images on more than one side of the split: "
            f"the scores are too high for new patients.{known}"
        )
    test = split[split["split"] == "test"]
    yield (
        f"The test set is {counted(len(test), 'image')} of {counted(test['group'].nunique(), 'group')}; the "
        "intervals tell what that leaves open about images like these, and nothing about others."
    )


def _of_classes(study: Study, trained: Trained) -> Iterator[str]:
    split = study.splits[trained.protocol, trained.task]
    test = split.loc[split["split"] == "test", "label"].value_counts()
    present = [label for label in LABELS if label in set(split["label"])]
    rarest = min(present, key=lambda label: test.get(label, 0))
    yield f"The rarest class of the test set, {rarest}, has {counted(int(test.get(rarest, 0)), 'image')}."
    if absent := [label for label in LABELS if label not in present]:
        yield f"The data have no image of class {listed(absent)}."
    by_class = split.groupby("label")["source"].unique()
    if split["source"].nunique() > 1:
        for label in present:
            if len(by_class[label]) == 1:
                name = study.config["sources"][by_class[label][0]]["label"]
                yield (
                    f"All images of class {label} are from {name}: the model may tell the source from the "
                    "rest in place of the class."
                )


def _of_sources(study: Study, trained: Trained) -> Iterator[str]:
    split = study.splits[trained.protocol, trained.task]
    learnt, tested = (set(split.loc[split["split"] == name, "source"]) for name in ("train", "test"))
    yield f"It learnt from {counted(len(learnt), 'source')}; other hospitals and scanners may look different."
    if not trained.external and tested <= learnt:
        yield "It was not tested on a source that it had not learnt from."
