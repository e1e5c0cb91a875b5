# Seven segmenters, trained on an index mask of each image.


localrules:
    segmentation,


rule segmentation:
    input:
        finished_units("segmentation"),


INPUTS["masks"] = "<data>/views/{protocol}/segmentation/masks"
VIEWS += expand(INPUTS["masks"], protocol=config["protocols"])
CODE["segmentation"] = Code(
    engine=[
        *("engine/segmentation.py", "engine/masks.py", "data/masks.py", "data/views.py"),
        *(f"models/{name}.py" for name in ("segmenters", "segformer_head", "backbones", "published")),
    ],
    metrics=[f"data/{name}.py" for name in ("masks", "images", "grey", "dicom", "views")],
)


rule make_masks:
    input:
        script="scripts/make_masks.py",
        code=code("data/masks.py", "data/images.py", "data/grey.py", "data/dicom.py", "data/views.py"),
        split="<data>/splits/{protocol}/segmentation.csv",
        images="<data>/index/images.csv",
        annotations="<data>/index/annotations.csv",
        raw=expand(
            "<data>/{place}/{source}", place=["raw", "index/sources"], source=sources_of("segmentation")
        ),
    output:
        directory(INPUTS["masks"]),
    log:
        "<logs>/views/{protocol}/segmentation.log",
    conda:
        "../envs/busflow.yaml"
    shell:
        "python {input.script:q} --split {input.split:q} --images {input.images:q} "
        "--annotations {input.annotations:q} --output {output:q} > {log:q} 2>&1"


METRICS = {"metrics": units("segmentation", "metrics.json", protocol=WHOLE)}
TABLES |= {
    "table4": Product("Table 4: segmentation split", "data:table4", {"splits": splits("segmentation")}),
    "table7": Product("Table 7: segmenters", "segmentation:table7", METRICS),
    "segmentation": Product("Segmentation: image by image", "segmentation:segmentation", METRICS),
    "segmentation_pairs": Product(
        "Segmentation: pairs of models", "segmentation:segmentation_pairs", METRICS
    ),
}

# The paper shows two segmenters in its Figure 7.
SEGMENTERS = list(config["models"]["segmentation"])
SHOWN = {
    "fig7": ("predicted masks", [name for name in SEGMENTERS if name in ("segformer_b0", "segformer_b4")]),
    "fig7_all": ("predicted masks of all segmenters", SEGMENTERS),
}

for protocol in WHOLE:
    label = config["protocols"][protocol]["label"].lower()
    for figure, (title, models) in SHOWN.items():
        if models:
            FIGURES[f"{figure}_{protocol}"] = Product(
                f"Figure 7: {title}, {label}",
                "masks:predicted_masks",
                {
                    "predictions": units("segmentation", "predictions.json", protocol=protocol, model=models),
                    "metrics": units("segmentation", "metrics.json", protocol=protocol, model=models),
                    "masks": INPUTS["masks"].format(protocol=protocol),
                    "images": INPUTS["images"],
                },
                "fig7",
            )
    FIGURES[f"segmentation_timing_{protocol}"] = Product(
        f"Segmentation: prediction time, {label}",
        "timing:prediction_time",
        {"timing": units("segmentation", "timing.json", protocol=protocol)},
        "segmentation_timing",
    )
    for figure, title in (("dice", "Dice by image"), ("sizes", "by size of the lesion")):
        FIGURES[f"segmentation_{figure}_{protocol}"] = Product(
            f"Segmentation: {title}, {label}",
            f"segmentation:segmentation_{figure}",
            {"metrics": units("segmentation", "metrics.json", protocol=protocol)},
            f"segmentation_{figure}",
        )
