"""`kvstrata bench page`: one Markdown page, with plots, of the benchmarks' committed files."""
