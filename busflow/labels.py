"""Names that go through the whole study."""

# The classes, in the order of every table, matrix and network output.
LABELS = ("benign", "malignant", "normal")
# What detectors box and segmenters outline; also COCO's category ids 1 and 2.
LESIONS = LABELS[:2]
SPLITS = ("train", "val", "test")
CLASS_COLOURS = dict(zip(LABELS, ("#2a9d8f", "#c8553d", "#6c757d"), strict=True))
