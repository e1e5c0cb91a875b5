"""Where models fail: a score for each test image, over all models and seeds of a task."""
