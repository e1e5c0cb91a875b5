"""busflow: a Snakemake workflow that reproduces, audits and extends a breast-ultrasound study."""

__version__ = "0.1.0"
