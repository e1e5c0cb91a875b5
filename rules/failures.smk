# Where models fail: a score for each test image, the worst of them as pictures, and labels to look at again.
# For each task, after it: find_errors_detection, show_failures_detection
from busflow.protocols import GROUPED, plain

FAILURES = "<results>/failures/{task}.csv"
LABEL_ERRORS = "<results>/failures/label_errors.csv"
# Results of a fold do not stand for themselves; the marks are needed where images are scored.
FAILING = STUDIED if WHOLE else []
VIEWS += [INPUTS["marks"]] if FAILING else []
# Pictures are of one protocol, that which keeps related images on one side where there is one.
PICTURED = plain(config["protocols"], GROUPED) or next(iter(WHOLE), None)


localrules:
    failures,


rule failures:
    input:
        expand("<results>/failures/{task}.{kind}", task=FAILING, kind=["csv", "html"]),
        LABEL_ERRORS if "classification" in STUDIED else [],


for task in FAILING:
    TABLES[f"failures_{task}"] = Product(
        f"{task.capitalize()}: where models fail",
        "failures:failures",
        {"failures": of_task(task, FAILURES)},
        "failures",
    )
    SCORED = {
        "predictions": units(task, TASKS[task].predictions, protocol=WHOLE),
        "splits": splits(task, WHOLE),
        **in_protocols(known_of(task, "marks"), WHOLE),
    }
    SHOWN_FILES = {
        "failures": of_task(task, FAILURES),
        "predictions": units(task, TASKS[task].predictions, protocol=PICTURED),
        **in_protocols(known_of(task, "split", "packed_images", "packed_index"), [PICTURED]),
        **({"label_errors": LABEL_ERRORS} if task == "classification" else {}),
    }
    SCORING = ["metrics/*.py", "paper.*", "units.py", "tasks.py"]

    rule:
        name:
            f"find_errors_{task}"
        input:
            **SCORED,
            script="scripts/find_errors.py",
            code=code("failures/errors.py", f"failures/{task}.py", *SCORING, *CODE[task].metrics),
        output:
            of_task(task, FAILURES),
        log:
            f"<logs>/failures/{task}.log",
        conda:
            "../envs/busflow.yaml"
        params:
            task=task,
            files=as_options(SCORED),
            settings=as_json({"protocols": WHOLE, "models": {task: list(config["models"][task])}}),
        shell:
            "python {input.script:q} --task {params.task} {params.files} --settings {params.settings:q} "
            "--output {output:q} > {log:q} 2>&1"

    rule:
        name:
            f"show_failures_{task}"
        input:
            **SHOWN_FILES,
            script="scripts/make_gallery.py",
            code=code(
                *("figures/gallery.py", "failures/*.py", *SCORING),
                *(f"data/{name}.py" for name in ("packing", "masks", "images", "grey", "dicom", "views")),
                *(f"tables/template/{name}" for name in ("document.*", "gallery.*", "page.css")),
            ),
        output:
            report(
                f"<results>/failures/{task}.html",
                caption="../workflow/report/failures_pictures.rst",
                category="Failures",
                labels={"task": task.capitalize()},
            ),
        log:
            f"<logs>/failures/{task}_pictures.log",
        conda:
            "../envs/busflow.yaml"
        params:
            files=as_options(SHOWN_FILES),
            settings=lambda wildcards: PRESENTATION(wildcards),
        shell:
            "python {input.script:q} {params.files} --settings {params.settings:q} --html {output:q} "
            "> {log:q} 2>&1"


if "classification" in STUDIED:

    rule find_label_errors:
        input:
            script="scripts/find_label_errors.py",
            code=code(
                *(
                    f"data/{name}.py"
                    for name in ("label_errors", "thumbnails", "packing", "images", "grey", "dicom")
                )
            ),
            images=INPUTS["images"],
            packed_images=of_task("classification", INPUTS["packed_images"]),
            packed_index=of_task("classification", INPUTS["packed_index"]),
        output:
            LABEL_ERRORS,
        log:
            "<logs>/failures/label_errors.log",
        conda:
            "../envs/busflow.yaml"
        params:
            settings=as_json({"sources": sources_of("classification")}),
        shell:
            "python {input.script:q} --images {input.images:q} --packed-images {input.packed_images:q} "
            "--packed-index {input.packed_index:q} --settings {params.settings:q} --output {output:q} "
            "> {log:q} 2>&1"
