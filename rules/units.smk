# A unit of study, one model under one protocol and seed: train -> predict -> evaluate.
# The same three rules for each task, after it: train_detection, predict_detection, evaluate_detection.

for task, unit in UNITS.items():

    rule:
        name:
            f"train_{task}"
        input:
            **unit.train,
            script="scripts/train.py",
            code=code(*ENGINE, *unit.code),
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
        params:
            task=task,
            inputs=as_options(unit.train),
            settings=training_settings(task, unit.of_protocol),
            pretrained=pretrained_argument(task),
            # Undeclared on purpose: Snakemake deletes the outputs of a failed job, and a resume needs these.
            state=under_root(f"runs/{{protocol}}/{task}/{{model}}/seed{{seed}}"),
            folder=subpath(output.weights, parent=True),
        # In the shell's place: a signal to all processes of a job would end the shell first, and with it the job,
        # while the training still saves its state.
        shell:
            "exec python {input.script} --task {params.task} --settings {params.settings:q} "
            "--seed {wildcards.seed} {params.inputs} {params.pretrained} --state {params.state} "
            "--output {params.folder} --threads {threads} --gpus {resources.gpu} --workers {resources.workers} "
            "--checkpoint-interval {resources.checkpoint_interval} > {log} 2>&1"

    rule:
        name:
            f"predict_{task}"
        input:
            **unit.predict,
            script="scripts/predict.py",
            code=code(*ENGINE, *unit.code),
            weights=unit_file(task, "weights.pth"),
        output:
            predictions=unit_file(task, unit.predictions),
            timing=unit_file(task, "timing.json"),
        log:
            f"<logs>/{{protocol}}/{task}/{{model}}/seed{{seed}}/predict.log",
        conda:
            "../envs/busflow.yaml"
        threads: config["compute"]["threads"]
        resources:
            gpu=min(config["compute"]["gpus"], 1),
        params:
            task=task,
            inputs=as_options(unit.predict),
            settings=as_json({key: config["timing"][key] for key in unit.timing}),
            folder=subpath(output.predictions, parent=True),
        shell:
            "python {input.script} --task {params.task} --settings {params.settings:q} "
            "--weights {input.weights} {params.inputs} --output {params.folder} "
            "--threads {threads} --gpus {resources.gpu} > {log} 2>&1"

    rule:
        name:
            f"evaluate_{task}"
        input:
            **unit.evaluate,
            script="scripts/evaluate.py",
            code=code("metrics/*.py", *unit.evaluation_code),
            predictions=unit_file(task, unit.predictions),
        output:
            metrics=unit_file(task, "metrics.json"),
            scores=unit_file(task, "scores.json"),
        log:
            f"<logs>/{{protocol}}/{task}/{{model}}/seed{{seed}}/evaluate.log",
        conda:
            "../envs/busflow.yaml"
        params:
            task=task,
            inputs=as_options(unit.evaluate),
        shell:
            "python {input.script} --task {params.task} --predictions {input.predictions} {params.inputs} "
            "--output {output.metrics} --scores {output.scores} > {log} 2>&1"
