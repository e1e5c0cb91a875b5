"""A study on record: recorded by DVC, restored before a stage runs again, verified. No torch."""
