# Seven detectors, trained on a COCO view of each split.


localrules:
    detection,


rule detection:
    input:
        finished_units("detection"),


VIEW = "<data>/views/{protocol}/detection"
INPUTS |= {"train": f"{VIEW}/train.json", "val": f"{VIEW}/val.json", "test": f"{VIEW}/test.json"}
VIEWS += expand(INPUTS["test"], protocol=config["protocols"])
CODE["detection"] = Code(
    engine=[
        *("engine/detection.py", "engine/boxes.py", "data/views.py"),
        *(f"models/{name}.py" for name in ("detectors", "backbones", "published", "recursive_swin", "rfla")),
        *(
            f"models/{name}.py"
            for name in ("detr_head", "ops", "nms", "roi_align", "roi_extractor", "targets")
        ),
    ]
)


rule make_views:
    input:
        script="scripts/make_views.py",
        code=code("data/views.py"),
        split="<data>/splits/{protocol}/detection.csv",
        images="<data>/index/images.csv",
        annotations="<data>/index/annotations.csv",
    output:
        train=INPUTS["train"],
        val=INPUTS["val"],
        test=INPUTS["test"],
    log:
        "<logs>/views/{protocol}/detection.log",
    conda:
        "../envs/busflow.yaml"
    params:
        folder=subpath(output.train, parent=True),
    shell:
        "python {input.script:q} --split {input.split:q} --images {input.images:q} "
        "--annotations {input.annotations:q} --output {params.folder:q} > {log:q} 2>&1"


METRICS = {"metrics": units("detection", "metrics.json", protocol=WHOLE)}
TABLES |= {
    "table3": Product(
        "Table 3: detection split",
        "data:table3",
        {"splits": splits("detection"), "annotations": INPUTS["annotations"]},
    ),
    "table6": Product("Table 6: detectors", "detection:table6", METRICS),
    "table6_aitod": Product("Table 6 in the statistics of AI-TOD", "detection:table6_aitod", METRICS),
    "detection": Product("Detection: by class and size, recall, sensitivity", "detection:detection", METRICS),
    "detection_pairs": Product("Detection: pairs of models", "pairs:pairs", METRICS),
}

# What an ablation is one of is read beside it.
ABLATED = {
    model: entry["ablation_of"]
    for model, entry in config["models"]["detection"].items()
    if "ablation_of" in entry
}
if ABLATED:
    MODELS = sorted({*ABLATED, *(name for names in ABLATED.values() for name in names)})
    TABLES["ablations_detection"] = Product(
        "Detection: ablations",
        "ablations:ablations",
        {
            option: units("detection", file, protocol=WHOLE, model=MODELS)
            for option, file in (("metrics", "metrics.json"), ("records", "run.json"))
        },
        "ablations",
    )
    ALSO_WANTED += units("detection", "metrics.json", model=list(ABLATED))
    ALSO_WANTED += tested_outside("detection", "metrics.json", model=list(ABLATED))

# The paper shows two detectors in its Figure 4 and all others in its Figure 5.
DETECTORS = compared(config["models"]["detection"])
SHOWN = {
    "fig4": [name for name in DETECTORS if name in ("convnext_tiny", "convnext_small")],
    "fig5": [name for name in DETECTORS if name not in ("convnext_tiny", "convnext_small")],
}

for protocol in WHOLE:
    label = config["protocols"][protocol]["label"].lower()
    for figure, models in SHOWN.items():
        if models:
            FIGURES[f"{figure}_{protocol}"] = Product(
                f"Figure {figure[-1]}: predicted boxes, {label}",
                "boxes:predicted_boxes",
                {
                    "predictions": units("detection", "predictions.json", protocol=protocol, model=models),
                    "split": f"<data>/splits/{protocol}/detection.csv",
                    "annotations": INPUTS["annotations"],
                    "images": INPUTS["images"],
                },
                figure,
            )
    FIGURES[f"fig6_{protocol}"] = Product(
        f"Figure 6: prediction time of the detectors, {label}",
        "timing:prediction_time",
        {"timing": units("detection", "timing.json", protocol=protocol)},
        "fig6",
    )
    for figure, title in (
        ("pr_curves", "precision and recall"),
        ("froc", "sensitivity and false positives"),
        ("lesion_size", "by size of the lesion"),
    ):
        FIGURES[f"detection_{figure}_{protocol}"] = Product(
            f"Detection: {title}, {label}",
            f"detection:{figure}",
            {"metrics": units("detection", "metrics.json", protocol=protocol)},
            figure,
        )
