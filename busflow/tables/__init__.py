"""Tables: the paper's and the study's own, from metrics."""
