"""The proof that the tiers work: one prompt, cold, after a restart, and on another node."""
