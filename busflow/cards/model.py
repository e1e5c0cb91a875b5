"""The model card of a task: its best model by validation, section by section, from the study's files."""

import numpy as np
import pandas as pd

from busflow.cards.limitations import limitations
from busflow.cards.results import calibration, external_tests, leak_gap, results
from busflow.cards.study import CONFIG, UNIT_FILES, Study, Trained, chosen_protocol
from busflow.cards.words import DOES, HUB_TASK, NOT_KNOWN, counted, hours, known, listed, reasons, setting
from busflow.labels import LABELS, SPLITS
from busflow.protocols import GROUPED
from busflow.tables.document import Block, Document, Rows
from busflow.tables.leading import LEADING, estimate
from busflow.tables.table import number
from busflow.tasks import TASKS

RESEARCH = "For research use only: this model is no medical device, and nothing that it says is a diagnosis."


def model_card(study: Study, task: str) -> Document:
    """The card of the best model of a task, in the format of the Hugging Face hub."""
    trained = study.best(task)
    return Document(
        title=f"{study.label(trained)}: {task} of breast ultrasound",
        notice=study.config["study"].get("notice"),
        sections={
            "Which model this is": which(study, trained),
            "Intended use": intended_use(study, trained),
            "Out-of-scope use": out_of_scope_use(),
            "Data": data(study, trained),
            "Training": training(study, trained),
            "Results": results(study, trained),
            "External tests": external_tests(study, trained),
            "Calibration": calibration(trained),
            "Leak gap": leak_gap(study, trained),
            "Limitations": [limitations(study, trained)],
            "Environmental cost": environmental_cost(study, trained),
            "Where this comes from": files(study, trained),
        },
        head=head(study, trained),
    )


def head(study: Study, trained: Trained) -> dict:
    """What model hubs read: https://github.com/huggingface/hub-docs/blob/main/modelcard.md.

    Scores are means over the seeds, range 0..1; those that are undefined are left out.
    """
    own = study.sources_of(trained.task)
    tests = [
        (f"{study.config['study']['name']}-{trained.protocol}", _own_test(study, trained), trained.metrics)
    ]
    tests += [
        (source, study.config["sources"][source]["label"], metrics)
        for source, metrics in trained.external.items()
    ]
    return {
        "license": "other",
        "license_name": "terms-of-its-data-and-starting-weights",
        "library_name": "busflow",
        "pipeline_tag": HUB_TASK[trained.task],
        "tags": ["breast-ultrasound", "medical-imaging", "research-only", trained.task, trained.model],
        "datasets": list(own),
        "metrics": list(LEADING[trained.task].scores),
        "model-index": [
            {
                "name": study.label(trained),
                "results": [
                    {
                        "task": {"type": HUB_TASK[trained.task]},
                        "dataset": {"type": kind, "name": name, "split": "test"},
                        "metrics": _scores(trained.task, metrics),
                    }
                    for kind, name, metrics in tests
                ],
            }
        ],
    }


def which(study: Study, trained: Trained) -> list[Block]:
    """Why this model and this protocol, and the other models that it was chosen from."""
    entry = study.config["protocols"][trained.protocol]
    how, candidates = LEADING[trained.task], study.candidates(trained.task)
    title = how.scores[TASKS[trained.task].select_by].title
    rows = [
        [study.label(each), number(how.factor * each.validation, how.digits), str(len(each.seeds))]
        for each in candidates
    ]
    return [
        RESEARCH,
        f"A network that {DOES[trained.task]}: the best of {counted(len(candidates), 'model')} by {title} "
        "on the validation images, the mean over the seeds of each one's best epoch. The test images had no "
        "say.",
        f"Study: {study.config['study']['title']}. Protocol: {entry['label']}. {_why(study)}",
        Rows(["Model", f"{title}, validation", "Seeds"], rows),
    ]


def intended_use(study: Study, trained: Trained) -> list[Block]:
    """What the model is there for."""
    sources = listed(source["label"] for source in study.sources_of(trained.task).values())
    return [
        [
            "Research: to repeat and audit this study, and to compare methods on its data.",
            f"Images: breast ultrasound as in {sources}, brought to squares of {_sizes(trained)} pixels.",
        ]
    ]


def out_of_scope_use() -> list[Block]:
    """What it must not be used for."""
    return [
        [
            "Diagnosis, screening, triage, follow-up, or any other decision about a person.",
            "Images of other organs or methods, and images unlike those of its data.",
            "A second opinion, or the training of readers.",
        ]
    ]


def data(study: Study, trained: Trained) -> list[Block]:
    """The sources with their terms, and who was trained on, chosen by and tested on."""
    uses = {"study": False, "external test": True}
    sources = [
        [
            source["label"],
            use,
            known(source.get("licence"), "licence"),
            known(source.get("citation"), "citation"),
            known(source.get("homepage"), "homepage"),
        ]
        for use, external in uses.items()
        for source in study.sources_of(trained.task, external).values()
    ]
    split = study.splits[trained.protocol, trained.task]
    excluded = study.excluded[trained.protocol, trained.task]
    return [
        Rows(["Source", "Use", "Licence", "Citation", "Homepage"], sources),
        f"{NOT_KNOWN}a licence of the weights; heed the terms of these sources and of the starting weights.",
        f"{_path_of_split(trained)} (SHA-256 {trained.metrics[0]['split_sha256'][:12]}). A group is what "
        "belongs together: a video, a patient, near copies.",
        Rows(["Split", "Source", "Images", "Groups", *LABELS], _counts(study, split)),
        f"Left out of it: {reasons(excluded['reason'])}.",
    ]


def training(study: Study, trained: Trained) -> list[Block]:
    """Settings, code and packages, and what came of each seed."""
    run = trained.runs[0]
    settings = {key: value for key, value in run["settings"].items() if key != "seed"}
    how = LEADING[trained.task]
    title = how.scores[TASKS[trained.task].select_by].title
    seeds = [
        [
            str(seed),
            number(how.factor * best, how.digits),
            each["device"],
            hours(each["seconds"]),
            str(each["settings"]["epochs"]),
            each["weights_sha256"][:12],
        ]
        for seed, best, each in zip(trained.seeds, trained.best_epochs, trained.runs, strict=True)
    ]
    return [
        Rows(["Seed", f"Best {title}, validation", "Device", "Hours", "Epochs", "Weights, SHA-256"], seeds),
        [
            f"Code: {listed(dict.fromkeys(map(_commit, trained.runs)))}.",
            f"Python {run['python']}; {', '.join(f'{name} {v}' for name, v in run['packages'].items())}.",
            f"Starting weights: {starting_weights(study, trained)}.",
        ],
        Rows(
            ["Setting", "Value"],
            [[name, setting(value)] for name, value in settings.items()],
        ),
    ]


def environmental_cost(study: Study, trained: Trained) -> list[Block]:
    """Device-hours of training, by device."""
    parts = {"This model": [trained], "All trainings of the task": study.of_task(trained.task)}
    seconds = pd.DataFrame({name: seconds_by_device(part) for name, part in parts.items()}).fillna(0)
    return [
        f"Device-hours of training, summed over {counted(len(trained.seeds), 'seed')}. A training counts one "
        "device, also where several shared it.",
        Rows(
            ["Device", *(f"{name} (h)" for name in parts)],
            [[device, *map(hours, row)] for device, *row in seconds.itertuples()],
        ),
        f"{NOT_KNOWN}energy and emissions (power was not measured), and the cost of predictions.",
    ]


def seconds_by_device(found: list[Trained]) -> pd.Series:
    """Seconds of training by device, summed over models and seeds."""
    runs = pd.DataFrame([(run["device"], run["seconds"]) for each in found for run in each.runs])
    return runs.groupby(0)[1].sum()


def files(study: Study, trained: Trained) -> list[Block]:
    """The files that hold what the card says."""
    names = [trained.path(name) for name in UNIT_FILES]
    names += [trained.path(f"external/{source}/metrics.json") for source in trained.external]
    names += [f"results/audit/leakage/{protocol}_classification.json" for protocol in study.leakage]
    path = _path_of_split(trained)
    return [
        "No number of this card was typed by hand.",
        [*names, path, f"{path.removesuffix('.csv')}.excluded.csv", CONFIG],
    ]


def _scores(task: str, metrics: list[dict]) -> list[dict]:
    """The leading scores that are defined, as the hub lists them."""
    found = {name: (score.title, estimate(metrics, score)[0]) for name, score in LEADING[task].scores.items()}
    return [
        {"type": name, "value": value, "name": title}
        for name, (title, value) in found.items()
        if not np.isnan(value)
    ]


def _own_test(study: Study, trained: Trained) -> str:
    sources = listed(source["label"] for source in study.sources_of(trained.task).values())
    return f"{study.config['protocols'][trained.protocol]['label']}: {sources}"


def _why(study: Study) -> str:
    """Why the models of this protocol were looked at."""
    protocol = chosen_protocol(study.config["protocols"])
    if protocol.fold:
        return "The study has folds alone, of which this is the first."
    if protocol.split != GROUPED:
        return (
            "The study has no protocol that keeps related images on one side of its split; this is its first."
        )
    kept = "It keeps related images on one side of its split."
    return (
        f"{kept} The study has none that leaves no source out; this is its first."
        if protocol.leave_out
        else kept
    )


def _sizes(trained: Trained) -> str:
    return listed(dict.fromkeys(str(run["settings"]["image_size"]) for run in trained.runs))


def _path_of_split(trained: Trained) -> str:
    return f"data/splits/{trained.protocol}/{trained.task}.csv"


def _counts(study: Study, split: pd.DataFrame) -> list[list[str]]:
    """A row per split, and of each split one per source."""
    rows = []
    for name in SPLITS:
        part = split[split["split"] == name]
        rows.append([name, "all", *_numbers(part)])
        if split["source"].nunique() > 1:
            sources = part.groupby("source", sort=True)
            rows += [[name, study.config["sources"][each]["label"], *_numbers(of)] for each, of in sources]
    return rows


def _numbers(part: pd.DataFrame) -> list[str]:
    labels = part["label"].value_counts()
    return [
        number(n) for n in (len(part), part["group"].nunique(), *(labels.get(label, 0) for label in LABELS))
    ]


def _commit(run: dict) -> str:
    commit = run["git"]["commit"]
    if not commit:
        return f"{NOT_KNOWN}commit (the code was in no repository)"
    return f"commit {commit}" + (" with changes that were not committed" if run["git"]["dirty"] else "")


def starting_weights(study: Study, trained: Trained) -> str:
    """The weights that a training started from, with their terms."""
    name = study.config["models"][trained.task][trained.model].get("pretrained")
    if not name:
        return "random"
    entry = study.config["weights"][name]
    terms = (known(entry.get(key), key) for key in ("licence", "citation"))
    return f"{name} ({'; '.join(terms)})"
