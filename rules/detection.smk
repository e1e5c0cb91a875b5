# Seven detectors: views -> train -> predict -> evaluate.


localrules:
    detection,


rule detection:
    input:
        units("detection", "metrics.json"),


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


rule train_detection:
    input:
        script="scripts/train.py",
        code=code("engine/*.py", "models/*.py", "data/packing.py", "data/views.py"),
        images="<data>/index/images.csv",
        train="<data>/views/{protocol}/detection/train.json",
        val="<data>/views/{protocol}/detection/val.json",
        packed_images="<data>/packed/detection/images.npy",
        packed_index="<data>/packed/detection/index.csv",
        pretrained=pretrained_receipt("detection"),
    output:
        weights="<results>/{protocol}/detection/{model}/seed{seed}/weights.pth",
        history="<results>/{protocol}/detection/{model}/seed{seed}/history.csv",
        record="<results>/{protocol}/detection/{model}/seed{seed}/run.json",
    log:
        "<logs>/{protocol}/detection/{model}/seed{seed}/train.log",
    # Registries go from small to large, more or less: the longest trainings start first.
    priority: lambda w: list(config["models"]["detection"]).index(w.model)
    conda:
        "../envs/busflow.yaml"
    threads: config["compute"]["threads"]
    resources:
        gpu=config["compute"]["gpus"],
        workers=config["compute"]["workers"],
    params:
        settings=training_settings("detection"),
        pretrained=pretrained_argument("detection"),
        # Undeclared on purpose: Snakemake deletes the outputs of a failed job, and a resume needs these.
        state=under_root("runs/{protocol}/detection/{model}/seed{seed}"),
        folder=subpath(output.weights, parent=True),
    shell:
        "python {input.script} --task detection --settings {params.settings:q} --seed {wildcards.seed} "
        "--images {input.images} --train {input.train} --val {input.val} "
        "--packed-images {input.packed_images} --packed-index {input.packed_index} {params.pretrained} "
        "--state {params.state} --output {params.folder} "
        "--threads {threads} --workers {resources.workers} > {log} 2>&1"


rule predict_detection:
    input:
        script="scripts/predict.py",
        code=code(
            "engine/detection.py",
            "engine/boxes.py",
            "engine/timing.py",
            "models/*.py",
            "data/packing.py",
            "data/views.py",
        ),
        weights="<results>/{protocol}/detection/{model}/seed{seed}/weights.pth",
        images="<data>/index/images.csv",
        test="<data>/views/{protocol}/detection/test.json",
        packed_images="<data>/packed/detection/images.npy",
        packed_index="<data>/packed/detection/index.csv",
    output:
        predictions="<results>/{protocol}/detection/{model}/seed{seed}/predictions.json",
        timing="<results>/{protocol}/detection/{model}/seed{seed}/timing.json",
    log:
        "<logs>/{protocol}/detection/{model}/seed{seed}/predict.log",
    conda:
        "../envs/busflow.yaml"
    threads: config["compute"]["threads"]
    resources:
        gpu=config["compute"]["gpus"],
    params:
        settings=as_json(config["timing"]),
        folder=subpath(output.predictions, parent=True),
    shell:
        "python {input.script} --task detection --settings {params.settings:q} --weights {input.weights} "
        "--images {input.images} --test {input.test} --packed-images {input.packed_images} "
        "--packed-index {input.packed_index} --output {params.folder} --threads {threads} > {log} 2>&1"


rule evaluate_detection:
    input:
        script="scripts/evaluate.py",
        code=code("metrics/*.py"),
        predictions="<results>/{protocol}/detection/{model}/seed{seed}/predictions.json",
        split="<data>/splits/{protocol}/detection.csv",
        annotations="<data>/index/annotations.csv",
        images="<data>/index/images.csv",
    output:
        "<results>/{protocol}/detection/{model}/seed{seed}/metrics.json",
    log:
        "<logs>/{protocol}/detection/{model}/seed{seed}/evaluate.log",
    conda:
        "../envs/busflow.yaml"
    shell:
        "python {input.script} --task detection --predictions {input.predictions} --split {input.split} "
        "--annotations {input.annotations} --images {input.images} --output {output} > {log} 2>&1"
