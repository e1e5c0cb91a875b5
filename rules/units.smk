# A unit of study, one model under one protocol and seed: train -> predict -> evaluate.
# The same three rules for each task, after it: train_detection, predict_detection, evaluate_detection; and for each
# task that external sources test, predict_external_detection and evaluate_external_detection.

# What the trainings and predictions of all tasks run, but for the choice of a GPU, which shapes no result.
ENGINE = [
    *(f"engine/{name}.py" for name in ("augmentation", "checkpoints", "datasets", "hooks", "memory", "meta")),
    *(f"engine/{name}.py" for name in ("precision", "prediction", "progress", "provenance", "runs")),
    *(f"engine/{name}.py" for name in ("signals", "timing", "training")),
    *(f"data/{name}.py" for name in ("appearance", "images", "grey", "dicom", "packing")),
    *(
        f"models/{name}.py"
        for name in ("classifier", "efficientnet", "initial", "inputs", "rules", "weights")
    ),
]

for task in STUDIED:

    rule:
        name:
            f"train_{task}"
        input:
            **inputs_of(task, "train"),
            script="scripts/train.py",
            code=code(*ENGINE, *CODE[task].engine),
            pretrained=pretrained_receipt(task),
        output:
            weights=unit_file(task, "weights.pth"),
            history=unit_file(task, "history.csv"),
            record=unit_file(task, "run.json"),
        log:
            f"<logs>/{{protocol}}/{task}/{{model}}/seed{{seed}}/train.log",
        # Registries go from small to large, more or less: the longest trainings start first.
        priority: place_in_registry(task)
        conda:
            "../envs/busflow.yaml"
        threads: config["compute"]["threads"]
        resources:
            gpu=config["compute"]["gpus"],
            workers=config["compute"]["workers"],
            checkpoint_interval=config["compute"]["checkpoint_interval"],
            mem_mb=memory_of_training(task),
        params:
            task=task,
            inputs=as_options(TASKS[task].train),
            settings=settings_of(task),
            origin=origin(task),
            pretrained=pretrained_argument(task),
            # Undeclared on purpose: Snakemake deletes the outputs of a failed job, and a resume needs these.
            state=under_root(f"runs/{{protocol}}/{task}/{{model}}/seed{{seed}}"),
            folder=subpath(output.weights, parent=True),
        # In the shell's place: a signal to all processes of a job would end the shell first, and with it the job,
        # while the training still saves its state.
        shell:
            "exec python {input.script:q} --task {params.task} --settings {params.settings:q} "
            "--seed {wildcards.seed} --origin {params.origin:q} {params.inputs} {params.pretrained} "
            "--state {params.state:q} "
            "--output {params.folder:q} --threads {threads} --gpus {resources.gpu} "
            "--workers {resources.workers} --checkpoint-interval {resources.checkpoint_interval} > {log:q} 2>&1"

    for test in TESTS:

        rule:
            name:
                f"predict_{test.prefix}{task}"
            input:
                **inputs_of(task, "predict", test.files),
                script="scripts/predict.py",
                code=code(*ENGINE, *CODE[task].engine),
                weights=unit_file(task, "weights.pth"),
            output:
                predictions=unit_file(task, TASKS[task].predictions, test),
                timing=unit_file(task, "timing.json", test),
            log:
                f"<logs>/{{protocol}}/{task}/{{model}}/seed{{seed}}/{test.folder}predict.log",
            conda:
                "../envs/busflow.yaml"
            threads: config["compute"]["threads"]
            resources:
                gpu=min(config["compute"]["gpus"], 1),
            params:
                task=task,
                inputs=as_options(TASKS[task].predict),
                settings=as_json({key: config["timing"][key] for key in TASKS[task].timing}),
                folder=subpath(output.predictions, parent=True),
            shell:
                "python {input.script:q} --task {params.task} --settings {params.settings:q} "
                "--weights {input.weights:q} {params.inputs} --output {params.folder:q} "
                "--threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"

        rule:
            name:
                f"evaluate_{test.prefix}{task}"
            input:
                **inputs_of(task, "evaluate", test.files),
                script="scripts/evaluate.py",
                code=code("metrics/*.py", "tasks.py", *CODE[task].metrics),
                predictions=unit_file(task, TASKS[task].predictions, test),
            output:
                metrics=unit_file(task, "metrics.json", test),
                resamples=unit_file(task, "resamples.npz", test),
                scores=unit_file(task, "scores.json", test),
            log:
                f"<logs>/{{protocol}}/{task}/{{model}}/seed{{seed}}/{test.folder}evaluate.log",
            conda:
                "../envs/busflow.yaml"
            params:
                task=task,
                inputs=as_options(TASKS[task].evaluate),
            shell:
                "python {input.script:q} --task {params.task} --predictions {input.predictions:q} {params.inputs} "
                "--output {output.metrics:q} --scores {output.scores:q} > {log:q} 2>&1"
