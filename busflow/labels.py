"""The classes, in the order of every table, matrix and network output."""

LABELS = ("benign", "malignant", "normal")
