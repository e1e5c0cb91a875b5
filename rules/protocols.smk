# What protocols, tasks or seeds say together: folds as one test, sources left out in turn, leaks, variance.

# Divisions into folds are called after their first.
DIVISIONS = [family[0] for family in FOLDS]
IN_FOLDS = [protocol for family in FOLDS for protocol in family]
POOLED = "<results>/pooled/{protocol}/{task}/{model}/seed{seed}/metrics.json"

if FOLDS:
    TABLES |= {
        f"crossval_{task}": Product(
            f"{task.capitalize()}: cross-validation",
            "crossval:crossval",
            {
                "pooled": expand(
                    POOLED,
                    protocol=DIVISIONS,
                    task=task,
                    model=compared(config["models"][task]),
                    seed=config["seeds"],
                ),
                "scores": units(task, "scores.json", protocol=IN_FOLDS),
                "splits": splits(task, IN_FOLDS),
            },
            "crossval",
        )
        for task in STUDIED
    }

if LEFT_OUT:
    TABLES |= {
        f"leave_one_out_{task}": Product(
            f"{task.capitalize()}: sources left out",
            "leave_one_out:leave_one_out",
            {"metrics": units(task, "metrics.json", protocol=LEFT_OUT)},
            "leave_one_out",
        )
        for task in STUDIED
    }

TABLES["relatives"] = Product(
    "Test images with and without a relative in training",
    "relatives:relatives",
    {
        "metrics": [path for task in STUDIED for path in units(task, "metrics.json", protocol=WHOLE)],
    },
)

if len(config["seeds"]) > 1:
    TABLES |= {
        f"seeds_{task}": Product(
            f"{task.capitalize()}: seeds and test images",
            "seeds:seeds",
            {"metrics": units(task, "metrics.json", protocol=WHOLE)},
            "seeds",
        )
        for task in STUDIED
    }


def of_folds(task, path):
    """A file of each fold of a division."""

    def paths(wildcards):
        folds = next(family for family in FOLDS if family[0] == wildcards.protocol)
        others = {name: value for name, value in wildcards.items() if name != "protocol"}
        return expand(of_task(task, path), protocol=folds, **others)

    return paths


for task in STUDIED if FOLDS else []:

    rule:
        name:
            f"pool_{task}"
        input:
            script="scripts/pool.py",
            code=code("metrics/*.py", "tasks.py", *CODE[task].metrics),
            predictions=of_folds(task, f"{UNIT}/{TASKS[task].predictions}"),
            splits=of_folds(task, INPUTS["split"]),
            # The same for all folds, the masks included; each fold has a training of its own.
            inputs=[
                path for name, path in inputs_of(task, "evaluate").items() if name not in ("split", "record")
            ],
        output:
            metrics=of_task(task, POOLED),
            resamples=of_task(task, beside(POOLED)),
        log:
            f"<logs>/pooled/{{protocol}}/{task}/{{model}}/seed{{seed}}.log",
        wildcard_constraints:
            protocol=one_of(DIVISIONS),
        conda:
            "../envs/busflow.yaml"
        params:
            task=task,
        shell:
            "python {input.script:q} --task {params.task} --predictions {input.predictions:q} "
            "--splits {input.splits:q} --inputs {input.inputs:q} --output {output.metrics:q} > {log:q} 2>&1"
