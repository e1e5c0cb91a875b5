# Right of the predictions: tables, figures, audit and report. Seconds, no GPU, no torch.
# Each table and figure is a rule of its own, after its file: snakemake tabulate_table2 draw_fig2

TABULATING = ["tables/*.py", "metrics/*.py", "paper.*", "units.py", "tasks.py", "protocols.py"]
PAGE = "tables/template/*"

# What the presentation depends on: labels and titles, so that a new label redraws and retrains nothing.
PRESENTATION = as_json(
    {
        "study": config["study"],
        "protocols": config["protocols"],
        "sources": {
            name: {key: source[key] for key in ("label", "original_task", "tasks")}
            for name, source in OWN.items()
        },
        "external": {name: {"label": source["label"]} for name, source in EXTERNAL.items()},
        "models": {
            task: {
                name: parts(entry, ["label", "batch_size", "ablation_of"]) for name, entry in models.items()
            }
            for task, models in config["models"].items()
        },
        "figures": config["figures"],
    }
)

for task in STUDIED:
    for protocol in WHOLE:
        FIGURES[f"{task}_curves_{protocol}"] = Product(
            f"{task.capitalize()}: training curves, {config['protocols'][protocol]['label'].lower()}",
            "training:curves",
            {"history": units(task, "history.csv", protocol=protocol)},
            "curves",
        )

# A study of folds alone has no results of whole protocols to present.
TABLES = {name: table for name, table in TABLES.items() if all(table.files.values())}
FIGURES = {name: figure for name, figure in FIGURES.items() if all(figure.files.values())}


localrules:
    tables,
    figures,
    record_config,
    draw_workflow,
    report,


rule tables:
    input:
        expand("<results>/tables/{table}.{kind}", table=TABLES, kind=["csv", "md", "html"]),
        multiext("<results>/audit/ledger", ".csv", ".md", ".html"),
        multiext("<results>/audit/summary", ".md", ".html"),


rule figures:
    input:
        expand("<results>/figures/{figure}.{kind}", figure=["fig1_workflow", *FIGURES], kind=["png", "svg"]),


for name, table in TABLES.items():

    rule:
        name:
            f"tabulate_{name}"
        input:
            **table.files,
            script="scripts/make_table.py",
            code=code(*TABULATING, PAGE, *table.code),
            resamples=with_resamples(table.files),
        output:
            csv=f"<results>/tables/{name}.csv",
            md=f"<results>/tables/{name}.md",
            html=report(
                f"<results>/tables/{name}.html",
                caption=f"../workflow/report/{table.caption or name}.rst",
                category="Tables",
                labels={"table": shown(table.title)},
            ),
        log:
            f"<logs>/tables/{name}.log",
        conda:
            "../envs/busflow.yaml"
        params:
            function=table.function,
            files=as_options(table.files),
            settings=PRESENTATION,
        shell:
            "python {input.script:q} {params.function} {params.files} --settings {params.settings:q} "
            "--csv {output.csv:q} --md {output.md:q} --html {output.html:q} > {log:q} 2>&1"


for name, figure in FIGURES.items():

    rule:
        name:
            f"draw_{name}"
        input:
            **figure.files,
            script="scripts/plot.py",
            code=code("figures/*.py", *TABULATING),
            resamples=with_resamples(figure.files),
        output:
            png=report(
                f"<results>/figures/{name}.png",
                caption=f"../workflow/report/{figure.caption or name}.rst",
                category="Figures",
                labels={"figure": shown(figure.title)},
            ),
            svg=f"<results>/figures/{name}.svg",
        log:
            f"<logs>/figures/{name}.log",
        conda:
            "../envs/busflow.yaml"
        params:
            function=figure.function,
            files=as_options(figure.files),
            settings=PRESENTATION,
        shell:
            "python {input.script:q} {params.function} {params.files} --settings {params.settings:q} "
            "--svg {output.svg:q} --png {output.png:q} > {log:q} 2>&1"


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
        # With all jobs forced, in a subprocess, Snakemake looks at no file that others make or remove meanwhile.
        "snakemake --configfile {input.config:q} --replace-workflow-config --nolock "
        "--forceall --mode subprocess --rulegraph dot tables figures 2> {log:q} "
        "| python {input.script:q} --svg {output.svg:q} --png {output.png:q} >> {log:q} 2>&1"


rule report:
    input:
        rules.tables.input,
        rules.figures.input,
        rules.cards.input,
        rules.failures.input,
        script="scripts/link_pages.py",
        code=code("tables/page.py", "tables/template/report.js"),
        config="<results>/config.yaml",
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    conda:
        "../envs/busflow.yaml"
    shell:
        "snakemake --configfile {input.config:q} --replace-workflow-config --nolock --report {output:q} "
        "tables figures cards failures > {log:q} 2>&1 && python {input.script:q} {output:q} >> {log:q} 2>&1"


# A claim of the paper is about the times of its detectors.
TIMED = units("detection", "timing.json") if "detection" in STUDIED else []


rule audit:
    input:
        script="scripts/audit.py",
        code=code("audit/*.py", *TABULATING, PAGE),
        tables=expand("<results>/tables/{table}.csv", table=TABLES),
        leakage=LEAKAGE,
        timing=TIMED,
        metrics=[units(task, "metrics.json", model=list(config["models"][task])) for task in STUDIED],
    output:
        csv="<results>/audit/ledger.csv",
        md="<results>/audit/ledger.md",
        html=report(
            "<results>/audit/ledger.html",
            caption="../workflow/report/ledger.rst",
            category="Audit",
            labels={"table": "Ledger of claims"},
        ),
        summary_md="<results>/audit/summary.md",
        summary_html=report(
            "<results>/audit/summary.html",
            caption="../workflow/report/audit_summary.rst",
            category="Audit",
            labels={"table": "Summary"},
        ),
    log:
        "<logs>/audit.log",
    conda:
        "../envs/busflow.yaml"
    params:
        measured=as_options([*(["leakage"] if LEAKAGE else []), *(["timing"] if TIMED else [])]),
        settings=PRESENTATION,
    shell:
        "python {input.script:q} --tables {input.tables:q} {params.measured} --metrics {input.metrics:q} "
        "--settings {params.settings:q} --csv {output.csv:q} --md {output.md:q} --html {output.html:q} "
        "--summary-md {output.summary_md:q} --summary-html {output.summary_html:q} > {log:q} 2>&1"
