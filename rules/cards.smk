# Cards: the model card of each task's best model by validation, the checklist of the study, and what came out of it.
# Each is a rule of its own, after its file: snakemake make_card_detection make_card_claim_checklist make_card_outcome

# Which tasks a card tells of, by file name; and its title.
CARDS = {task: ([task], f"Model card: {task}") for task in STUDIED}
CARDS["claim_checklist"] = (STUDIED, "CLAIM 2024 checklist")
CARDS["outcome"] = (STUDIED, "What came out")
# What the outcome reads beside the cards' own files, by option.
READ_BY_OUTCOME = {
    "tables": [
        f"<results>/tables/{name}.csv"
        for name in ("classification", "table6", "segmentation", "leakage")
        if name in TABLES and all(TABLES[name].files.values())
    ],
    "ledger": "<results>/audit/ledger.csv",
}


localrules:
    cards,


rule cards:
    input:
        expand("<results>/cards/{card}.{kind}", card=CARDS, kind=["md", "html"]),


for name, (tasks, title) in CARDS.items():

    rule:
        name:
            f"make_card_{name}"
        input:
            **read_by_card(tasks),
            **(READ_BY_OUTCOME if name == "outcome" else {}),
            script="scripts/make_card.py",
            code=code(
                *(
                    "cards/*.py",
                    "audit/verdicts.py",
                    "tables/template/document.*",
                    "tables/template/page.css",
                ),
                *(f"tables/{module}.py" for module in ("document", "leading", "leakage", "table")),
                *("metrics/*.py", "paper.*", "units.py", "tasks.py", "protocols.py", "config.py"),
            ),
            config="<results>/config.yaml",
            quarantine="<data>/index/quarantine.csv",
            # Read beside the metrics and the splits.
            resamples=with_resamples(read_by_card(tasks)),
            records=units_of(tasks, "run.json"),
            histories=units_of(tasks, "history.csv"),
            excluded=expand(
                "<data>/splits/{protocol}/{task}.excluded.csv", protocol=config["protocols"], task=tasks
            ),
        output:
            md=f"<results>/cards/{name}.md",
            html=report(
                f"<results>/cards/{name}.html",
                caption="../workflow/report/card.rst",
                category="Cards",
                labels={"card": title},
            ),
        log:
            f"<logs>/cards/{name}.log",
        conda:
            "../envs/busflow.yaml"
        params:
            card=name,
            files=as_options([*read_by_card(tasks), *(READ_BY_OUTCOME if name == "outcome" else {})]),
        shell:
            "python {input.script:q} {params.card} --config {input.config:q} --quarantine {input.quarantine:q} "
            "{params.files} --md {output.md:q} --html {output.html:q} > {log:q} 2>&1"
