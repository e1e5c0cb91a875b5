# Eight ConvNeXt classifiers.


localrules:
    classification,


rule classification:
    input:
        finished_units("classification"),


SPLIT = {"split": "<data>/splits/{protocol}/classification.csv"}
UNITS["classification"] = Unit(
    train=packed("classification") | SPLIT,
    predict=packed("classification") | SPLIT,
    evaluate=SPLIT,
    predictions="predictions.csv",
    of_protocol=["balance_classes"],
    timing=["batch", "warmup", "iterations"],
    code=["engine/classification.py", "models/classifier.py", "models/inputs.py", "metrics/confusion.py"],
    evaluation_code=[],
)


rule describe_classification:
    input:
        script="scripts/describe_models.py",
        code=code("models/classifier.py", "models/facts.py"),
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
        "python {input.script} --task classification --models {params.models:q} --output {output} > {log} 2>&1"
