"""The audit: what the paper claims, what its own numbers say, what ours say, and the verdict."""
