# Archives to splits and packed arrays. Only the fetch rules use the network.

# Views of the data that tasks make for themselves.
VIEWS = []

# What of a source's entry decides which files are fetched and what their receipt says.
TO_FETCH = ["archive", "also", "urls", "sha256", "max_bytes", "homepage", "licence", "citation"]
FETCHING = ["data/sources.py", "data/transfers.py", "data/download.py", "data/folders.py"]
READING = [
    *("inspection", "readers", "layout", "lesions", "images", "grey", "dicom"),
    *("describing", "naming", "named", "table", "sheets", "coco", "coco_vid"),
]


localrules:
    data,
    fetch_archive,
    fetch_weights,


rule data:
    input:
        "<data>/index/images.csv",
        expand("<data>/splits/{protocol}/{task}.csv", protocol=config["protocols"], task=STUDIED),
        expand("<data>/packed/{task}/images.npy", task=STUDIED),
        lambda wildcards: VIEWS,  # which the tasks' rooms name
        expand("<data>/archives/weights/{weights}.json", weights=starting_weights()),


# The archive itself is no output: Snakemake deletes outputs before a rerun, and a 4 GB archive that
# came by hand must not go that way. The receipt, which holds its hash, stands for it.
rule fetch_archive:
    input:
        script="scripts/fetch.py",
        code=code(*FETCHING, "data/phantom*.py", "data/anatomy.py"),
    output:
        receipt="<data>/archives/{source}.json",
    log:
        "<logs>/fetch/{source}.log",
    retries: 1
    conda:
        "../envs/busflow.yaml"
    params:
        settings=lambda w: json_text(parts(config["sources"][w.source], TO_FETCH)),
        folder=subpath(output.receipt, parent=True),
        # Not for the script: when a folder of the user's own changes, so does this, and the rule runs again.
        state=lambda w, output: folder_state(
            config["sources"][w.source]["urls"],
            Path(output.receipt).with_name(config["sources"][w.source]["archive"]),
        ),
    shell:
        "python {input.script:q} --source {wildcards.source} --settings {params.settings:q} "
        "--archives {params.folder:q} --receipt {output.receipt:q} > {log:q} 2>&1"


rule unpack_archive:
    input:
        script="scripts/unpack.py",
        code=code("data/archives.py", "data/zip_extent.py", "data/tars.py", "data/folders.py"),
        receipt="<data>/archives/{source}.json",
    output:
        directory("<data>/raw/{source}"),
    log:
        "<logs>/unpack/{source}.log",
    conda:
        "../envs/busflow.yaml"
    params:
        archive=lambda w, input: Path(input.receipt).with_name(config["sources"][w.source]["archive"]),
    shell:
        "python {input.script:q} --archive {params.archive:q} --receipt {input.receipt:q} "
        "--output {output:q} > {log:q} 2>&1"


rule read_source:
    input:
        script="scripts/read_source.py",
        code=code(*(f"data/{name}.py" for name in READING)),
        raw="<data>/raw/{source}",
    output:
        directory("<data>/index/sources/{source}"),
    log:
        "<logs>/read/{source}.log",
    conda:
        "../envs/busflow.yaml"
    threads: 2
    params:
        settings=lambda w: json_text({"reader": config["sources"][w.source]["reader"]}),
    shell:
        "python {input.script:q} --source {wildcards.source} --settings {params.settings:q} --raw {input.raw:q} "
        "--output {output:q} --threads {threads} > {log:q} 2>&1"


rule build_index:
    input:
        script="scripts/build_index.py",
        code=code(*(f"data/{name}.py" for name in ("index", "duplicates", "errata", "layout", "coco_vid"))),
        sources=expand("<data>/index/sources/{source}", source=OWN),
    output:
        images="<data>/index/images.csv",
        annotations="<data>/index/annotations.csv",
        quarantine="<data>/index/quarantine.csv",
        duplicates="<data>/index/duplicates.csv",
    log:
        "<logs>/index.log",
    conda:
        "../envs/busflow.yaml"
    threads: 2
    params:
        settings=as_json(
            {
                "sources": {name: {"errata": source["errata"]} for name, source in OWN.items()},
                "quarantine": config["quarantine"],
                "duplicates": config["duplicates"],
            }
        ),
        folder=subpath(output.images, parent=True),
    shell:
        "python {input.script:q} --sources {input.sources:q} --settings {params.settings:q} "
        "--output {params.folder:q} > {log:q} 2>&1"


# Made where something asks for it: trainings do not.
rule find_marks:
    input:
        script="scripts/find_marks.py",
        code=code("data/marks.py", "data/images.py", "data/grey.py", "data/dicom.py"),
        images=INPUTS["images"],
        raw=expand("<data>/raw/{source}", source=OWN),
    output:
        INPUTS["marks"],
    log:
        "<logs>/marks.log",
    conda:
        "../envs/busflow.yaml"
    threads: 2
    shell:
        "python {input.script:q} --images {input.images:q} --threads {threads} --output {output:q} > {log:q} 2>&1"


rule split_images:
    input:
        script="scripts/split.py",
        code=code("data/splits.py", "data/group_split.py", "data/folds.py", "data/errata.py", "protocols.py"),
        images="<data>/index/images.csv",
        annotations="<data>/index/annotations.csv",
        quarantine="<data>/index/quarantine.csv",
    output:
        split="<data>/splits/{protocol}/{task}.csv",
        excluded="<data>/splits/{protocol}/{task}.excluded.csv",
    log:
        "<logs>/split/{protocol}/{task}.log",
    conda:
        "../envs/busflow.yaml"
    params:
        settings=lambda w: json_text(
            {
                "protocol": division(config["protocols"][w.protocol]),
                "splits": config["splits"],
                "sources": {
                    name: {"tasks": source["tasks"], "errata": source["errata"]}
                    for name, source in OWN.items()
                },
            }
        ),
    shell:
        "python {input.script:q} --protocol {wildcards.protocol} --task {wildcards.task} "
        "--images {input.images:q} --annotations {input.annotations:q} --quarantine {input.quarantine:q} "
        "--settings {params.settings:q} --output {output.split:q} --excluded {output.excluded:q} > {log:q} 2>&1"


rule pack_images:
    input:
        script="scripts/pack.py",
        code=code("data/packing.py", "data/images.py", "data/grey.py", "data/dicom.py"),
        images="<data>/index/images.csv",
        raw=lambda w: expand("<data>/raw/{source}", source=sources_of(w.task)),
    output:
        images="<data>/packed/{task}/images.npy",
        index="<data>/packed/{task}/index.csv",
    log:
        "<logs>/pack/{task}.log",
    conda:
        "../envs/busflow.yaml"
    threads: 2
    params:
        settings=lambda w: json_text(
            {"size": config["training"][w.task]["image_size"], "sources": sources_of(w.task)}
        ),
    shell:
        "python {input.script:q} --images {input.images:q} --settings {params.settings:q} --threads {threads} "
        "--output-images {output.images:q} --output-index {output.index:q} > {log:q} 2>&1"


rule fetch_weights:
    input:
        script="scripts/fetch.py",
        code=code(*FETCHING),
    output:
        receipt="<data>/archives/weights/{weights}.json",
    log:
        "<logs>/fetch/weights/{weights}.log",
    retries: 1
    conda:
        "../envs/busflow.yaml"
    params:
        settings=lambda w: json_text(weights_source(config["weights"][w.weights])),
        folder=subpath(output.receipt, parent=True),
    shell:
        "python {input.script:q} --source {wildcards.weights} --settings {params.settings:q} "
        "--archives {params.folder:q} --receipt {output.receipt:q} > {log:q} 2>&1"


TABLES["table1"] = Product("Table 1: sources", "data:table1", {"images": INPUTS["images"]})
FIGURES["fig2"] = Product("Figure 2: examples", "data:fig2", {"images": INPUTS["images"]})
