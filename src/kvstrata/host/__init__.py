"""The role host: what it sets on a machine, and where the services of a machine run on it."""
