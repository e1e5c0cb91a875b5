"""Cards: what a study's best models are, for whom, and how far they may be trusted, from its files alone."""
