"""kvstrata: hyper-converged LLM serving with a tiered KV cache."""
