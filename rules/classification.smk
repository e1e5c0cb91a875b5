# Eight ConvNeXt classifiers: train -> predict -> evaluate.


localrules:
    classification,


rule classification:
    input:
        units("classification", "metrics.json"),


rule train_classification:
    input:
        script="scripts/train.py",
        code=code("engine/*.py", "models/*.py", "data/packing.py"),
        images="<data>/index/images.csv",
        split="<data>/splits/{protocol}/classification.csv",
        packed_images="<data>/packed/classification/images.npy",
        packed_index="<data>/packed/classification/index.csv",
        pretrained=pretrained_receipt("classification"),
    output:
        weights="<results>/{protocol}/classification/{model}/seed{seed}/weights.pth",
        history="<results>/{protocol}/classification/{model}/seed{seed}/history.csv",
        record="<results>/{protocol}/classification/{model}/seed{seed}/run.json",
    log:
        "<logs>/{protocol}/classification/{model}/seed{seed}/train.log",
    # Registries go from small to large, more or less: the longest trainings start first.
    priority: lambda w: list(config["models"]["classification"]).index(w.model)
    conda:
        "../envs/busflow.yaml"
    threads: config["compute"]["threads"]
    resources:
        gpu=config["compute"]["gpus"],
        workers=config["compute"]["workers"],
    params:
        settings=training_settings("classification", of_protocol=["balance_classes"]),
        pretrained=pretrained_argument("classification"),
        # Undeclared on purpose: Snakemake deletes the outputs of a failed job, and a resume needs these.
        state=under_root("runs/{protocol}/classification/{model}/seed{seed}"),
        folder=subpath(output.weights, parent=True),
    shell:
        "python {input.script} --task classification --settings {params.settings:q} --seed {wildcards.seed} "
        "--images {input.images} --split {input.split} --packed-images {input.packed_images} "
        "--packed-index {input.packed_index} {params.pretrained} --state {params.state} "
        "--output {params.folder} --threads {threads} --workers {resources.workers} > {log} 2>&1"


rule predict_classification:
    input:
        script="scripts/predict.py",
        code=code("engine/classification.py", "engine/timing.py", "models/*.py", "data/packing.py"),
        weights="<results>/{protocol}/classification/{model}/seed{seed}/weights.pth",
        images="<data>/index/images.csv",
        split="<data>/splits/{protocol}/classification.csv",
        packed_images="<data>/packed/classification/images.npy",
        packed_index="<data>/packed/classification/index.csv",
    output:
        predictions="<results>/{protocol}/classification/{model}/seed{seed}/predictions.csv",
        timing="<results>/{protocol}/classification/{model}/seed{seed}/timing.json",
    log:
        "<logs>/{protocol}/classification/{model}/seed{seed}/predict.log",
    conda:
        "../envs/busflow.yaml"
    threads: config["compute"]["threads"]
    resources:
        gpu=config["compute"]["gpus"],
    params:
        settings=as_json(config["timing"]),
        folder=subpath(output.predictions, parent=True),
    shell:
        "python {input.script} --task classification --settings {params.settings:q} --weights {input.weights} "
        "--images {input.images} --split {input.split} --packed-images {input.packed_images} "
        "--packed-index {input.packed_index} --output {params.folder} --threads {threads} > {log} 2>&1"


rule evaluate_classification:
    input:
        script="scripts/evaluate.py",
        code=code("metrics/*.py"),
        predictions="<results>/{protocol}/classification/{model}/seed{seed}/predictions.csv",
        split="<data>/splits/{protocol}/classification.csv",
    output:
        "<results>/{protocol}/classification/{model}/seed{seed}/metrics.json",
    log:
        "<logs>/{protocol}/classification/{model}/seed{seed}/evaluate.log",
    conda:
        "../envs/busflow.yaml"
    shell:
        "python {input.script} --task classification --predictions {input.predictions} --split {input.split} "
        "--output {output} > {log} 2>&1"


rule describe_classification:
    input:
        script="scripts/describe_models.py",
        code=code("models/*.py"),
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
