"""The generated part of the documentation: docs/variables.md, from the specifications that Ansible itself checks."""
