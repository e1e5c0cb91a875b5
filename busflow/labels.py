"""The classes, in the order of every table, matrix and network output."""

LABELS = ("benign", "malignant", "normal")
LESIONS = LABELS[:2]  # what detectors box and segmenters outline; also COCO category ids 1 and 2
