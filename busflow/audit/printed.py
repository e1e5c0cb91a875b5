"""Claims that the paper's own numbers decide, without any data."""

from collections.abc import Iterator

import numpy as np

from busflow.audit.evidence import Claim
from busflow.audit.identities import identities, nano_matrix
from busflow.audit.verdicts import equal, holds
from busflow.paper import printed


def printed_claims() -> Iterator[Claim]:
    """Sums and split rules of Tables 1 to 4, the ranks of section 5.1, and two definitions."""
    equations = identities()
    for name, table, words, where, claim in (
        ("T1.sums", "table1", "adds up", "Table 1", "The rows and columns of Table 1 add up"),
        ("T2.sums", "table2", "adds up", "Table 2", "The rows and columns of Table 2 add up"),
        ("T2.rule", "table2", "8:1:1 of", "Table 2", "Table 2 divides each class of Table 1 by 8:1:1"),
        ("T3.sums", "table3", "adds up", "Table 3", "The rows and columns of Table 3 add up"),
        ("T3.share", "table3", "5 %", "4.3, Table 3", "5 % of the original training set are for validation"),
        ("T3.lin", "table3", "Table 1", "Tables 1 and 3", "Source [26] has as many images as in Table 1"),
        ("T4.sums", "table4", "adds up", "Table 4", "The rows and columns of Table 4 add up"),
        (
            "T4.rule",
            "table4",
            "80/20",
            "4.2, Table 4",
            "Table 4 is 80/20 of the images, then 80/20 of the rest",
        ),
    ):
        tested = [each for each in equations if each.table == table and words in each.statement]
        broken = [each for each in tested if not each.holds]
        statements = "; ".join(each.statement for each in broken)
        yield Claim(
            name,
            claim,
            where,
            "; ".join(_number(each.printed) for each in broken or tested),
            holds(not broken),
            f"does not hold: {statements}" if broken else f"all {len(tested)} equations hold",
            corrected="; ".join(_number(each.implied) for each in broken) or "–",
        )
    yield _runners_up()
    yield _definition_of_precision()
    yield _definition_of_f1()
    yield _one_matrix()


def _runners_up() -> Claim:
    accuracy = printed("fig3")["accuracy"].dropna().sort_values(ascending=False)
    claimed = ["convnext_base", "convnext_tiny"]
    second_and_third = list(accuracy.index[1:3])

    def text(models: list[str]) -> str:
        return ", ".join(f"{model.removeprefix('convnext_')} {accuracy[model]:.2f}" for model in models)

    return Claim(
        "F3.runners_up",
        "ConvNeXt-Base and ConvNeXt-Tiny are the runners-up in accuracy",
        "5.1",
        text(claimed),
        holds(second_and_third == claimed),
        "the order of the printed accuracies",
        corrected=text(second_and_third),
    )


def _definition_of_precision() -> Claim:
    """Eq. 2 with the text's symbols is recall: which of Nano's two values is a share of the Normal images?"""
    row, n = printed("fig3").loc["convnext_nano"], printed("table2").loc["test", "normal"]
    images = row["normal_precision"] * n / 100
    rounding = 0.005 * n / 100
    return Claim(
        "E2.precision",
        "Precision is the share of a class's images that are found (Eq. 2 with the symbols of its text)",
        "4.1",
        f"{row['normal_precision']:.2f} % of the Normal images",
        holds(abs(images - round(images)) <= rounding),
        f"that is {images:.2f} of {n} images, but the recall of {row['normal_recall']} % is "
        f"{row['normal_recall'] * n / 100:.2f}: the values follow the standard definitions",
        corrected="share of a class's predictions that are right",
    )


def _definition_of_f1() -> Claim:
    matrix, _ = nano_matrix()
    hits, predicted, images = matrix.T
    precision, recall = np.mean(hits / predicted), np.mean(hits / images)
    mean = 100 * np.mean(2 * hits / (predicted + images))
    harmonic = 100 * 2 * precision * recall / (precision + recall)
    value = printed("fig3").loc["convnext_nano", "macro_f1"]
    return Claim(
        "F3.f1",
        "The total F1 score is the mean of the classes' F1 scores",
        "4.1, 5.1",
        f"{value:.2f}",
        equal(value, mean, tolerance=0.02),
        f"ConvNeXt-Nano: {mean:.2f} as that mean, {harmonic:.2f} from macro precision and recall",
    )


def _one_matrix() -> Claim:
    matrix, deviation = nano_matrix()
    hits, predicted, _ = matrix.T.astype(str)
    return Claim(
        "F3.nano",
        "The six values printed of ConvNeXt-Nano belong to one confusion matrix",
        "5.1",
        "accuracy, F1, three precisions, one recall",
        holds(deviation <= 0.005),
        f"whole numbers come no closer than {deviation:.3f} points; rounding explains 0.005",
        corrected=f"nearest: {', '.join(hits)} hits of {', '.join(predicted)} predictions",
    )


def _number(value: float) -> str:
    return f"{value:,}" if float(value).is_integer() else f"{value:.3f}"
