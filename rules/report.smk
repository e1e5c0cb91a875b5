# Right of the predictions: tables, figures, audit and report. Seconds, no GPU, no torch.
# Each table and figure is a rule of its own, after its file: snakemake tabulate_table2 draw_fig2
TABULATING = ["tables/*.py", "metrics/*.py", "paper.*", "units.py"]


localrules:
    tables,
    figures,
    record_config,
    draw_workflow,
    report,


rule tables:
    input:
        expand("<results>/tables/{table}.{kind}", table=TABLES, kind=["csv", "md"]),
        multiext("<results>/audit/ledger", ".csv", ".md"),


rule figures:
    input:
        expand("<results>/figures/{figure}.{kind}", figure=["fig1_workflow", *FIGURES], kind=["png", "svg"]),


for name, table in TABLES.items():

    rule:
        name:
            f"tabulate_{name}"
        input:
            **table.inputs,
            script="scripts/make_table.py",
            code=code(*TABULATING),
        output:
            csv=report(
                f"<results>/tables/{name}.csv",
                caption=f"../workflow/report/{name}.rst",
                category="Tables",
                labels={"table": table.label},
            ),
            md=f"<results>/tables/{name}.md",
        log:
            f"<logs>/tables/{name}.log",
        conda:
            "../envs/busflow.yaml"
        params:
            command=table.command,
            inputs=as_options(table.inputs),
            settings=PRESENTATION,
        shell:
            "python {input.script} {params.command} {params.inputs} --settings {params.settings:q} "
            "--csv {output.csv} --md {output.md} > {log} 2>&1"


for name, figure in FIGURES.items():

    rule:
        name:
            f"draw_{name}"
        input:
            **figure.inputs,
            script="scripts/plot.py",
            code=code("figures/*.py", *TABULATING),
        output:
            png=report(
                f"<results>/figures/{name}.png",
                caption=f"../workflow/report/{figure.command}.rst",
                category="Figures",
                labels={"figure": figure.label},
            ),
            svg=f"<results>/figures/{name}.svg",
        log:
            f"<logs>/figures/{name}.log",
        conda:
            "../envs/busflow.yaml"
        params:
            command=figure.command,
            inputs=as_options(figure.inputs),
            settings=PRESENTATION,
        shell:
            "python {input.script} {params.command} {params.inputs} --settings {params.settings:q} "
            "--svg {output.svg} --png {output.png} > {log} 2>&1"


rule measure_leakage:
    input:
        script="scripts/measure_leakage.py",
        code=code("data/leakage.py", "data/packing.py"),
        images="<data>/index/images.csv",
        duplicates="<data>/index/duplicates.csv",
        split="<data>/splits/{protocol}/classification.csv",
        packed_images="<data>/packed/classification/images.npy",
        packed_index="<data>/packed/classification/index.csv",
    output:
        "<results>/audit/leakage/{protocol}_classification.json",
    log:
        "<logs>/leakage/{protocol}_classification.log",
    conda:
        "../envs/busflow.yaml"
    shell:
        "python {input.script} --images {input.images} --duplicates {input.duplicates} --split {input.split} "
        "--packed-images {input.packed_images} --packed-index {input.packed_index} --output {output} > {log} 2>&1"


# The study as it runs: with its overlay, and with the defaults.
rule record_config:
    output:
        "<results>/config.yaml",
    log:
        "<logs>/config.log",
    params:
        config=as_json(config),
    run:
        Path(output[0]).write_text(
            yaml.safe_dump(json.loads(params.config), sort_keys=False, allow_unicode=True)
        )


rule draw_workflow:
    input:
        script="scripts/draw_workflow.py",
        code=code("figures/workflow.py", "figures/style.py"),
        config="<results>/config.yaml",
        rules=sorted(str(path) for path in Path("rules").glob("*.smk")),
    output:
        png=report(
            "<results>/figures/fig1_workflow.png",
            caption="../workflow/report/fig1.rst",
            category="Figures",
            labels={"figure": "Figure 1: workflow"},
        ),
        svg="<results>/figures/fig1_workflow.svg",
    log:
        "<logs>/figures/fig1_workflow.log",
    conda:
        "../envs/busflow.yaml"
    shell:
        "snakemake --configfile {input.config} --replace-workflow-config --nolock --quiet all --rulegraph dot "
        "tables figures 2> {log} | python {input.script} --svg {output.svg} --png {output.png} >> {log} 2>&1"


rule report:
    input:
        rules.tables.input,
        rules.figures.input,
        config="<results>/config.yaml",
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    conda:
        "../envs/busflow.yaml"
    shell:
        "snakemake --configfile {input.config} --replace-workflow-config --nolock --report {output} "
        "tables figures > {log} 2>&1"


rule audit:
    input:
        script="scripts/audit.py",
        code=code("audit/*.py", *TABULATING),
        tables=expand("<results>/tables/{table}.csv", table=TABLES),
        leakage=LEAKAGE,
        metrics=[units(task, "metrics.json") for task in TASKS],
    output:
        csv=report(
            "<results>/audit/ledger.csv",
            caption="../workflow/report/ledger.rst",
            category="Audit",
            labels={"table": "Ledger of claims"},
        ),
        md="<results>/audit/ledger.md",
    log:
        "<logs>/audit.log",
    conda:
        "../envs/busflow.yaml"
    params:
        settings=PRESENTATION,
    shell:
        "python {input.script} --tables {input.tables} --leakage {input.leakage} --metrics {input.metrics} "
        "--settings {params.settings:q} --csv {output.csv} --md {output.md} > {log} 2>&1"
