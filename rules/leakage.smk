# How far the test sets leak into the training sets, and how far the class is the scanner.

# Images are compared by their pixels and by the features of the first classifier that starts from pretrained weights.
FROZEN = next(
    (entry for entry in config["models"].get("classification", {}).values() if "pretrained" in entry), None
)
FEATURES = "<data>/packed/{task}/features.npy"


if FROZEN:

    rule extract_features:
        input:
            script="scripts/extract_features.py",
            code=code(
                "engine/features.py",
                *(f"models/{name}.py" for name in ("classifier", "efficientnet", "inputs", "weights")),
            ),
            packed_images=INPUTS["packed_images"],
            receipt=weights_receipt(FROZEN),
        output:
            FEATURES,
        log:
            "<logs>/features/{task}.log",
        conda:
            "../envs/busflow.yaml"
        threads: config["compute"]["threads"]
        resources:
            gpu=min(config["compute"]["gpus"], 1),
        params:
            network=FROZEN["timm"],
            weights=lambda w, input: weights_file(FROZEN, input.receipt),
        shell:
            "python {input.script:q} --packed-images {input.packed_images:q} --network {params.network:q} "
            "--weights {params.weights:q} --output {output:q} --threads {threads} --gpus {resources.gpu} "
            "> {log:q} 2>&1"


OF_SPLITS = {name: INPUTS[name] for name in ("images", "split", "packed_images", "packed_index")}
OF_SPLITS |= {"duplicates": "<data>/index/duplicates.csv"} | ({"features": FEATURES} if FROZEN else {})


rule measure_leakage:
    input:
        **OF_SPLITS,
        script="scripts/measure_leakage.py",
        code=code(
            *("metrics/leakage.py", "metrics/ranking.py", "metrics/matching.py", "metrics/uncertainty.py"),
            *("data/packing.py", "data/thumbnails.py"),
        ),
    output:
        "<results>/audit/leakage/{protocol}_{task}.json",
    log:
        "<logs>/leakage/{protocol}_{task}.log",
    conda:
        "../envs/busflow.yaml"
    params:
        inputs=as_options(OF_SPLITS),
    shell:
        "python {input.script:q} {params.inputs} --output {output:q} > {log:q} 2>&1"


ALSO_WANTED += leakage_of(STUDIED)
if FROZEN:
    VIEWS += expand(FEATURES, task=STUDIED)
TABLES["leakage"] = Product(
    "Leakage of the splits", "leakage:leakage", {"leakage": leakage_of(STUDIED)}, "leakage_table"
)
if "classification" in STUDIED:
    LEAKAGE += leakage_of(["classification"])
    FIGURES |= {
        "leakage": Product("Leakage of the splits", "data:leakage", {"leakage": LEAKAGE}),
        "straddling": Product(
            "Pairs that straddle train and test",
            "data:straddling",
            {
                "leakage": [
                    path for path, protocol in zip(LEAKAGE, config["protocols"]) if protocol in WHOLE
                ],
                **{
                    name: of_task("classification", INPUTS[name])
                    for name in ("packed_images", "packed_index")
                },
                "images": INPUTS["images"],
            },
        ),
    }
