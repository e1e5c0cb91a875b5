# External tests: sources that no model learns from, which every trained model of their tasks predicts.

FROM_OUTSIDE = "<data>/external/{source}"
OUTSIDE = {
    "images": f"{FROM_OUTSIDE}/images.csv",
    "annotations": f"{FROM_OUTSIDE}/annotations.csv",
    "packed_images": f"{FROM_OUTSIDE}/{{task}}/images.npy",
    "packed_index": f"{FROM_OUTSIDE}/{{task}}/index.csv",
    "split": f"{FROM_OUTSIDE}/{{task}}/split.csv",
    "test": f"{FROM_OUTSIDE}/{{task}}/test.json",
    "masks": f"{FROM_OUTSIDE}/{{task}}/masks",
    "record": INPUTS["record"],
}
OUTSIDE_CODE = [
    f"data/{name}.py" for name in ("external", "index", "duplicates", "errata", "layout", "coco_vid")
]
TESTS.append(Test("external/{source}/", OUTSIDE, "external_"))


rule index_external:
    input:
        script="scripts/build_external_index.py",
        code=code(*OUTSIDE_CODE),
        source="<data>/index/sources/{source}",
        study=expand("<data>/index/sources/{source}", source=OWN),
    output:
        images=OUTSIDE["images"],
        annotations=OUTSIDE["annotations"],
        quarantine=f"{FROM_OUTSIDE}/quarantine.csv",
        duplicates=f"{FROM_OUTSIDE}/duplicates.csv",
    log:
        "<logs>/external/{source}/index.log",
    conda:
        "../envs/busflow.yaml"
    params:
        settings=as_json(
            {
                "sources": {
                    name: {"errata": source["errata"]} for name, source in config["sources"].items()
                },
                "quarantine": config["quarantine"],
                "duplicates": config["duplicates"],
            }
        ),
        folder=subpath(output.images, parent=True),
    shell:
        "python {input.script:q} --source {input.source:q} --study {input.study:q} "
        "--settings {params.settings:q} --output {params.folder:q} > {log:q} 2>&1"


rule split_external:
    input:
        script="scripts/split_external.py",
        code=code(*OUTSIDE_CODE),
        images=OUTSIDE["images"],
        annotations=OUTSIDE["annotations"],
        quarantine=f"{FROM_OUTSIDE}/quarantine.csv",
    output:
        split=OUTSIDE["split"],
        excluded=f"{FROM_OUTSIDE}/{{task}}/excluded.csv",
    log:
        "<logs>/external/{source}/{task}_split.log",
    conda:
        "../envs/busflow.yaml"
    params:
        settings=lambda w: json_text({"sources": {w.source: {"errata": EXTERNAL[w.source]["errata"]}}}),
    shell:
        "python {input.script:q} --task {wildcards.task} --images {input.images:q} "
        "--annotations {input.annotations:q} --quarantine {input.quarantine:q} "
        "--settings {params.settings:q} --output {output.split:q} --excluded {output.excluded:q} > {log:q} 2>&1"


use rule pack_images as pack_external_images with:
    input:
        script="scripts/pack.py",
        code=code("data/packing.py", "data/images.py", "data/grey.py", "data/dicom.py"),
        images=OUTSIDE["images"],
        raw="<data>/raw/{source}",
    output:
        images=OUTSIDE["packed_images"],
        index=OUTSIDE["packed_index"],
    log:
        "<logs>/external/{source}/{task}_pack.log",
    params:
        settings=lambda w: json_text(
            {"size": config["training"][w.task]["image_size"], "sources": [w.source]}
        ),


if "detection" in STUDIED:

    use rule make_views as make_external_views with:
        input:
            script="scripts/make_views.py",
            code=code("data/views.py"),
            split=of_task("detection", OUTSIDE["split"]),
            images=OUTSIDE["images"],
            annotations=OUTSIDE["annotations"],
        output:
            test=of_task("detection", OUTSIDE["test"]),
        log:
            "<logs>/external/{source}/views.log",
        params:
            folder=subpath(output.test, parent=True),


if "segmentation" in STUDIED:

    use rule make_masks as make_external_masks with:
        input:
            script="scripts/make_masks.py",
            code=code("data/masks.py", "data/images.py", "data/grey.py", "data/dicom.py", "data/views.py"),
            split=of_task("segmentation", OUTSIDE["split"]),
            images=OUTSIDE["images"],
            annotations=OUTSIDE["annotations"],
            raw=expand("<data>/{place}/{{source}}", place=["raw", "index/sources"]),
        output:
            directory(of_task("segmentation", OUTSIDE["masks"])),
        log:
            "<logs>/external/{source}/masks.log",


TESTED_OUTSIDE = [task for task in STUDIED if sources_of(task, EXTERNAL)]

for task in TESTED_OUTSIDE:
    wanted = {OUTSIDE[name] for name in TASKS[task].predict + TASKS[task].evaluate if name != "record"}
    VIEWS += expand(sorted(wanted), task=task, source=sources_of(task, EXTERNAL))
    TABLES[f"external_{task}"] = Product(
        f"{task.capitalize()}: external tests",
        "external:external",
        {
            "metrics": units(task, "metrics.json"),
            "external": tested_outside(task, "metrics.json"),
            "excluded": expand(f"{FROM_OUTSIDE}/{task}/excluded.csv", source=sources_of(task, EXTERNAL)),
        },
        "external",
    )

if TESTED_OUTSIDE:
    FIGURES["external"] = Product(
        "External tests: own test split and other sources",
        "external:external",
        {"tables": [f"<results>/tables/external_{task}.csv" for task in TESTED_OUTSIDE]},
    )
