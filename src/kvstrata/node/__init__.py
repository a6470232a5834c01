"""What runs on the nodes, in the release's virtual environment: Python 3.10+, standard library and LMCache."""
