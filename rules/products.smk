# What a study presents: each table and figure with its title, command and inputs.
from collections import namedtuple

Product = namedtuple("Product", "label command inputs")

# What the presentation depends on: labels and titles, so that a new label redraws and retrains nothing.
PRESENTATION = as_json(
    {
        "study": config["study"],
        "protocols": config["protocols"],
        "sources": {
            name: {key: source[key] for key in ("label", "original_task", "tasks")}
            for name, source in config["sources"].items()
        },
        "models": {
            task: {
                name: {key: entry[key] for key in ("label", "batch_size") if key in entry}
                for name, entry in models.items()
            }
            for task, models in config["models"].items()
        },
        "figures": config["figures"],
    }
)

LEAKAGE = expand("<results>/audit/leakage/{protocol}_classification.json", protocol=config["protocols"])
DETECTION = {"metrics": units("detection", "metrics.json")}
SEGMENTATION = {"metrics": units("segmentation", "metrics.json")}

TABLES = {
    "table1": Product("Table 1: sources", "table1", {"images": "<data>/index/images.csv"}),
    "table2": Product("Table 2: classification split", "table2", {"splits": splits("classification")}),
    "table3": Product(
        "Table 3: detection split",
        "table3",
        {"splits": splits("detection"), "annotations": "<data>/index/annotations.csv"},
    ),
    "table4": Product("Table 4: segmentation split", "table4", {"splits": splits("segmentation")}),
    "table5": Product(
        "Table 5: classifiers", "table5", {"facts": "<results>/model_facts/classification.json"}
    ),
    "table6": Product("Table 6: detectors", "table6", DETECTION),
    "table6_aitod": Product("Table 6 in the statistics of AI-TOD", "table6_aitod", DETECTION),
    "table7": Product("Table 7: segmenters", "table7", SEGMENTATION),
    "classification": Product(
        "Classification: accuracy and F1",
        "classification",
        {"predictions": units("classification", "predictions.csv"), "splits": splits("classification")},
    ),
    "classification_per_class": Product(
        "Classification: precision, recall and F1 by class",
        "classification_per_class",
        {"metrics": units("classification", "metrics.json")},
    ),
    "detection": Product("Detection: by class and size, recall, sensitivity", "detection", DETECTION),
    "segmentation": Product("Segmentation: image by image", "segmentation", SEGMENTATION),
    "segmentation_pairs": Product("Segmentation: pairs of models", "segmentation_pairs", SEGMENTATION),
}

FIGURES = {
    "fig2": Product("Figure 2: examples", "fig2", {"images": "<data>/index/images.csv"}),
    "classification_summary": Product(
        "Classification: accuracy and F1 with intervals",
        "summary",
        {"table": "<results>/tables/classification.csv"},
    ),
    "classification_timing": Product(
        "Classification: prediction time", "timing", {"timing": units("classification", "timing.json")}
    ),
    "leakage": Product("Leakage of the splits", "leakage", {"leakage": LEAKAGE}),
}

# The paper shows two detectors in its Figure 4 and all others in its Figure 5, and two segmenters in Figure 7.
FIGURE_4 = [name for name in config["models"]["detection"] if name in ("convnext_tiny", "convnext_small")]
FIGURE_5 = [name for name in config["models"]["detection"] if name not in FIGURE_4]
FIGURE_7 = [name for name in config["models"]["segmentation"] if name in ("segformer_b0", "segformer_b4")]

for protocol, entry in config["protocols"].items():
    label = entry["label"].lower()
    FIGURES[f"fig3_{protocol}"] = Product(
        f"Figure 3: confusion matrices, {label}",
        "fig3",
        {"metrics": units("classification", "metrics.json", protocol=protocol)},
    )
    for figure, models in {"fig4": FIGURE_4, "fig5": FIGURE_5}.items():
        if models:
            FIGURES[f"{figure}_{protocol}"] = Product(
                f"Figure {figure[-1]}: predicted boxes, {label}",
                figure,
                {
                    "predictions": units("detection", "predictions.json", protocol=protocol, model=models),
                    "split": f"<data>/splits/{protocol}/detection.csv",
                    "annotations": "<data>/index/annotations.csv",
                    "images": "<data>/index/images.csv",
                },
            )
    FIGURES[f"fig6_{protocol}"] = Product(
        f"Figure 6: prediction time of the detectors, {label}",
        "fig6",
        {"timing": units("detection", "timing.json", protocol=protocol)},
    )
    for figure, models, title in (
        (f"fig7_{protocol}", FIGURE_7, "predicted masks"),
        (f"fig7_all_{protocol}", list(config["models"]["segmentation"]), "predicted masks of all segmenters"),
    ):
        if models:
            FIGURES[figure] = Product(
                f"Figure 7: {title}, {label}",
                "fig7",
                {
                    "predictions": units("segmentation", "predictions.json", protocol=protocol, model=models),
                    "metrics": units("segmentation", "metrics.json", protocol=protocol, model=models),
                    "masks": f"<data>/views/{protocol}/segmentation/masks",
                    "images": "<data>/index/images.csv",
                },
            )
    FIGURES[f"segmentation_timing_{protocol}"] = Product(
        f"Segmentation: prediction time, {label}",
        "segmentation_timing",
        {"timing": units("segmentation", "timing.json", protocol=protocol)},
    )
    for task in TASKS:
        FIGURES[f"{task}_curves_{protocol}"] = Product(
            f"{task.capitalize()}: training curves, {label}",
            "curves",
            {"history": units(task, "history.csv", protocol=protocol)},
        )
    FIGURES[f"classification_roc_{protocol}"] = Product(
        f"Classification: ROC, {label}",
        "roc",
        {"predictions": units("classification", "predictions.csv", protocol=protocol)},
    )
    for task, command, title in (
        ("detection", "pr_curves", "precision and recall"),
        ("detection", "froc", "sensitivity and false positives"),
        ("detection", "lesion_size", "by size of the lesion"),
        ("segmentation", "segmentation_dice", "Dice by image"),
        ("segmentation", "segmentation_sizes", "by size of the lesion"),
    ):
        FIGURES[f"{task}_{command.removeprefix('segmentation_')}_{protocol}"] = Product(
            f"{task.capitalize()}: {title}, {label}",
            command,
            {"metrics": units(task, "metrics.json", protocol=protocol)},
        )
