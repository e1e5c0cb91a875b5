# Eight ConvNeXt classifiers.


localrules:
    classification,


rule classification:
    input:
        finished_units("classification"),


CODE["classification"] = Code(
    engine=[
        *("engine/classification.py", "metrics/calibration.py", "metrics/confusion.py"),
    ]
)


rule describe_classification:
    input:
        script="scripts/describe_models.py",
        code=code("models/classifier.py", "models/efficientnet.py", "models/facts.py", "models/inputs.py"),
    output:
        "<results>/model_facts/classification.json",
    log:
        "<logs>/describe/classification.log",
    conda:
        "../envs/busflow.yaml"
    params:
        models=as_json(
            {
                name: {key: entry[key] for key in ("label", "timm", "batch_size")}
                for name, entry in config["models"]["classification"].items()
            }
        ),
    shell:
        "python {input.script:q} --task classification --models {params.models:q} --output {output:q} "
        "> {log:q} 2>&1"


FACTS = "<results>/model_facts/classification.json"
ALSO_WANTED.append(FACTS)

PREDICTIONS = {
    "predictions": units("classification", "predictions.csv", protocol=WHOLE),
    "splits": splits("classification", WHOLE),
}
TABLES |= {
    "table2": Product("Table 2: classification split", "data:table2", {"splits": splits("classification")}),
    "table5": Product("Table 5: classifiers", "classification:table5", {"facts": FACTS}),
    "classification": Product(
        "Classification: accuracy and F1", "classification:classification", PREDICTIONS
    ),
    "classification_pairs": Product(
        "Classification: pairs of models", "classification:classification_pairs", PREDICTIONS
    ),
    "classification_per_class": Product(
        "Classification: precision, recall and F1 by class",
        "classification:classification_per_class",
        {"metrics": units("classification", "metrics.json", protocol=WHOLE)},
    ),
    "classification_calibration": Product(
        "Classification: calibration and operating points",
        "classification:classification_calibration",
        {"metrics": units("classification", "metrics.json", protocol=WHOLE)},
    ),
}

FIGURES |= {
    "classification_summary": Product(
        "Classification: accuracy and F1 with intervals",
        "classification:summary",
        {"table": "<results>/tables/classification.csv" if WHOLE else []},
        "summary",
    ),
    "classification_timing": Product(
        "Classification: prediction time",
        "timing:timing",
        {"timing": units("classification", "timing.json", protocol=WHOLE)},
        "timing",
    ),
}

for protocol in WHOLE:
    label = config["protocols"][protocol]["label"].lower()
    FIGURES |= {
        f"fig3_{protocol}": Product(
            f"Figure 3: confusion matrices, {label}",
            "classification:fig3",
            {"metrics": units("classification", "metrics.json", protocol=protocol)},
            "fig3",
        ),
        f"classification_roc_{protocol}": Product(
            f"Classification: ROC, {label}",
            "classification:roc",
            {"predictions": units("classification", "predictions.csv", protocol=protocol)},
            "roc",
        ),
    } | {
        f"classification_{figure}_{protocol}": Product(
            f"Classification: {title}, {label}",
            f"calibration:{figure}",
            {
                "predictions": units("classification", "predictions.csv", protocol=protocol),
                "metrics": units("classification", "metrics.json", protocol=protocol),
            },
            figure,
        )
        for figure, title in (("reliability", "reliability"), ("decision_curves", "decision curves"))
    }
