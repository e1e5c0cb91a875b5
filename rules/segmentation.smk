# Seven segmenters, trained on an index mask of each image.


localrules:
    segmentation,


rule segmentation:
    input:
        finished_units("segmentation"),


rule make_masks:
    input:
        script="scripts/make_masks.py",
        code=code("data/masks.py", "data/images.py", "data/views.py"),
        split="<data>/splits/{protocol}/segmentation.csv",
        images="<data>/index/images.csv",
        annotations="<data>/index/annotations.csv",
        raw=expand("<data>/raw/{source}", source=sources_of("segmentation")),
    output:
        directory("<data>/views/{protocol}/segmentation/masks"),
    log:
        "<logs>/views/{protocol}/segmentation.log",
    conda:
        "../envs/busflow.yaml"
    shell:
        "python {input.script} --split {input.split} --images {input.images} "
        "--annotations {input.annotations} --output {output} > {log} 2>&1"


MASKED = {
    "split": "<data>/splits/{protocol}/segmentation.csv",
    "masks": "<data>/views/{protocol}/segmentation/masks",
}
UNITS["segmentation"] = Unit(
    train=packed("segmentation") | MASKED,
    predict=packed("segmentation") | {"split": MASKED["split"]},
    evaluate=MASKED,
    predictions="predictions.json",
    of_protocol=["balance_classes"],
    timing=["warmup"],
    code=[
        *("engine/segmentation.py", "engine/masks.py", "data/masks.py", "data/views.py"),
        *(f"models/{name}.py" for name in ("segmenters", "backbones", "classifier", "inputs")),
    ],
    evaluation_code=["data/masks.py", "data/images.py", "data/views.py"],
)
