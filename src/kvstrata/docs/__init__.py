"""The generated part of the documentation: variables from their specifications, benchmarks from their results."""
