# Seven detectors, trained on a COCO view of each split.


localrules:
    detection,


rule detection:
    input:
        finished_units("detection"),


rule make_views:
    input:
        script="scripts/make_views.py",
        code=code("data/views.py"),
        split="<data>/splits/{protocol}/detection.csv",
        images="<data>/index/images.csv",
        annotations="<data>/index/annotations.csv",
    output:
        train="<data>/views/{protocol}/detection/train.json",
        val="<data>/views/{protocol}/detection/val.json",
        test="<data>/views/{protocol}/detection/test.json",
    log:
        "<logs>/views/{protocol}/detection.log",
    conda:
        "../envs/busflow.yaml"
    params:
        folder=subpath(output.train, parent=True),
    shell:
        "python {input.script} --split {input.split} --images {input.images} "
        "--annotations {input.annotations} --output {params.folder} > {log} 2>&1"


VIEW = "<data>/views/{protocol}/detection"
UNITS["detection"] = Unit(
    train=packed("detection") | {"train": f"{VIEW}/train.json", "val": f"{VIEW}/val.json"},
    predict=packed("detection") | {"test": f"{VIEW}/test.json"},
    evaluate={
        "split": "<data>/splits/{protocol}/detection.csv",
        "annotations": "<data>/index/annotations.csv",
        "images": "<data>/index/images.csv",
    },
    predictions="predictions.json",
    of_protocol=[],
    timing=["warmup"],
    code=[
        *("engine/detection.py", "engine/boxes.py", "data/views.py"),
        *(f"models/{name}.py" for name in ("detectors", "backbones", "recursive_swin", "rfla", "classifier", "inputs")),
        *("models/ops.py", "models/nms.py", "models/roi_align.py"),
    ],
    evaluation_code=[],
)
