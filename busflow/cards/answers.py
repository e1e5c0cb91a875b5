"""What a study's files answer to the items of a checklist: a text, and the file that holds it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from busflow.cards.limitations import limitations
from busflow.cards.model import starting_weights
from busflow.cards.results import leaking_twins
from busflow.cards.study import CONFIG, HISTORY, METRICS, QUARANTINE, RUN, Study, Trained, straddling
from busflow.cards.words import DOES, NOT_KNOWN, counted, decimal, known, listed, reasons, setting
from busflow.config import compared
from busflow.labels import LABELS, SPLITS
from busflow.tables.leading import LEADING, estimate, estimate_text
from busflow.tasks import TASKS

# Settings that say which network it is; the others say how it was trained.
ARCHITECTURE = (
    "timm",
    "network",
    "detector",
    "segmenter",
    "backbone",
    "neck",
    "assigner",
    "receptive_fields",
)


class Answer(NamedTuple):
    """A text, and the path of its file below the root of the study."""

    text: str
    file: str


# From a study to its answer; None where it has none.
Answering = Callable[[Study], Answer | None]


def of_study(file: str) -> Callable[[Callable[[Study], str]], Answering]:
    """Makes an answer of a function that says something of the whole study."""
    return lambda words: lambda study: Answer(words(study), file)


def of_each_task(file: Callable[[Trained], str]) -> Callable[[Callable[[Study, Trained], str]], Answering]:
    """Makes an answer of a function that says something of the best model of a task, or nothing (empty)."""

    def decorate(words: Callable[[Study, Trained], str]) -> Answering:
        def answering(study: Study) -> Answer | None:
            found = [study.best(task) for task in study.tasks]
            said = [(each, text) for each in found if (text := words(study, each))]
            if not said:
                return None
            return Answer(
                "; ".join(f"{each.task}: {text}" for each, text in said),
                "; ".join(file(each) for each, _ in said),
            )

        return answering

    return decorate


def in_unit(name: str) -> Callable[[Trained], str]:
    return lambda trained: trained.path(name)


def in_first(name: str) -> Callable[[Trained], str]:
    return lambda trained: trained.path(name, trained.seeds[:1])


def in_split(trained: Trained) -> str:
    return f"data/splits/{trained.protocol}/{trained.task}.csv"


def in_excluded(trained: Trained) -> str:
    return f"data/splits/{trained.protocol}/{trained.task}.excluded.csv"


def in_card(trained: Trained) -> str:
    return f"results/cards/{trained.task}.md"


@of_study(CONFIG)
def method(study: Study) -> str:
    return "deep learning: " + listed(
        f"{counted(len(compared(study.config['models'][task])), 'network')} of which each {DOES[task]}"
        for task in study.tasks
    )


@of_study(CONFIG)
def design(study: Study) -> str:
    sources = counted(len(study.config["sources"]), "source")
    return f"{sources} of images that were there before it; whether they were collected for it is not known"


@of_study(CONFIG)
def goal(study: Study) -> str:
    return (
        f"{study.config['study']['title']}: models are developed, compared and tested ({listed(study.tasks)})"
    )


@of_study(CONFIG)
def sources(study: Study) -> str:
    return "; ".join(
        f"{source['label']} ({known(source.get('citation'), 'citation')}; "
        f"{known(source.get('homepage'), 'homepage')})"
        for source in study.config["sources"].values()
    )


@of_each_task(in_excluded)
def criteria(study: Study, trained: Trained) -> str:
    return f"left out: {reasons(study.excluded[trained.protocol, trained.task]['reason'])}"


@of_each_task(in_first(RUN))
def preprocessing(study: Study, trained: Trained) -> str:
    size = trained.runs[0]["settings"]["image_size"]
    return f"grey, longest side {size} pixels at the same aspect ratio, the rest of the square black"


@of_each_task(lambda trained: CONFIG)
def subsets(study: Study, trained: Trained) -> str:
    return listed(source["label"] for source in study.sources_of(trained.task).values())


@of_study(QUARANTINE)
def missing_data(study: Study) -> str:
    return (
        f"{counted(len(study.quarantine), 'entry', 'entries')} of what is missing, unreadable or "
        f"contradictory: {reasons(study.quarantine['reason'])}; nothing was filled in"
    )


@of_study(CONFIG)
def annotations(study: Study) -> str:
    labels = listed(source["label"] for source in study.config["sources"].values())
    return f"labels, boxes and masks that came with {labels}"


@of_study(CONFIG)
def test_annotations(study: Study) -> str:
    errata = [source.get("errata", {}) for source in study.config["sources"].values()]
    relabelled, dropped = (sum(len(each.get(key, ())) for each in errata) for key in ("relabel", "drop"))
    return (
        "as those of the training images; published errata, which split: grouped follows, relabel "
        f"{relabelled} and drop {dropped} units"
    )


@of_each_task(in_split)
def assignment(study: Study, trained: Trained) -> str:
    entry = study.config["protocols"][trained.protocol]
    sizes = study.splits[trained.protocol, trained.task]["split"].value_counts()
    parts = ", ".join(f"{name} {counted(int(sizes.get(name, 0)), 'image')}" for name in SPLITS)
    return f"{entry['label']} (split: {entry['split']}, seed {study.config['splits']['seed']}), {parts}"


@of_each_task(lambda trained: f"data/splits/*/{trained.task}.csv")
def disjointness(study: Study, trained: Trained) -> str:
    return ", ".join(
        f"{study.config['protocols'][protocol]['label']} has {straddling(split)} of "
        f"{counted(split['group'].nunique(), 'group')} (patients, videos, near copies) on several sides"
        for (protocol, task), split in study.splits.items()
        if task == trained.task
    )


@of_each_task(in_first(RUN))
def architecture(study: Study, trained: Trained) -> str:
    return _settings(trained, lambda name: name in ARCHITECTURE)


@of_each_task(in_first(RUN))
def software(study: Study, trained: Trained) -> str:
    run = trained.runs[0]
    return f"Python {run['python']}, {', '.join(f'{name} {v}' for name, v in run['packages'].items())}"


@of_each_task(in_unit(RUN))
def initialisation(study: Study, trained: Trained) -> str:
    seeds = f"seed{'s' * (len(trained.seeds) > 1)} {listed(map(str, trained.seeds))}"
    return f"{starting_weights(study, trained)}, {seeds}"


@of_each_task(in_first(RUN))
def training(study: Study, trained: Trained) -> str:
    return _settings(trained, lambda name: name not in (*ARCHITECTURE, "seed"))


@of_each_task(lambda trained: f"results/{trained.protocol}/{trained.task}/*/seed*/{HISTORY}")
def selection(study: Study, trained: Trained) -> str:
    metric, candidates = TASKS[trained.task].select_by, len(study.candidates(trained.task))
    return (
        f"the epoch of the best validation {metric}, and of {counted(candidates, 'model')} that with the "
        f"best mean over the seeds, {decimal(trained.validation)}"
    )


@of_each_task(in_unit(METRICS))
def ensembles(study: Study, trained: Trained) -> str:
    return f"none; each of {counted(len(trained.seeds), 'seed')} is scored by itself"


@of_each_task(in_unit(METRICS))
def measures(study: Study, trained: Trained) -> str:
    return listed(score.title for score in LEADING[trained.task].scores.values())


@of_each_task(in_unit(METRICS))
def uncertainty(study: Study, trained: Trained) -> str:
    groups = counted(trained.metrics[0]["n_groups"], "group")
    return f"95 % t-intervals with the spread of resamples of the {groups} of the test set"


@of_each_task(lambda trained: f"results/*/{trained.task}/{trained.model}/seed*/{METRICS}")
def robustness(study: Study, trained: Trained) -> str:
    """Scores by seed, and under protocols that leak."""
    how = LEADING[trained.task]
    score = next(iter(how.scores.values()))
    said = [
        f"{score.title} {estimate_text(*estimate(twin.metrics, score), how)} under "
        f"{study.config['protocols'][twin.protocol]['label']}, which lets related images straddle its split"
        for twin in leaking_twins(study, trained)
    ]
    if len(trained.seeds) > 1:
        values = [estimate([metrics], score)[0] for metrics in trained.metrics]
        ends = " to ".join(f"{how.factor * end:.{how.digits}f}" for end in (np.min(values), np.max(values)))
        said.append(f"{score.title} of {len(values)} seeds {ends}")
    return ", ".join(said)


@of_each_task(in_unit(METRICS))
def internal_test(study: Study, trained: Trained) -> str:
    return f"{_leading(trained.task, trained.metrics)} on {counted(trained.metrics[0]['n'], 'image')}"


@of_each_task(in_unit("external/*/metrics.json"))
def external_test(study: Study, trained: Trained) -> str:
    return ", ".join(
        f"{_leading(trained.task, metrics)} on {counted(metrics[0]['n'], 'image')} of "
        f"{study.config['sources'][source]['label']}"
        for source, metrics in trained.external.items()
    )


@of_each_task(lambda trained: f"{in_split(trained)}; {in_excluded(trained)}")
def numbers(study: Study, trained: Trained) -> str:
    split, excluded = (part[trained.protocol, trained.task] for part in (study.splits, study.excluded))
    groups = counted(split["group"].nunique(), "group")
    return f"{counted(len(split), 'image')} of {groups} included, {counted(len(excluded), 'image')} left out"


@of_each_task(in_split)
def characteristics(study: Study, trained: Trained) -> str:
    split = study.splits[trained.protocol, trained.task]
    counts = split.groupby("split")["label"].value_counts()
    by_class = ", ".join(
        f"{name} {' / '.join(str(counts.get((name, label), 0)) for label in LABELS)}" for name in SPLITS
    )
    return f"{' / '.join(LABELS)}: {by_class} ({NOT_KNOWN}age, sex and other characteristics)"


@of_each_task(in_unit(METRICS))
def performance(study: Study, trained: Trained) -> str:
    return ", ".join(_leading(trained.task, trained.metrics, name) for name in LEADING[trained.task].scores)


@of_each_task(in_first(METRICS))
def diagnostic_performance(study: Study, trained: Trained) -> str:
    """Sensitivities of the first seed, with intervals where ``metrics.json`` has them."""
    metrics = trained.metrics[0]
    if trained.task == "detection":
        found, at_one = metrics["froc"]["lesions"], metrics["froc"]["rates"].index(1)
        return (
            f"{decimal(found['sensitivity'][at_one])} of {found['n']:,} lesions found at one false "
            "positive an image"
        )
    if trained.task == "segmentation":
        lesions = metrics["per_image"]["lesion"]
        return f"{lesions['n'] - lesions['n_missed']} of {lesions['n']:,} lesions found"
    if "calibration" not in metrics:
        malignant = metrics["per_class"]["malignant"]
        return (
            f"sensitivity for malignant {decimal(malignant['recall'])} of {counted(malignant['n'], 'image')}"
        )
    return ", ".join(
        f"sensitivity {decimal(point['sensitivity'], point['intervals']['sensitivity'])} and specificity "
        f"{decimal(point['specificity'], point['intervals']['specificity'])} at the threshold for "
        f"{point['target']:.2f}"
        for point in metrics["calibration"]["operating_points"]
    )


@of_each_task(in_first(METRICS))
def failures(study: Study, trained: Trained) -> str:
    """What the first seed gets wrong."""
    metrics = trained.metrics[0]
    if trained.task == "detection":
        rate = decimal(metrics["froc"]["false_positives_per_image"])
        return f"{rate} boxes an image without a lesion"
    if trained.task == "segmentation":
        images = metrics["per_image"]
        return (
            f"{images['lesion']['n_missed']} of {images['lesion']['n']:,} lesions missed, lesions seen in "
            f"{images['normal']['false_positive_images']} of {images['normal']['n']:,} normal images"
        )
    benign, malignant, _ = metrics["confusion_matrix"]  # rows are the truth
    return (
        f"of {sum(malignant):,} malignant images {malignant[0]} were taken for benign and {malignant[2]} for "
        f"normal, of {sum(benign):,} benign ones {benign[1]} for malignant"
    )


@of_each_task(in_card)
def limits(study: Study, trained: Trained) -> str:
    return f"{len(limitations(study, trained))} that follow from the data"


@of_each_task(in_card)
def implications(study: Study, trained: Trained) -> str:
    return "none for practice: research use only"


@of_each_task(in_unit(RUN))
def details(study: Study, trained: Trained) -> str:
    commits = listed(dict.fromkeys(run["git"]["commit"] or f"{NOT_KNOWN}commit" for run in trained.runs))
    return f"all settings in {CONFIG}, code of commit {commits}"


@of_each_task(in_unit(RUN))
def availability(study: Study, trained: Trained) -> str:
    hashes = listed(run["weights_sha256"][:12] for run in trained.runs)
    own = study.sources_of(trained.task).values()
    licences = listed(f"{source['label']}: {known(source.get('licence'), 'licence')}" for source in own)
    return f"weights {trained.path('weights.pth')} (SHA-256 {hashes}); data under {licences}"


def _leading(task: str, metrics: list[dict], name: str = "") -> str:
    """A leading score of a task, or its first, with its interval."""
    how = LEADING[task]
    score = how.scores[name or next(iter(how.scores))]
    return f"{score.title} {estimate_text(*estimate(metrics, score), how)}"


def _settings(trained: Trained, wanted: Callable[[str], bool]) -> str:
    settings = trained.runs[0]["settings"]
    return ", ".join(f"{name} {setting(value)}" for name, value in settings.items() if wanted(name))
