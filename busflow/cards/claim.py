"""CLAIM 2024, the Checklist for Artificial Intelligence in Medical Imaging, answered from a study's files.

The items are those of Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300, in other words.
"""

from typing import NamedTuple

from busflow.cards import answers as say
from busflow.cards.study import Study
from busflow.tables.document import Document, Rows

UNANSWERED = "not answered by this study"
ABOUT = (
    "Items of CLAIM 2024 (Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300), in other "
    "words. Answers come from this study's files and are about the best model of each task by validation, "
    "which has a card of its own."
)


class Item(NamedTuple):
    """``answer``: what a study's files say to it; None where they never say anything."""

    number: int
    title: str
    answer: say.Answering | None = None


SECTIONS = {
    "Title and abstract": [
        Item(1, "The kind of artificial intelligence is named", say.method),
        Item(2, "Abstract with design, methods, results and conclusions"),
    ],
    "Introduction": [
        Item(3, "Background, and the role that is meant for the method"),
        Item(4, "Aims and hypotheses"),
    ],
    "Study design": [
        Item(5, "Looking back or ahead", say.design),
        Item(6, "What the study is for", say.goal),
    ],
    "Data": [
        Item(7, "Where the data come from", say.sources),
        Item(8, "Who is in and who is out", say.criteria),
        Item(9, "What is done to images beforehand", say.preprocessing),
        Item(10, "Which part of the data is used", say.subsets),
        Item(11, "How identities were removed"),
        Item(12, "What is done about missing data", say.missing_data),
        Item(13, "How images were acquired"),
    ],
    "Reference standard": [
        Item(14, "How the truth was established"),
        Item(15, "Why it was established so"),
        Item(16, "Who annotated, and where annotations come from", say.annotations),
        Item(17, "How the test images were annotated", say.test_annotations),
        Item(18, "How far annotators agree with each other and themselves"),
    ],
    "Partitions": [
        Item(19, "How images were divided", say.assignment),
        Item(20, "At which level the parts are apart", say.disjointness),
    ],
    "Test data": [
        Item(21, "How large a sample was planned"),
    ],
    "Model": [
        Item(22, "Architecture", say.architecture),
        Item(23, "Software", say.software),
        Item(24, "Weights at the start", say.initialisation),
    ],
    "Training": [
        Item(25, "How it was trained", say.training),
        Item(26, "How the final model was chosen", say.selection),
        Item(27, "Ensembles", say.ensembles),
    ],
    "Evaluation": [
        Item(28, "Measures of performance", say.measures),
        Item(29, "Measures of uncertainty and significance", say.uncertainty),
        Item(30, "Robustness", say.robustness),
        Item(31, "Explanations of the model's answers"),
        Item(32, "Test on data of the same sources", say.internal_test),
        Item(33, "Test on data of other sources", say.external_test),
        Item(34, "Registration as a trial"),
    ],
    "Results: data": [
        Item(35, "Numbers of those in and out", say.numbers),
        Item(36, "Patients and cases in each part", say.characteristics),
    ],
    "Results: performance": [
        Item(37, "Performance with its uncertainty", say.performance),
        Item(38, "Diagnostic performance with its precision", say.diagnostic_performance),
        Item(39, "What the model gets wrong", say.failures),
    ],
    "Discussion": [
        Item(40, "Limitations", say.limits),
        Item(41, "What follows for practice", say.implications),
    ],
    "Other information": [
        Item(42, "Where the full protocol and details are", say.details),
        Item(43, "Where software, weights and data are", say.availability),
        Item(44, "Funding, and the part of those who funded"),
    ],
}


def claim_checklist(study: Study) -> Document:
    """All items, each with its answer and the file that this is from."""
    answered = [
        (part, item, item.answer(study) if item.answer else None)
        for part, items in SECTIONS.items()
        for item in items
    ]
    rows = [
        [str(item.number), part, item.title, *(answer or (UNANSWERED, "–"))]
        for part, item, answer in answered
    ]
    count = sum(answer is not None for _, _, answer in answered)
    return Document(
        title=f"CLAIM 2024 checklist: {study.config['study']['title']}",
        notice=study.config["study"].get("notice"),
        sections={
            "What this is": [ABOUT],
            f"{count} of {len(rows)} items answered": [Rows(["No.", "Part", "Item", "Answer", "From"], rows)],
        },
    )
